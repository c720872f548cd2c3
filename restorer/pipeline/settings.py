"""What a user may ask of a run: the one list of options that command line, Python and journal share. Torch-free."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from restorer.errors import UsageError, unknown_name

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")
ENGINE_KINDS = ("auto", "eager", "compiled", "onnx", "openvino")
NO_MODEL = "none"
DIRECTIONS = ("a2b", "b2a")
FACE_WORDS = ("all", "largest", "centre")
SMALLEST_TILE = 32
LONGEST_SIDE = 2**31 - 1
REAL = ("scale", "megapixels", "strength", "denoise")
"""Settings of which 2 and 2.0 are the same."""


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings:
    """How one picture is upscaled. Everything here can change the pixels, and so is in the journal's hash, as asked."""

    model: str = "realesrgan-x4plus"
    """A name of `restorer models list`, or the path of a weights file."""
    scale: float | None = None
    """Output side over input side; None takes the network's own."""
    width: int | None = None
    """Output width in pixels; alone, the height follows the picture's shape."""
    height: int | None = None
    long_side: int | None = None
    """The longer output side in pixels."""
    megapixels: float | None = None
    """Output area in millions of pixels."""
    tile: int | None = None
    """Side of a tile's core in input pixels; 0 is the whole picture at once, None chooses by network and memory."""
    precision: str = "auto"
    """One of PRECISIONS: auto is decided by device and network."""
    engine: str = "auto"
    """One of ENGINE_KINDS."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; cuda:all, or several with commas between, share each picture.

    The onnx engine knows tensorrt and directml too.
    """
    strength: float = 1.0
    """1 is all network, 0 a plain resample of the input."""
    denoise: float | None = None
    """0 keeps the noise, 1 removes it; for models that come as a pair."""
    keep_colour: bool = False
    """Hold the low frequencies of the input's colour."""
    wrap: bool = False
    """Treat the picture as a seamless texture: opposite borders touch."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the weights cannot say about themselves, such as activation=relu."""
    max_megapixels_in: float = 100.0
    """Larger inputs are refused."""
    max_megapixels_out: float = 1000.0
    """Larger outputs are refused."""

    def __post_init__(self) -> None:
        _one_size_rule(self)
        for name in ("scale", "width", "height", "long_side", "megapixels", "max_megapixels_in", "max_megapixels_out"):
            _positive(name, getattr(self, name))
        _unit("strength", self.strength)
        _unit("denoise", self.denoise)
        if self.tile is not None and self.tile != 0 and self.tile < SMALLEST_TILE:
            raise UsageError(f"tile must be 0 (the whole picture) or at least {SMALLEST_TILE}, got {self.tile}")
        _choice("precision", self.precision, PRECISIONS)
        _choice("engine", self.engine, ENGINE_KINDS)

    def output_size(self, size: tuple[int, int], network_scale: int) -> tuple[int, int]:
        """(height, width) of the input -> (height, width) of the output, exact to the pixel.

        >>> UpscaleSettings(long_side=1000).output_size((200, 400), 4)
        (500, 1000)
        """
        height, width = size
        if self.width is not None and self.height is not None:
            wanted = (self.height, self.width)
        else:
            ratio = self._ratio(height, width, network_scale)
            wanted = (max(1, _whole(height * ratio)), max(1, _whole(width * ratio)))
            if self.width is not None:
                wanted = (wanted[0], self.width)
            if self.height is not None:
                wanted = (self.height, wanted[1])
        self._check_area(wanted)
        return wanted

    def _ratio(self, height: int, width: int, network_scale: int) -> float:
        if self.width is not None:
            return self.width / width
        if self.height is not None:
            return self.height / height
        if self.long_side is not None:
            return self.long_side / max(height, width)
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 1e6 / (height * width))
        return self.scale if self.scale is not None else float(network_scale)

    def _check_area(self, wanted: tuple[int, int]) -> None:
        megapixels = wanted[0] * wanted[1] / 1e6
        if megapixels > self.max_megapixels_out:
            raise UsageError(
                f"the output would be {wanted[1]}x{wanted[0]} ({megapixels:.0f} megapixels), the limit is "
                f"{self.max_megapixels_out:g}; ask for less, or raise it with --max-megapixels-out"
            )

    def digest(self) -> str:
        """Name these settings: equal settings, equal name; the limits do not count."""
        counted = {k: v for k, v in asdict(self).items() if not k.startswith("max_megapixels")}
        counted = {k: float(v) if type(v) is int and k in REAL else v for k, v in counted.items()}
        return hashlib.sha256(json.dumps(counted, sort_keys=True, default=dict).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FaceSettings:
    """How the faces of one picture are restored, and what is done to the rest of it."""

    model: str = "gfpgan-1.4"
    """A network for faces, or one that enlarges: a name of `restorer models list`, or a weights file."""
    background: UpscaleSettings = field(default_factory=lambda: UpscaleSettings(scale=2))
    """Of everything around the faces; its model may be NO_MODEL, which resamples plainly."""
    detector: str = "auto"
    """A name of DETECTORS, a weights file, or auto: the best whose weights are at hand."""
    parser: str = "auto"
    """What finds skin and hair in a face: a name or file of such weights, auto, or NO_MODEL for a rounded mask."""
    identity: str = ""
    """Weights of a network that says how like two faces are; "" for none."""
    only: str = "all"
    """all, largest, centre, or numbers of faces such as 1,3; 1 is the largest."""
    min_face: float = 16.0
    """Smaller faces, in pixels of the picture, are left as they are."""
    max_face: float | None = None
    confidence: float | None = None
    """The least score of what counts as a face; None takes the detector's own."""
    strength: float = 1.0
    """1 is the restored face, 0 the background."""
    strengths: Mapping[int, float] = field(default_factory=dict)
    """The same for single faces, by number."""
    match_colour: bool = True
    """Give restored faces the low frequencies of the colour that they had."""
    aligned: bool = False
    """Pictures are faces already, cut to the template: nothing is looked for, and faces come out."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the weights of face model and detector cannot say about themselves, such as resampling=fir or form=small."""

    def __post_init__(self) -> None:
        _unit("strength", self.strength)
        _unit("confidence", self.confidence)
        _positive("max_face", self.max_face)
        wanted_faces(self.only)
        if not 0 <= self.min_face <= LONGEST_SIDE:
            raise UsageError(f"min_face must be a number from 0, got {self.min_face}; the most is {LONGEST_SIDE}")
        if self.max_face is not None and self.max_face < self.min_face:
            raise UsageError(f"max_face is {self.max_face:g} and min_face {self.min_face:g}: that leaves no face")
        for number, strength in self.strengths.items():
            if number < 1:
                raise UsageError(f"faces are numbered from 1, got {number}")
            _unit(f"strength of face {number}", strength)

    @property
    def max_megapixels_in(self) -> float:
        """Larger inputs are refused."""
        return self.background.max_megapixels_in

    def digest(self) -> str:
        """Name these settings: equal settings, equal name."""
        counted = {**asdict(self), "background": self.background.digest()}
        return hashlib.sha256(json.dumps(counted, sort_keys=True, default=dict).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TranslateSettings:
    """How one picture is translated; its size stays. Everything here can change the pixels."""

    model: str
    """A name of `restorer models list`, or the path of a weights file."""
    direction: str = "a2b"
    """One of DIRECTIONS: b2a takes the model's opposite, or, of pairs, the right half as the input."""
    pair: bool = False
    """Pictures are two side by side, a left and b right: one half is the input, and its translation comes out."""
    palette: str = ""
    """A file of the colours that label maps may hold; grey ones are then numbers of colours. "" for other pictures."""
    noise: int | None = None
    """Seed of the noise that networks trained with dropout can make; None makes none."""
    tile: int | None = None
    """0 is the whole picture at once; a number is the height of bands, or the side of tiles where a network has them.

    None chooses by network and memory.
    """
    precision: str = "auto"
    engine: str = "auto"
    device: str = "auto"
    strength: float = 1.0
    """1 is all network, 0 the input."""
    keep_colour: bool = False
    """Hold the low frequencies of the input's colour."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the weights cannot say about themselves, such as channels=bgr."""
    max_megapixels_in: float = 100.0
    """Larger inputs are refused."""

    def __post_init__(self) -> None:
        _choice("direction", self.direction, DIRECTIONS)
        if self.noise is not None and not 0 <= self.noise < 2**31:
            raise UsageError(f"noise must be a whole number from 0 to {2**31 - 1}, got {self.noise}")
        _ = self.finishing  # refuses what it has in common with these; an assert would not, under -O

    @property
    def finishing(self) -> UpscaleSettings:
        """What holds for the way of a picture's rows, whatever the command."""
        return UpscaleSettings(
            model=self.model,
            scale=1,
            tile=self.tile,
            precision=self.precision,
            engine=self.engine,
            device=self.device,
            strength=self.strength,
            keep_colour=self.keep_colour,
            facts=self.facts,
            max_megapixels_in=self.max_megapixels_in,
            max_megapixels_out=self.max_megapixels_in,
        )

    def digest(self) -> str:
        """Name these settings: equal settings, equal name; the limit does not count."""
        counted = {k: v for k, v in asdict(self).items() if k != "max_megapixels_in"}
        counted["strength"] = float(self.strength)
        return hashlib.sha256(json.dumps(counted, sort_keys=True, default=dict).encode()).hexdigest()


def wanted_faces(text: str) -> str | tuple[int, ...]:
    """What `--only` takes -> one of FACE_WORDS, or the numbers of faces.

    >>> wanted_faces("largest"), wanted_faces("1,3")
    ('largest', (1, 3))
    """
    if text in FACE_WORDS:
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) <= 6 and int(part) for part in parts):
        raise UsageError(f"only takes {', '.join(FACE_WORDS)} or numbers of faces such as 1,3; got '{text}'")
    return tuple(int(part) for part in parts)


def _one_size_rule(settings: UpscaleSettings) -> None:
    asked = [name for name in ("scale", "long_side", "megapixels") if getattr(settings, name) is not None]
    if settings.width is not None or settings.height is not None:
        asked.append("width/height")
    if len(asked) > 1:
        raise UsageError(
            f"only one of scale, width/height, long_side and megapixels can hold; got {' and '.join(asked)}"
        )


def _positive(name: str, value: float | None) -> None:
    if value is not None and not (0 < value <= LONGEST_SIDE):
        raise UsageError(f"{name} must be a positive number, got {value}; the most is {LONGEST_SIDE}")


def _unit(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"{name} must be between 0 and 1, got {value:g}")


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(str(unknown_name(name, value, known)))


def _whole(value: float) -> int:
    return math.floor(value + 0.5)
