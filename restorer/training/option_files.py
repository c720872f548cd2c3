"""Option files of BasicSR and Real-ESRGAN (.yml) -> a recipe, and every key of theirs that it does not follow."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from restorer.errors import MissingPackageError, UsageError, unknown_name
from restorer.training.recipe import NONE, flattened
from restorer.training.recipes import RECIPES, changed

Settings = dict[str, object]
Read = Callable[[Any], Settings | str]
"""A value of an option file -> settings of a recipe, or why it is not followed."""

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
}
"""What an option file means that does not speak of it."""
_NETWORKS: Mapping[str, tuple[Settings, Mapping[str, str]]] = {
    "MSRResNet": (
        {"network": "srgan", "config.form": "plain"},
        {"num_in_ch": "channels", "num_feat": "features", "num_block": "blocks", "upscale": "scale"},
    ),
    "RRDBNet": (
        {"network": "esrgan"},
        {
            "num_in_ch": "in_channels",
            "num_out_ch": "out_channels",
            "num_feat": "features",
            "num_block": "blocks",
            "num_grow_ch": "grow",
            "scale": "scale",
        },
    ),
    "SRVGGNetCompact": (
        {"network": "compact"},
        {
            "num_in_ch": "channels",
            "num_feat": "features",
            "num_conv": "convs",
            "upscale": "scale",
            "act_type": "activation",
        },
    ),
}
_DISCRIMINATORS: Mapping[str, tuple[Settings, Mapping[str, str]]] = {
    "VGGStyleDiscriminator": (
        {"discriminator.kind": "vgg"},
        {"num_in_ch": "channels", "num_feat": "features", "input_size": "side"},
    ),
    "VGGStyleDiscriminator128": (
        {"discriminator.kind": "vgg"},
        {"num_in_ch": "channels", "num_feat": "features"},
    ),
    "UNetDiscriminatorSN": (
        {"discriminator.kind": "unet"},
        {"num_in_ch": "channels", "num_feat": "features", "skip_connection": "skip"},
    ),
}
_GAMES = {
    "vanilla": "non_saturating",
    "wgan_softplus": "non_saturating",
    "lsgan": "least_squares",
    "wgan": "wasserstein",
    "hinge": "hinge",
}
_PIXEL_LOSSES = {"L1Loss": "l1", "MSELoss": "l2", "CharbonnierLoss": "charbonnier"}
_BLURS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_LEFT = (
    (r"val\..*|datasets\.val.*", "scores are taken by `restorer evaluate`, not during a run"),
    (r"dist_params\..*", "processes are started by --processes"),
    (r"logger\.wandb\..*", "a run is logged to its own folder and to TensorBoard"),
)
"""Keys that are not followed, and why; told once for all of them."""
_WIDEST = 21


def read_options(path: Path) -> dict[str, Any]:
    """The option file as nested tables. It is read as plain data."""
    try:
        import yaml
    except ImportError:
        raise MissingPackageError('option files need extra packages: pip install "restorer[train]"') from None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise UsageError(f"{path}: is no YAML: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(data, dict) or "network_g" not in data:
        raise UsageError(f"{path}: is no option file for training: it has no network_g")
    return data


def recipe_of(options: Mapping[str, Any]) -> tuple[str, Settings, list[str]]:
    """-> (a recipe's name, what is changed in it, a line for each key that is not followed).

    UsageError where what the file asks for cannot be trained here at all.
    """
    model = str(options.get("model_type"))
    if model not in BASES:
        raise unknown_name("model_type", model, BASES)
    readers = {**_readers(options), **_network_readers(options)}
    settings: Settings = {**_UNSAID, "adversary.relativistic": model == "ESRGANModel"}
    leaves = [(key, value) for key, value in _leaves(options) if value is not None]
    lines = [
        f"{', '.join(keys)}: {why}"
        for pattern, why in _LEFT
        if (keys := [key for key, _ in leaves if re.fullmatch(pattern, key)])
    ]
    for key, value in leaves:
        if any(re.fullmatch(pattern, key) for pattern, _ in _LEFT):
            continue
        answer = readers.get(key, lambda _: "is not known here")(value)
        if isinstance(answer, str):
            lines.append(f"{key}: {answer}")
            continue
        clash = [name for name, new in answer.items() if name not in _UNSAID and settings.get(name, new) != new]
        lines += [f"{key}: {name} is one number here, {settings[name]} was taken" for name in clash]
        settings |= {name: new for name, new in answer.items() if name not in clash}
    if settings.get("adversary.loss") == "least_squares":
        settings["weights.adversarial"] = 2 * float(str(settings["weights.adversarial"]))  # theirs is not halved
    if settings.get("degradation") == NONE and settings.pop("degradation.sharpen", False):
        lines.append("gt_usm, l1_gt_usm, percep_gt_usm: the truth of pairs that were read is not sharpened")
    changed(RECIPES[BASES[model]](), settings)
    return BASES[model], settings, lines


def as_toml(base: str, settings: Settings, lines: Iterable[str]) -> str:
    """A recipe file; what is not followed stands in it as comments."""
    said = "".join(f"# not followed: {line}\n" for line in lines)
    values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    return f'{said}recipe = "{base}"\n{values}'


def _leaves(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Dotted names and values; numbers that YAML leaves as text, such as 5e3, are numbers."""
    flat: list[tuple[str, Any]] = []
    layers = "train.perceptual_opt.layer_weights"
    for key, value in flattened(options).items():
        if key.startswith(layers):
            continue
        flat.append((key, _number(value)))
    weights = options.get("train", {}).get("perceptual_opt") or {}
    if "layer_weights" in weights:
        flat.append((layers, weights["layer_weights"]))
    return flat


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _to(name: str, kind: Callable[[Any], object] = lambda value: value) -> Read:
    """Take the value as it is."""
    return lambda value: {name: kind(value)}


def _only(*accepted: object, why: str) -> Read:
    """Follow these values by doing what is done anyway."""
    return lambda value: {} if value in accepted else f"{value}: {why}"


def _brings(settings: Settings) -> Read:
    return lambda _: settings


def _named(name: str, table: Mapping[str, str]) -> Read:
    return lambda value: {name: table[value]} if value in table else f"'{value}' is not known here"


def _readers(options: Mapping[str, Any]) -> dict[str, Read]:
    readers: dict[str, Read] = {
        "name": _never_mind,
        "model_type": _never_mind,
        "scale": _never_mind,
        "num_gpu": lambda value: (
            {} if isinstance(value, int) else "train.batch is that of one GPU; multiply it by yours"
        ),
        "manual_seed": _to("train.seed", int),
        "path.pretrain_network_g": _to("start", str),
        "path.param_key_g": _only("params_ema", why="params_ema is read where the file has it"),
        "path.strict_load_g": _only(True, why="weights must fit"),
        "path.pretrain_network_d": _to("discriminator_start", str),
        "path.strict_load_d": _only(True, why="weights must fit"),
        "path.param_key_d": _only("params", why="what there is, is read"),
        "path.resume_state": _only(why="runs of other programs cannot be gone on with"),
        "train.ema_decay": _to("averaging.decay", float),
        "train.total_iter": _to("train.steps", int),
        "train.warmup_iter": _only(-1, 0, why="there is no warm-up of the rate"),
        "train.net_d_iters": _only(1, why="set cadence.d_turns, and divide train.steps and milestones by it"),
        "train.net_d_init_iters": _to("cadence.warm_steps", int),
        "train.pixel_opt.type": _named("weights.pixel_kind", _PIXEL_LOSSES),
        "train.pixel_opt.loss_weight": _to("weights.pixel", float),
        "train.pixel_opt.reduction": _only("mean", why="losses are means"),
        "train.gan_opt.type": _only("GANLoss", why="is not known here"),
        "train.gan_opt.gan_type": _named("adversary.loss", _GAMES),
        "train.gan_opt.loss_weight": _to("weights.adversarial", float),
        "train.gan_opt.real_label_val": lambda value: {} if value == 1 else {"adversary.smoothing": 1 - float(value)},
        "train.gan_opt.fake_label_val": _only(0, why="only real pictures are smoothed"),
        "logger.print_freq": _to("train.log_every", int),
        "logger.save_checkpoint_freq": _to("train.save_every", int),
        "logger.use_tb_logger": _never_mind,
        "high_order_degradation": lambda value: {} if value else {"degradation": NONE},
        "queue_size": _never_mind,  # samples of a batch differ anyway
        "gan_gt_usm": _only(False, why="the discriminator sees the truth as it is"),
        "gt_usm": _to("degradation.sharpen", bool),
        "l1_gt_usm": _to("degradation.sharpen", bool),
        "percep_gt_usm": _to("degradation.sharpen", bool),
        "gt_size": _to("data.crop", int),
    }
    for player in ("g", "d"):
        optim = f"train.optim_{player}."
        readers |= {
            f"{optim}type": _only("Adam", why="players learn by Adam"),
            f"{optim}lr": _to(f"train.{player}_rate", float),
            f"{optim}weight_decay": _only(0, why="there is no weight decay"),
            f"{optim}betas": _to("train.betas"),
        }
    return {**readers, **_schedule_readers(), **_feature_readers(), **_data_readers(options), **_rounds()}


def _never_mind(value: Any) -> Settings | str:
    """Nothing follows from it here."""
    return {}


def _schedule_readers() -> dict[str, Read]:
    kinds = {"MultiStepLR": "steps", "CosineAnnealingRestartLR": "cosine"}
    group = "train.scheduler."
    return {
        f"{group}type": _named("schedule.kind", kinds),
        f"{group}milestones": _to("schedule.milestones"),
        f"{group}gamma": _to("schedule.factor", float),
        f"{group}periods": _to("schedule.periods"),
        f"{group}eta_min": _to("schedule.floor", float),
        f"{group}restart_weights": lambda value: (
            {} if set(value) == {1} else f"{value}: every period starts from the full rate"
        ),
    }


def _feature_readers() -> dict[str, Read]:
    group = "train.perceptual_opt."
    return {
        f"{group}type": _only("PerceptualLoss", why="is not known here"),
        f"{group}layer_weights": lambda value: {
            "features.layers": [[name, float(each)] for name, each in value.items()]
        },
        f"{group}vgg_type": _only("vgg19", why="features are those of VGG19"),
        f"{group}use_input_norm": _only(True, why="inputs of feature networks are normalised"),
        f"{group}range_norm": _only(False, why="networks here give [0, 1]"),
        f"{group}perceptual_weight": _to("weights.perceptual", float),
        f"{group}style_weight": _to("weights.style", float),
        f"{group}criterion": _named("features.distance", {"l1": "l1", "l2": "l2"}),
    }


def _data_readers(options: Mapping[str, Any]) -> dict[str, Read]:
    group, gpus = "datasets.train.", options.get("num_gpu")
    count = gpus if isinstance(gpus, int) and gpus > 0 else 1
    return {
        f"{group}name": _never_mind,
        f"{group}type": _only(
            "PairedImageDataset", "RealESRGANDataset", "RealESRGANPairedDataset", why="is not known here"
        ),
        f"{group}dataroot_gt": _to("data.high", str),
        f"{group}dataroot_lq": _to("data.low", str),
        f"{group}io_backend.type": _only("disk", "lmdb", why="is not known here"),
        f"{group}filename_tmpl": _only("{}", f"{{}}x{options.get('scale')}", why="partners have the same name"),
        f"{group}meta_info": _only(why="name the pictures in a .txt list, and give it as data.high"),
        f"{group}meta_info_file": _only(why="name the pictures in a .txt list, and give it as data.high"),
        f"{group}gt_size": _to("data.crop", int),
        f"{group}use_hflip": _to("data.flip", bool),
        f"{group}use_rot": _to("data.turn", bool),
        f"{group}use_shuffle": _only(True, why="pictures are always shuffled"),
        f"{group}num_worker_per_gpu": _to("data.threads", int),
        f"{group}batch_size_per_gpu": lambda value: {"train.batch": int(value) * count},
        f"{group}dataset_enlarge_ratio": _never_mind,  # there is no end of an epoch to wait at
        f"{group}prefetch_mode": _only("cpu", "cuda", why="is not known here"),
        f"{group}final_sinc_prob": _to("degradation.final_sinc", float),
    }


def _rounds() -> dict[str, Read]:
    """The numbers of Real-ESRGAN's two rounds; those of the second end in 2."""
    readers: dict[str, Read] = {"second_blur_prob": _to("degradation.second.blur.chance", float)}
    for which, end in (("first", ""), ("second", "2")):
        mine, data = f"degradation.{which}", "datasets.train."
        readers |= {
            f"resize_prob{end}": _to(f"{mine}.directions"),
            f"resize_range{end}": _to(f"{mine}.resize"),
            f"gaussian_noise_prob{end}": _to(f"{mine}.gaussian", float),
            f"noise_range{end}": _to(f"{mine}.noise"),
            f"poisson_scale_range{end}": _to(f"{mine}.poisson"),
            f"gray_noise_prob{end}": _to(f"{mine}.grey", float),
            f"jpeg_range{end}": _to(f"{mine}.jpeg"),
            f"{data}blur_kernel_size{end}": _only(_WIDEST, why="sides are drawn from 7 to 21"),
            f"{data}kernel_list{end}": lambda value: (
                {} if list(value) == list(_BLURS) else f"{value}: give chances of all six kinds in their usual order"
            ),
            f"{data}kernel_prob{end}": _to(f"{mine}.blur.kinds", _shares),
            f"{data}sinc_prob{end}": _to(f"{mine}.blur.sinc", float),
            f"{data}blur_sigma{end}": _to(f"{mine}.blur.sigma"),
            f"{data}betag_range{end}": _to(f"{mine}.blur.generalised"),
            f"{data}betap_range{end}": _to(f"{mine}.blur.plateau"),
        }
    return readers


def _shares(chances: Iterable[float]) -> list[float]:
    numbers = list(chances)
    return [number / sum(numbers) for number in numbers]


def _network_readers(options: Mapping[str, Any]) -> dict[str, Read]:
    """Those of `network_g` and `network_d`, by their types."""
    readers: dict[str, Read] = {}
    for group, table, into in (("network_g", _NETWORKS, "config"), ("network_d", _DISCRIMINATORS, "discriminator")):
        kind = (options.get(group) or {}).get("type")
        if kind is None:
            continue
        if kind not in table:
            raise unknown_name(f"{group}.type", str(kind), table)
        brings, names = table[kind]
        if group == "network_g":
            brings = {**brings, "config.scale": options.get("scale", 4)}
        readers[f"{group}.type"] = _brings(brings)
        readers |= {f"{group}.{theirs}": _to(f"{into}.{mine}") for theirs, mine in names.items()}
        readers[f"{group}.num_out_ch"] = readers.get(f"{group}.num_out_ch", _only(3, 1, why="is that of the input"))
    return readers
