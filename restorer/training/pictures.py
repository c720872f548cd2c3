"""Where pictures for training come from: folders, globs, lists, LMDB, tar shards; read by number, paired by name."""

import glob
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from restorer.errors import DataError, MissingPackageError, PictureError
from restorer.pipeline.files import READABLE
from restorer.pipeline.picture import read_picture

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Pictures by number."""

    where: str
    """As the user named them."""
    names: Sequence[str]
    """One a picture: the path within its source, without suffix, by which pairs find each other."""
    read: Callable[[int], Pixels]
    """Number -> (H, W, 1 or 3); PictureError for one that is no picture."""


def open_pictures(where: str) -> Pictures:
    """A folder with all below it, an LMDB folder, a .txt list of paths, .tar shards, or a glob of any of the files."""
    try:
        return _opened(where, Path(where))
    except (OSError, UnicodeError) as error:
        raise DataError(f"'{where}' cannot be read ({error}); check its rights and that it is whole") from None


def _opened(where: str, path: Path) -> Pictures:
    if (path / "data.mdb").is_file():
        return _lmdb(where, path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READABLE and file.is_file())
        return _files(where, files, root=path)
    if path.suffix == ".txt" and path.is_file():
        lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
        return _files(where, [path.parent / line for line in lines if line and not line.startswith("#")], root=None)
    found = [Path(name) for name in sorted(glob.glob(where, recursive=True))]  # noqa: PTH207 -- may be absolute
    if not found:
        raise DataError(f"no pictures at '{where}'; give a folder, a glob, a .txt list, .tar shards or an LMDB folder")
    if all(file.suffix == ".tar" for file in found):
        return _tars(where, found)
    return _files(where, [file for file in found if file.suffix.lower() in READABLE], root=None)


def paired(high: Pictures, low: Pictures, scale: int) -> Pictures:
    """`low` in the order of `high`; DIV2K's names (0001x4 for 0001) pair too. What has no partner is an error."""
    places = {name.removesuffix(f"x{scale}"): number for number, name in enumerate(low.names)}
    places |= {name: number for number, name in enumerate(low.names)}
    missing = [name for name in high.names if name not in places]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(high.names)} pictures of '{high.where}' have no partner of the same name in "
            f"'{low.where}' ({', '.join(missing[:_SHOWN])}); pairs share their names"
        )
    order = [places[name] for name in high.names]
    return replace(low, names=high.names, read=lambda number: low.read(order[number]))


def _files(where: str, files: Sequence[Path], root: Path | None) -> Pictures:
    """Named by their place in `root`; without one by their file name."""
    if not files:
        raise DataError(f"no pictures in '{where}'; known kinds: {', '.join(sorted(READABLE))}")
    names = [(file.relative_to(root) if root else Path(file.name)).with_suffix("").as_posix() for file in files]
    _refuse_twins(where, names)
    return Pictures(where=where, names=names, read=lambda number: read_picture(files[number]).pixels)


def _lmdb(where: str, folder: Path) -> Pictures:
    """Keys are names, values are encoded pictures, as BasicSR writes them; the keys are listed in meta_info.txt."""
    try:
        import lmdb
    except ImportError:
        raise MissingPackageError('reading LMDB needs: pip install "restorer[train]"') from None
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
        with environment.begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    except lmdb.Error as error:
        raise DataError(f"the LMDB folder '{where}' cannot be read ({error}); copy or make it again") from None
    if not keys:
        raise DataError(f"the LMDB folder '{where}' is empty")
    names = [key.decode("utf-8", "replace") for key in keys]

    def read(number: int) -> Pixels:
        with environment.begin() as transaction:
            value = transaction.get(keys[number])
            return read_picture(bytes(value or b""), name=f"{where}:{names[number]}").pixels

    return Pictures(where=where, names=names, read=read)


def _tars(where: str, shards: Sequence[Path]) -> Pictures:
    """WebDataset: plain tar files; a sample's picture is the member of its name with a picture's suffix."""
    places: list[tuple[Path, int, int]] = []
    names: list[str] = []
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as tar:
                members = [m for m in tar if m.isfile() and PurePosixPath(m.name).suffix.lower() in READABLE]
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard}: cannot be read as a tar file ({error}); shards must not be compressed") from None
        places += [(shard, member.offset_data, member.size) for member in members]
        names += [f"{shard.stem}/{PurePosixPath(member.name).with_suffix('')}" for member in members]
    if not places:
        raise DataError(f"no pictures in the shards '{where}'")
    _refuse_twins(where, names)

    def read(number: int) -> Pixels:
        shard, offset, size = places[number]
        try:
            with shard.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise PictureError(f"{shard.name}: {error.strerror}") from None
        return read_picture(io.BytesIO(content), name=f"{shard.name}:{names[number]}").pixels

    return Pictures(where=where, names=names, read=read)


def _refuse_twins(where: str, names: Sequence[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise DataError(
            f"'{where}' has {len(twins)} names twice ({', '.join(twins[:_SHOWN])}); pictures are known by their names "
            "without suffix, so rename one"
        )
