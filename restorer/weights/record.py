"""What is written down about a checkpoint, and about a package that brings the same weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from restorer.networks import NETWORKS

_FOREIGN = {"restoreformer": "face", "yunet": "detect"}
"""Networks that other packages run, and that NETWORKS does not have -> their task."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A data package from the package index that holds the same weights in ncnn form."""

    distribution: str
    """What pip calls it."""
    module: str
    """Its folder among the installed packages; it is located, never imported."""
    file: str
    """The .param inside that folder; the .bin of the same stem lies beside it."""
    sha256: str
    """Of the .bin."""
    extra: str = "weights"
    """The extra of restorer that installs it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One published checkpoint. What is not known is None, never guessed."""

    name: str
    """Kebab-case: family, variant, scale."""
    network: str
    """The name in NETWORKS; for the list only, the weights themselves say which network they are."""
    scale: int
    """Output side over input side."""
    file: str
    """The file name under which it was published; one of its own where others were published under the same."""
    url: str | None = None
    """Where exactly these bytes can be had without a browser."""
    sha256: str | None = None
    """Of the published file, in full; without it a download needs --trust-first-use."""
    sha256_prefix: str = ""
    """The start of the SHA-256 where no more was published: checked, but too short to be trusted alone."""
    size: int | None = None
    """Of the published file, in bytes."""
    licence: str
    """SPDX name of the licence its authors gave it, with a remark where that needs one."""
    source: str
    """The page to read: who made it, how, and where it is found when `url` is None."""
    summary: str
    """What it is good for, in one line."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What the keys of the weights cannot say, for `load_weights`."""
    aliases: tuple[str, ...] = ()
    """Other names the field uses; upper and lower case are the same."""
    provider: Provider | None = None
    """A package that brings the same weights."""
    partner: str | None = None
    """The record at the other end of --denoise: same network, other training."""
    denoise: float | None = None
    """Where partnered weights stand between 0 (leave the noise) and 1 (remove it) when they are used alone."""
    opposite: str | None = None
    """The record that translates the other way, between the same two kinds of picture."""
    is_own: bool = False
    """Trained by this project's recipe, and part of the package."""
    quicker: tuple[str, int] | None = None
    """A lighter model for the same pictures, and how many times fewer multiplications it needs."""

    @property
    def task(self) -> str:
        """What its network does, a Task of networks/spec.py; "" where only training and metrics ask for it."""
        return _FOREIGN.get(self.network) or NETWORKS.get(self.network, "").partition(":")[0]

    def __post_init__(self) -> None:
        if PurePath(self.file).name != self.file:
            raise ValueError(f"file of '{self.name}' must be a bare file name, got '{self.file}'")
        if self.sha256 is not None and len(self.sha256) != 64:
            raise ValueError(f"sha256 of '{self.name}' must have 64 digits, got {len(self.sha256)}")
