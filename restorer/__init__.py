"""restorer: make pictures better with networks that were trained in pairs. Names load on first use; torch with them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorer.api import FaceResult, Faces, Restorer, Translator, enhance, restore_faces, translate
    from restorer.errors import RestorerError
    from restorer.pipeline.picture import Picture, read_frames, read_picture, write_picture
    from restorer.pipeline.settings import FaceSettings, TranslateSettings, UpscaleSettings

_HOMES = {
    "FaceResult": "restorer.api",
    "FaceSettings": "restorer.pipeline.settings",
    "Faces": "restorer.api",
    "Picture": "restorer.pipeline.picture",
    "Restorer": "restorer.api",
    "RestorerError": "restorer.errors",
    "TranslateSettings": "restorer.pipeline.settings",
    "Translator": "restorer.api",
    "UpscaleSettings": "restorer.pipeline.settings",
    "enhance": "restorer.api",
    "read_frames": "restorer.pipeline.picture",
    "read_picture": "restorer.pipeline.picture",
    "restore_faces": "restorer.api",
    "translate": "restorer.api",
    "write_picture": "restorer.pipeline.picture",
}

__all__ = [
    "FaceResult",
    "FaceSettings",
    "Faces",
    "Picture",
    "Restorer",
    "RestorerError",
    "TranslateSettings",
    "Translator",
    "UpscaleSettings",
    "enhance",
    "read_frames",
    "read_picture",
    "restore_faces",
    "translate",
    "write_picture",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'restorer' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
