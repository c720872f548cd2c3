"""TIFF in: its pages, with all that each says about itself."""

from io import BytesIO

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from restorer.errors import PictureError
from restorer.pipeline.codecs import exif as exif_block
from restorer.pipeline.codecs.colour import profile_for
from restorer.pipeline.codecs.header import check_pixels
from restorer.pipeline.codecs.ifd import Field, Header, entry_places, intact, integers, read_directory, read_tree
from restorer.pipeline.codecs.metadata import Metadata, finish_metadata
from restorer.pipeline.codecs.modes import Arrays, to_arrays, turned
from restorer.pipeline.codecs.tags import TELLING, Tag
from restorer.pipeline.codecs.tiff_deep import Layout, allocate, pointed, read_layout, read_samples
from restorer.pipeline.picture_types import Picture, SourceInfo

MOST_PAGES = 65535
SIGNED = 2
MODES = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA"}


def page_offsets(data: bytes, header: Header) -> list[int]:
    """Where each page's directory is, in order; stops at the first that cannot be read."""
    offsets: list[int] = []
    seen: set[int] = set()
    after = header.first
    while after and after not in seen and len(offsets) < MOST_PAGES:
        seen.add(after)
        offsets.append(after)
        try:
            _, after = entry_places(data, header, after)
        except ValueError:
            break
    return offsets


def page_size(data: bytes, header: Header, offset: int) -> tuple[int, int]:
    """(height, width) as a page's directory says, before it is turned upright."""
    fields = read_directory(data, header, offset)
    height, width = (integers(fields.get(tag), header.order) or (0,) for tag in (Tag.HEIGHT, Tag.WIDTH))
    return height[0], width[0]


def read_page(data: bytes, header: Header, offset: int, *, limit_pixels: int, frames: int) -> Picture:
    """Decode the page whose directory is at `offset`."""
    fields = read_directory(data, header, offset)
    size = page_size(data, header, offset)
    check_pixels(size, limit_pixels)
    beside = _metadata(data, header, offset, fields)
    layout = read_layout(fields, header, size)
    if layout is None:
        mode, arrays = _shallow(pointed(data, header, offset), header, fields, size)
    else:
        mode, arrays = _deep(data, header, fields, layout, beside.orientation)
    bits = integers(fields.get(Tag.BITS), header.order) or (1,)
    notices = arrays.notices + beside.notices
    source = SourceInfo(format="TIFF", mode=mode, bits=max(bits), frames=frames, notices=notices)
    return Picture(
        pixels=arrays.pixels, alpha=arrays.alpha, icc=arrays.icc, dpi=beside.dpi, meta=beside.meta, source=source
    )


def _metadata(data: bytes, header: Header, offset: int, fields: dict[int, Field]) -> Metadata:
    """Density, EXIF and XMP from the directory itself."""
    xmp = bytes(fields[Tag.XMP].value) if Tag.XMP in fields else b""
    tree = read_tree(data, header, offset)
    exif = exif_block.from_tiff(tree, header.order)
    dpi = exif_block.density_in(dict(fields), header.order)
    stored = integers(fields.get(Tag.ORIENTATION), header.order) or (0,)
    orientation = stored[0] if 1 <= stored[0] <= 8 else None
    found = finish_metadata({}, exif, xmp, dpi, orientation=orientation)
    told = {tag: field for tag, field in tree.items() if tag in TELLING or tag == Tag.XMP}
    if intact(told) != told:
        found = found._replace(notices=(*found.notices, "some metadata was dropped: the file is damaged"))
    return found


def _deep(
    data: bytes, header: Header, fields: dict[int, Field], layout: Layout, orientation: int
) -> tuple[str, Arrays]:
    pixels, alpha = read_samples(data, header, fields, layout)
    icc, notice = profile_for(bytes(fields[Tag.ICC].value) if Tag.ICC in fields else None, layout.colours)
    pixels = turned(pixels, orientation)
    alpha = None if alpha is None else turned(alpha, orientation)
    notices = [notice] if notice else []
    if "i2" in layout.number:
        notices.append("signed 16-bit samples were moved up by 32768")
    return MODES[layout.colours, alpha is not None], Arrays(pixels, alpha, icc, tuple(notices))


def _shallow(data: bytes, header: Header, fields: dict[int, Field], size: tuple[int, int]) -> tuple[str, Arrays]:
    """Up to 8 bits, 12-bit grey, CMYK, Lab, palettes: Pillow's own decoding, which also turns it upright."""
    bits = max(integers(fields.get(Tag.BITS), header.order) or (1,))
    image = TiffImageFile(BytesIO(data))
    if bits > 8 and image.mode in ("RGB", "RGBA"):
        raise PictureError(f"has {bits} bits per sample in a layout that is not read; convert it to 16-bit PNG")
    allocate(image, (size[1], size[0]))
    mode = image.mode
    image.load()
    if Tag.ICC in fields:
        image.info["icc_profile"] = bytes(fields[Tag.ICC].value) or None
    arrays = to_arrays(image, bits=bits)
    if mode == "CMYK" and bits > 8:
        arrays = arrays._replace(notices=(*arrays.notices, f"{bits}-bit CMYK was read with 8 bits"))
    if mode.startswith("I;16") and bits == 12:
        arrays = arrays._replace(pixels=arrays.pixels << 4 | arrays.pixels >> 8)
    if mode == "L" and SIGNED in integers(fields.get(Tag.SAMPLE_FORMAT), header.order):
        arrays = arrays._replace(pixels=arrays.pixels ^ np.uint8(128))
    return mode, arrays
