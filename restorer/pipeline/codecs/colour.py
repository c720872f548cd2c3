"""Colour profiles: which are kept, and how CMYK and Lab become sRGB."""

import functools
from io import BytesIO

from PIL import Image, ImageCms

LIMIT = 4 << 20
SPACES = {1: b"GRAY", 3: b"RGB "}


def profile_for(icc: bytes | None, channels: int) -> tuple[bytes | None, str]:
    """Keep a profile that describes pixels of this many channels; else None and a sentence that says why."""
    if icc is None:
        return None, ""
    if len(icc) > LIMIT:
        return None, f"the colour profile was dropped: it is over {LIMIT >> 20} MiB"
    if len(icc) < 128 or icc[36:40] != b"acsp":
        return None, "the colour profile was dropped: it is damaged"
    if icc[16:20] != SPACES[channels]:
        space = icc[16:20].decode("ascii", "replace").strip()
        pixels = "grey" if channels == 1 else "RGB"
        return None, f"the colour profile was dropped: it describes {space}, the pixels are {pixels}"
    return icc, ""


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile whose bytes are always the same: without the time of day at which it was made."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    when = b"".join(part.to_bytes(2, "big") for part in (2000, 1, 1, 0, 0, 0))
    return made[:24] + when + made[36:]


def cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None, str]:
    """CMYK -> RGB through the picture's own profile where that is valid; then the sRGB profile comes with it."""
    plain = "CMYK without a usable colour profile: converted by the plain formula"
    if icc is None or icc[16:20] != b"CMYK" or len(icc) > LIMIT:
        return image.convert("RGB"), None, plain
    try:
        turned = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB"), None, plain
    assert turned is not None  # only an in-place conversion gives nothing
    return turned, srgb_profile(), ""


def lab_to_srgb(image: Image.Image) -> tuple[Image.Image, bytes]:
    """Lab (D50) -> RGB and the sRGB profile."""
    turned = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert turned is not None
    return turned, srgb_profile()
