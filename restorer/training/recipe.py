"""What a training run is: a recipe, frozen; and the one way to change it by name, which checks everything."""

import difflib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from restorer.errors import UsageError, unknown_name
from restorer.networks.discriminators import DISCRIMINATORS, DiscriminatorConfig
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.feature_losses import FeatureConfig
from restorer.training.games import WEIGHTS, Weights
from restorer.training.objective import Order
from restorer.training.pairing import DEGRADATIONS, Degradation
from restorer.training.schedule import Cadence, Schedule
from restorer.training.sources import DATA, Data
from restorer.training.super_resolution import RestorationWeights


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and how often."""

    steps: int = 400_000
    batch: int = 16
    """Pictures of a turn, over all processes and parts."""
    accumulate: int = 1
    """Parts that a turn's batch is cut into; their gradients are added up. Relativistic means are over one part."""
    order: Order = "gd"
    """Who learns first in a step."""
    g_rate: float = 1e-4
    d_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    """Of Adam, for both."""
    clip: float = 0.0
    """Longest gradient of a player; 0 for any."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device multiplies it fast. Weights and optimisers are always fp32."""
    seed: int = 0
    log_every: int = 100
    picture_every: int = 5_000
    """Steps between grids of pictures; also the first and the last."""
    save_every: int = 5_000
    keep: int = 3
    """Checkpoints that are kept; older ones are removed."""
    on_trouble: Literal["stop", "warn"] = "stop"
    """What to do when the game goes wrong: collapse, a runaway discriminator, vanishing or non-finite gradients."""

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "accumulate", "log_every", "picture_every", "save_every", "keep")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch % self.accumulate:
            raise ValueError(f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        if self.g_rate < 0 or self.d_rate < 0 or self.clip < 0:
            raise ValueError("g_rate, d_rate and clip must not be negative")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run: a network, what it should want, from what pictures, how."""

    name: str
    network: str
    """A name of NETWORKS; setting it also sets `config` to that network's usual numbers."""
    config: Any
    """Of the network."""
    start: str = ""
    """Weights that the generator starts from: a model's name or a file, such as a checkpoint of another run. Of two
    generators a file of one starts the first, a2b."""
    discriminator: DiscriminatorConfig | None = None
    discriminator_start: str = ""
    """Weights that the discriminator starts from."""
    weights: Weights = field(default_factory=RestorationWeights)
    """The kind of game, and how much each wish of the generator counts."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    cadence: Cadence = field(default_factory=Cadence)
    schedule: Schedule = field(default_factory=Schedule)
    data: Data = field(default_factory=DataConfig)
    degradation: Degradation | None = None
    """What the truth is put through to become small; none shrinks it bicubically."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.discriminator is None and self.weights.adversarial:
            raise ValueError("weights.adversarial needs a discriminator, and this recipe has none")
        if self.discriminator is None and self.cadence.warm_steps:
            raise ValueError("cadence.warm_steps is for a discriminator, and this recipe has none")
        if self.weights.is_idle:
            raise ValueError("all of weights.* are zero: the generator would learn nothing")
        side = getattr(self.discriminator, "side", self.data.crop)
        if side != self.data.crop:
            raise ValueError(f"this discriminator takes pictures of side {side}, data.crop is {self.data.crop}")
        if self.degradation is not None and isinstance(self.data, DataConfig) and self.data.low:
            raise ValueError("data.low are small pictures, so nothing is left to degrade; choose a recipe without")


def override(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """Change a recipe by dotted names, such as {"train.steps": "1000"}; values are texts, or what JSON and TOML give.

    >>> override(Recipe(name="r", network="srgan", config=None), {"train.steps": "7"}).train.steps
    7
    """
    tree: dict[str, Any] = {}
    for path, value in settings.items():
        *groups, name = path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
            if not isinstance(branch, dict):
                raise UsageError(f"'{path}' and '{group}' cannot both be set: one is a group of the other")
        if isinstance(branch.get(name), dict):
            raise UsageError(f"'{path}' and what is in it cannot both be set")
        branch[name] = value
    return _changed(recipe, tree, "")


def as_data(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain values; `get_recipe` reads a file of them back."""
    return json.loads(json.dumps(asdict(recipe)))


def flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested tables -> dotted names.

    >>> flattened({"train": {"steps": 1}, "start": ""})
    {'train.steps': 1, 'start': ''}
    """
    flat: dict[str, object] = {}
    for key, value in data.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


CHOICES: Mapping[str, Mapping[str, type[Any]]] = {
    "discriminator": DISCRIMINATORS,
    "degradation": DEGRADATIONS,
    "weights": WEIGHTS,
    "data": DATA,
}
"""Groups of several kinds: `discriminator.kind=unet` brings that kind's usual numbers, `discriminator=none` none."""
NONE = "none"
OPTIONAL = ("discriminator", "degradation")
"""Those that may be none."""


def _changed(group: Any, tree: Mapping[str, Any], prefix: str) -> Any:
    """All settings of a group at once, so that those which belong together need no order."""
    known, kind = [each.name for each in fields(group)], type(group).__name__
    new: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"no setting in {kind} named '{name}'; {cure}")
        old, is_group = getattr(group, name), isinstance(value, dict)
        has_kinds = not prefix and name in CHOICES
        if has_kinds:
            if name in OPTIONAL and (value in (None, NONE) or (is_group and value.get("kind") == NONE)):
                new[name] = None
                continue
            old = _of_kind(old, value, name)
        if is_group and not is_dataclass(old):
            cure = f"; choose {path}.kind too: {', '.join(CHOICES[name])}" if has_kinds else ""
            raise UsageError(
                f"'{path}.{next(iter(value))}' does not exist: {name} of {kind} is no group of settings here{cure}"
            )
        if not is_group and is_dataclass(old):
            raise UsageError(f"'{path}' is a group of settings; name one, e.g. {path}.{fields(old)[0].name}=...")
        if is_group:
            new[name] = _changed(old, value, f"{path}.")
        else:
            new[name] = _fitted(value, get_type_hints(type(group))[name], path)
    try:
        return replace(group, **new)
    except ValueError as error:
        place = f"{prefix}{next(iter(new))}" if len(new) == 1 else prefix.rstrip(".")
        raise UsageError(f"{place}: {error}" if prefix else str(error)) from None


def _of_kind(old: Any, tree: Any, name: str) -> Any:
    """The group that is changed: a new one where the tree names another kind."""
    kind = tree.get("kind") if isinstance(tree, dict) else tree
    if kind is None or (old is not None and kind == old.kind):
        return old
    if not isinstance(kind, str) or kind not in CHOICES[name]:
        raise unknown_name(f"kind of {name}", str(kind), [*CHOICES[name], *([NONE] if name in OPTIONAL else [])])
    return CHOICES[name][kind]()


def _fitted(value: object, kind: Any, path: str) -> Any:
    """A value of this type, from itself or from text; anything else is refused with an example."""
    if isinstance(value, str) and kind is not str and get_origin(kind) is not Literal:
        try:
            value = json.loads(value)
        except ValueError:
            raise _misfit(path, kind, value) from None
    fitted = _fit(value, kind)
    if fitted is _NO:
        raise _misfit(path, kind, value)
    return fitted


class _NO:
    """Stands for a value that does not fit."""


def _fit(value: object, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return next((found for each in inner if (found := _fit(value, each)) is not _NO), _NO)
    if origin is Literal:
        return value if value in inner else _NO
    if origin is tuple:
        return _fit_tuple(value, inner)
    if kind is float:
        return _fit_float(value)
    if kind is Any or kind is type(None):
        return value if kind is Any or value is None else _NO
    return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else _NO


def _fit_float(value: object) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _NO
    try:
        return float(value) if math.isfinite(value) else _NO
    except OverflowError:
        return _NO


def _fit_tuple(value: object, inner: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return _NO
    kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is ... else list(inner)
    if len(kinds) != len(value):
        return _NO
    fitted = tuple(_fit(each, kind) for each, kind in zip(value, kinds, strict=True))
    return _NO if _NO in fitted else fitted


_EXAMPLES = {int: "200000", float: "0.0001", bool: "true", str: "text"}


def _misfit(path: str, kind: Any, value: object) -> UsageError:
    if get_origin(kind) is Literal:
        return UsageError(f"{path} takes {' or '.join(map(str, get_args(kind)))}; got '{value}'")
    name = getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
    return UsageError(f"{path} takes {name}, e.g. {_EXAMPLES.get(kind, '[1, 2]')}; got '{value}'")
