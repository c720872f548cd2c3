"""Odd, damaged and hostile files: each opens with the right size or is refused in one line; nothing else may happen."""

import csv
import io
import random
import tarfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from restorer.errors import PictureError
from restorer.pipeline.picture import read_frames, read_picture, write_picture

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "odd-images.tar"
# (kind, what the newest Pillow did) -> what we may do
ALLOWED = {
    ("valid-odd", "opens"): {"opens"},
    ("valid-odd", "clear error"): {"opens", "refuses"},
    ("malformed", "opens"): {"opens", "refuses"},
    ("malformed", "clear error"): {"refuses"},
    ("bomb", "opens"): {"opens", "refuses"},
    ("bomb", "clear error"): {"opens", "refuses"},
}
# Pillow's remarks on damaged tags are the host's business; what else would warn must not
pillows_remarks_are_ignored = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    if not CORPUS.exists():
        pytest.skip("needs shared/data/odd-images.tar beside the project")
    folder = tmp_path_factory.mktemp("odd")
    with tarfile.open(CORPUS) as archive:
        archive.extractall(folder, filter="data")
    manifest = next(folder.rglob("MANIFEST.tsv"))
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(manifest.parent / row["file"], row) for row in rows]


@pillows_remarks_are_ignored
def test_every_odd_image_opens_with_its_size_or_is_refused_in_one_line(corpus):
    wrong = []
    for path, row in corpus:
        try:
            picture = read_picture(path)
        except PictureError as error:
            done = "refuses" if str(error).startswith(f"{path}: ") and "\n" not in str(error) else str(error)
        else:
            sizes = {picture.size, (int(row["height"]), int(row["width"])) if row["height"].isdigit() else picture.size}
            frames = {picture.source.frames, int(row["frames"]) if row["frames"].isdigit() else picture.source.frames}
            done = "opens" if len(sizes) == len(frames) == 1 else f"{picture.size}, {picture.source.frames} frames"
        if done not in ALLOWED[row["kind"], row["expected"]]:
            wrong.append((path.name, row["kind"], row["expected"], done))
    assert len(corpus) == 97
    assert wrong == []


@pillows_remarks_are_ignored
def test_every_frame_of_every_odd_image_opens_or_is_refused(corpus):
    for path, row in corpus:
        try:
            count = sum(1 for _ in read_frames(path))
        except PictureError:
            assert row["kind"] != "valid-odd" or row["expected"] == "clear error", path.name
        else:
            assert row["frames"] in ("-", str(count)), path.name


def bases():
    """Small good files, with something of everything: alpha, depth, frames, profile, EXIF, compression."""
    rng = np.random.default_rng(7)
    smooth = (np.add.outer(np.arange(24), np.arange(31))[:, :, None] * [3, 2, 4]).astype(np.uint8)
    deep = rng.integers(0, 65536, (12, 13, 3), dtype=np.uint16)
    image, exif = Image.fromarray(smooth), Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    exif.get_ifd(0x8769)[37500] = b"notes"
    beside = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    frames = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}

    def saved(picture, kind, **options):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    def tiff(array, **options):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb", metadata=None, **options)
        return buffer.getvalue()

    clear = image.copy()
    clear.putalpha(100)
    return {
        "PNG": [
            saved(clear, "PNG", dpi=(72, 72), **beside),
            imagecodecs.png_encode(deep),
            saved(image, "PNG", **frames),
        ],
        "JPEG": [saved(image, "JPEG", quality=90, **beside), saved(image.convert("CMYK"), "JPEG", progressive=True)],
        "WEBP": [saved(clear, "WEBP", **beside), saved(image, "WEBP", lossless=True, **frames)],
        "GIF": [saved(image, "GIF", **frames), saved(image.quantize(7), "GIF", transparency=1)],
        "BMP": [saved(image, "BMP"), saved(image.quantize(16), "BMP")],
        "TIFF": [
            tiff(deep, compression="lzw", predictor=True),
            tiff(deep.astype(np.float32), tile=(16, 16), bigtiff=True),
            saved(clear, "TIFF", compression="tiff_deflate", **beside),
            saved(image, "TIFF", **frames),
        ],
        "AVIF": [saved(clear, "AVIF", speed=10)],
    }


def damaged(data, rng, *, cuts, flips, splices):
    """Copies of a file: cut short, with flipped bits, with a stretch replaced by another of its own."""
    for _ in range(cuts):
        yield data[: rng.randrange(len(data))]
    for _ in range(flips):
        copy = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            # headers are short: half of the flips go there
            place = rng.randrange(min(len(data), 200)) if rng.random() < 0.5 else rng.randrange(len(data))
            copy[place] ^= 1 << rng.randrange(8)
        yield bytes(copy)
    for _ in range(splices):
        start, source, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 40)
        yield data[:start] + data[source : source + length] + data[start + rng.choice((0, length)) :]


def load_all(seeds, **counts):
    """Load every damaged copy; how many opened and how many were refused. Anything but PictureError comes through."""
    opened = refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        for files in bases().values():
            for copy in damaged(files[seed % len(files)], rng, **counts):
                try:
                    read_picture(copy, limit_pixels=1_000_000)
                    opened += 1
                    for _ in read_frames(copy, limit_pixels=1_000_000, limit_total=4_000_000):
                        pass
                except PictureError as error:
                    assert "\n" not in str(error)
                    refused += 1
    return opened, refused


@pillows_remarks_are_ignored
def test_damaged_copies_open_or_are_refused(capfd):
    opened, refused = load_all(range(12), cuts=40, flips=40, splices=20)
    capfd.readouterr()  # native libraries remark on damage themselves
    assert opened + refused >= 8400
    assert refused > 4000


@pytest.mark.slow
@pillows_remarks_are_ignored
def test_a_hundred_thousand_damaged_copies_open_or_are_refused(capfd):
    opened, refused = load_all(range(100, 200), cuts=50, flips=70, splices=30)
    capfd.readouterr()
    assert opened + refused >= 100_000


@pytest.mark.parametrize("kind", sorted(bases()))
def test_the_undamaged_originals_open(kind):
    for data in bases()[kind]:
        assert min(read_picture(data).size) >= 12
        assert len(list(read_frames(data))) == read_picture(data).source.frames


@pytest.mark.parametrize("kind", sorted(bases()))
def test_a_cut_file_is_refused_or_has_all_its_pixels(kind):
    refused = 0
    for data in bases()[kind]:
        want = read_picture(data).pixels
        for share in (0.3, 0.5, 0.7, 0.9):
            try:
                assert np.array_equal(read_picture(data[: int(len(data) * share)]).pixels, want)
            except PictureError:
                refused += 1
    assert refused >= len(bases()[kind])


@pillows_remarks_are_ignored
@pytest.mark.parametrize(("more", "notice"), [(-1, "the colour profile was dropped"), (4, "some metadata was dropped")])
def test_metadata_lost_with_the_end_of_a_file_is_not_lost_in_silence(more, notice):
    whole, buffer = read_picture(bases()["PNG"][0]), io.BytesIO()
    write_picture(whole, buffer, format="tiff")  # our own writer puts EXIF and then the profile at the very end
    picture = read_picture(buffer.getvalue()[: -len(whole.icc) - more])
    assert picture.icc is None
    assert np.array_equal(picture.pixels, whole.pixels)
    assert any(notice in said for said in picture.source.notices)
