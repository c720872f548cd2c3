"""Option files of BasicSR and Real-ESRGAN (.yml) -> a recipe, and every key of theirs that it does not follow."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from restorer.errors import MissingPackageError, UsageError, unknown_name
from restorer.training.option_keys import Read, Settings, network_readers, readers
from restorer.training.recipe import NONE, flattened
from restorer.training.recipes import RECIPES, changed

BASES = {
    "SRModel": "esrgan_psnr_x4",
    "SRGANModel": "esrgan_x4",
    "ESRGANModel": "esrgan_x4",
    "RealESRNetModel": "realesrnet_x4",
    "RealESRGANModel": "realesrgan_x4",
}
"""Kind of model -> the recipe whose other numbers hold."""
_UNSAID: Settings = {
    "weights.pixel": 0.0,
    "weights.perceptual": 0.0,
    "weights.style": 0.0,
    "weights.adversarial": 0.0,
    "averaging.decay": 0.0,
    "schedule.kind": "constant",
    "schedule.factor": 0.1,
    "schedule.floor": 0.0,
    "train.betas": [0.9, 0.999],
}
"""What an option file means that does not speak of it: BasicSR's own defaults."""
_GROUPS = {"pixel_opt": "weights.pixel", "perceptual_opt": "weights.perceptual", "gan_opt": "weights.adversarial"}
"""Losses that weigh 1 where they are there and their weight is not."""
_LEFT = (
    (r"val\..*|datasets\.val.*", "scores are taken by `restorer evaluate`, not during a run"),
    (r"dist_params\..*", "processes are started by --processes"),
    (r"logger\.wandb\..*", "a run is logged to its own folder and to TensorBoard"),
)
"""Keys that are not followed, and why; told once for all of them."""
_OF_D = r"network_d\..*|train\.(gan_opt|optim_d)\..*|train\.net_d_.*|path\..*_d"
"""What is said of a discriminator."""


def read_options(path: Path) -> dict[str, Any]:
    """The option file as nested tables. It is read as plain data."""
    try:
        import yaml
    except ImportError:
        raise MissingPackageError('option files need extra packages: pip install "restorer[train]"') from None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        flattened(data if isinstance(data, dict) else {})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, IndexError, RecursionError) as error:
        raise UsageError(f"{path}: is no YAML: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(data, dict) or "network_g" not in data:
        raise UsageError(f"{path}: is no option file for training: it has no network_g")
    return data


def recipe_of(options: Mapping[str, Any]) -> tuple[str, Settings, list[str]]:
    """-> (a recipe's name, what is changed in it, a line for each key that is not followed).

    UsageError where what the file asks for cannot be trained here at all, or is not of the kind that its key takes.
    """
    model = str(options.get("model_type"))
    if model not in BASES:
        raise unknown_name("model_type", model, BASES)
    base = RECIPES[BASES[model]]()
    _check_tables(options, has_discriminator=base.discriminator is not None)
    known = {**readers(options), **network_readers(options)}
    left = _LEFT if base.discriminator is not None else (*_LEFT, (_OF_D, f"{model} has no discriminator"))
    leaves = [(key, value) for key, value in _leaves(options) if value is not None]
    lines = [f"{', '.join(keys)}: {why}" for pattern, why in left if (keys := _matching(leaves, pattern))]
    said: Settings = {"adversary.relativistic": model == "ESRGANModel"}
    for key, value in leaves:
        if any(re.fullmatch(pattern, key) for pattern, _ in left):
            continue
        answer = _read_as(known.get(key), key, value)
        if isinstance(answer, str):
            lines.append(f"{key}: {answer}")
            continue
        clash = [name for name, new in answer.items() if said.get(name, new) != new]
        lines += [f"{key}: {name} is one number here, {said[name]} was taken" for name in clash]
        said |= {name: new for name, new in answer.items() if name not in clash}
    train = options["train"]
    there = {name: 1.0 for group, name in _GROUPS.items() if train.get(group)}
    if base.discriminator is None:
        there.pop("weights.adversarial", None)
    settings = {**_UNSAID, **there, **said}
    lines += _corrected(settings, options, degrades=base.degradation is not None)
    changed(base, settings)
    return base.name, settings, lines


def as_toml(base: str, settings: Settings, lines: Iterable[str]) -> str:
    """A recipe file; what is not followed stands in it as comments."""
    said = "".join(f"# not followed: {' '.join(line.split())}\n" for line in lines)
    values = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items())
    text = f'{said}recipe = "{base}"\n{values}'.replace("\x7f", "\\u007f")
    try:
        tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"a value of the option file cannot be written as TOML: {error}") from None
    return text


def _check_tables(options: Mapping[str, Any], *, has_discriminator: bool) -> None:
    """Groups are tables, and what a run cannot do without is there."""
    train, datasets = options.get("train"), options.get("datasets") or {}
    groups = {"train": train, "network_g": options.get("network_g"), "datasets": datasets}
    if has_discriminator:
        groups["network_d"] = options.get("network_d")
    if isinstance(datasets, dict):
        groups["datasets.train"] = datasets.get("train") or {}
    if isinstance(train, dict):
        names = (*_GROUPS, "scheduler", "optim_g", "optim_d")
        groups |= {f"train.{name}": train.get(name) or {} for name in names}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise UsageError(f"{name}: must be a table of settings, got {group!r}")


def _corrected(settings: Settings, options: Mapping[str, Any], *, degrades: bool) -> list[str]:
    """What depends on several keys; -> lines about it."""
    lines = []
    if settings.get("adversary.loss") == "least_squares":
        settings["weights.adversarial"] = 2 * float(str(settings["weights.adversarial"]))  # theirs is not halved
    if not degrades or settings.get("degradation") == NONE:
        unused = [name for name in settings if name.startswith("degradation.")]
        lines += [f"{name}: nothing is degraded in this run" for name in unused]
        for name in unused:
            del settings[name]
        if not degrades:
            settings.pop("degradation", None)
    if settings.get("start") and "param_key_g" not in (options.get("path") or {}):
        lines.append("path.param_key_g: is not named, and params_ema is read where the file has it")
    if settings.get("cadence.warm_steps"):
        lines.append("train.net_d_init_iters: is followed, but the generator's schedule begins when it begins to learn")
    return lines


def _matching(leaves: Iterable[tuple[str, Any]], pattern: str) -> list[str]:
    return [key for key, _ in leaves if re.fullmatch(pattern, key)]


def _read_as(read: Read | None, key: str, value: Any) -> Settings | str:
    if read is None:
        return "is not known here"
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, AttributeError):
        raise UsageError(f"{key}: does not take {value!r}") from None


def _leaves(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Dotted names and values; the weights of layers stay together."""
    layers = "train.perceptual_opt.layer_weights"
    flat = [(key, value) for key, value in flattened(options).items() if not key.startswith(layers)]
    weights = (options["train"].get("perceptual_opt") or {}).get("layer_weights")
    return [*flat, (layers, weights)] if weights is not None else flat
