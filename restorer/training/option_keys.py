"""What each key of an option file of BasicSR and Real-ESRGAN means here."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from restorer.errors import unknown_name
from restorer.training.recipe import NONE

Settings = dict[str, object]
Read = Callable[[Any], Settings | str]
"""A value of an option file -> settings of a recipe, or why it is not followed."""

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
        {"num_in_ch": "channels", "num_feat": "features"},
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
_PIXEL_LOSSES = {"L1Loss": "l1", "MSELoss": "l2", "CharbonnierLoss": "l1"}
"""BasicSR's Charbonnier, sqrt(d^2 + 1e-12), is L1 in all but name; the one here is rounder."""
_BLURS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_WIDEST = 21


def _whole(value: Any) -> int:
    return int(float(value))


def _wholes(values: Any) -> list[int]:
    return [_whole(value) for value in values]


def _path(value: Any) -> str:
    return str(Path(str(value)).expanduser())


def _to(name: str, kind: Callable[[Any], object] = lambda value: value) -> Read:
    """Take the value as it is."""
    return lambda value: {name: kind(value)}


def _only(*accepted: object, why: str) -> Read:
    """Follow these values by doing what is done anyway."""
    return lambda value: {} if value in accepted else f"{value}: {why}"


def _brings(settings: Settings) -> Read:
    return lambda _: settings


def _named(name: str, table: Mapping[str, str]) -> Read:
    return lambda value: {name: table[value]} if str(value) in table else f"'{value}' is not known here"


def readers(options: Mapping[str, Any]) -> dict[str, Read]:
    """Those of all keys but the networks' own."""
    known: dict[str, Read] = {
        "name": _never_mind,
        "model_type": _never_mind,
        "scale": _never_mind,
        "num_gpu": lambda value: (
            {} if isinstance(value, int) else "train.batch is that of one GPU; multiply it by yours"
        ),
        "manual_seed": _to("train.seed", _whole),
        "path.pretrain_network_g": _to("start", _path),
        "path.param_key_g": _only("params_ema", why="params_ema is read where the file has it"),
        "path.strict_load_g": _only(True, why="weights must fit"),
        "path.pretrain_network_d": _to("discriminator_start", _path),
        "path.strict_load_d": _only(True, why="weights must fit"),
        "path.param_key_d": _only("params", why="what there is, is read"),
        "path.resume_state": _only(why="runs of other programs cannot be gone on with"),
        "train.ema_decay": _to("averaging.decay", float),
        "train.total_iter": _to("train.steps", _whole),
        "train.warmup_iter": _only(-1, 0, why="there is no warm-up of the rate"),
        "train.net_d_iters": _only(1, why="set cadence.d_turns, and divide train.steps and milestones by it"),
        "train.net_d_init_iters": _to("cadence.warm_steps", _whole),
        "train.pixel_opt.type": _named("weights.pixel_kind", _PIXEL_LOSSES),
        "train.pixel_opt.loss_weight": _to("weights.pixel", float),
        "train.pixel_opt.reduction": _only("mean", why="losses are means"),
        "train.gan_opt.type": _only("GANLoss", why="is not known here"),
        "train.gan_opt.gan_type": _named("adversary.loss", _GAMES),
        "train.gan_opt.loss_weight": _to("weights.adversarial", float),
        "train.gan_opt.real_label_val": _only(
            1, why="set adversary.smoothing, which leaves the generator's target at 1"
        ),
        "train.gan_opt.fake_label_val": _only(0, why="the target of fakes is 0"),
        "logger.print_freq": _to("train.log_every", _whole),
        "logger.save_checkpoint_freq": _to("train.save_every", _whole),
        "logger.use_tb_logger": _never_mind,
        "high_order_degradation": lambda value: {} if value else {"degradation": NONE},
        "queue_size": _never_mind,  # samples of a batch differ anyway
        "gan_gt_usm": _only(False, why="the discriminator sees the truth as it is"),
        "gt_usm": _to("degradation.sharpen", bool),
        "l1_gt_usm": _to("degradation.sharpen", bool),
        "percep_gt_usm": _to("degradation.sharpen", bool),
        "gt_size": _to("data.crop", _whole),
    }
    for player in ("g", "d"):
        optim = f"train.optim_{player}."
        known |= {
            f"{optim}type": _only("Adam", why="players learn by Adam"),
            f"{optim}lr": _to(f"train.{player}_rate", float),
            f"{optim}weight_decay": _only(0, why="there is no weight decay"),
            f"{optim}betas": _to("train.betas", _numbers),
        }
    return {**known, **_schedule_readers(), **_feature_readers(), **_data_readers(options), **_rounds(options)}


def _never_mind(value: Any) -> Settings | str:
    """Nothing follows from it here."""
    return {}


def _schedule_readers() -> dict[str, Read]:
    kinds = {"MultiStepLR": "steps", "CosineAnnealingRestartLR": "cosine"}
    group = "train.scheduler."
    return {
        f"{group}type": _named("schedule.kind", kinds),
        f"{group}milestones": _to("schedule.milestones", _wholes),
        f"{group}gamma": _to("schedule.factor", float),
        f"{group}periods": _to("schedule.periods", _wholes),
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
        f"{group}dataroot_gt": _to("data.high", _path),
        f"{group}dataroot_lq": _to("data.low", _path),
        f"{group}io_backend.type": _only("disk", "lmdb", why="is not known here"),
        f"{group}filename_tmpl": _only("{}", f"{{}}x{options.get('scale')}", why="partners have the same name"),
        f"{group}meta_info": _only(why="name the pictures in a .txt list, and give it as data.high"),
        f"{group}meta_info_file": _only(why="name the pictures in a .txt list, and give it as data.high"),
        f"{group}gt_size": _to("data.crop", _whole),
        f"{group}use_hflip": _to("data.flip", bool),
        f"{group}use_rot": _to("data.turn", bool),
        f"{group}use_shuffle": _only(True, why="pictures are always shuffled"),
        f"{group}num_worker_per_gpu": _to("data.threads", lambda value: max(1, _whole(value))),
        f"{group}batch_size_per_gpu": lambda value: {"train.batch": _whole(value) * count},
        f"{group}dataset_enlarge_ratio": _never_mind,  # there is no end of an epoch to wait at
        f"{group}prefetch_mode": _only("cpu", "cuda", why="is not known here"),
        f"{group}final_sinc_prob": _to("degradation.final_sinc", float),
    }


def _rounds(options: Mapping[str, Any]) -> dict[str, Read]:
    """The numbers of Real-ESRGAN's two rounds; those of the second end in 2."""
    listed = (options.get("datasets") or {}).get("train") or {}
    readers: dict[str, Read] = {"second_blur_prob": _to("degradation.second.blur.chance", float)}
    for which, end in (("first", ""), ("second", "2")):
        mine, data = f"degradation.{which}", "datasets.train."
        readers |= {
            f"resize_prob{end}": _to(f"{mine}.directions", _shares),
            f"resize_range{end}": _to(f"{mine}.resize", _numbers),
            f"gaussian_noise_prob{end}": _to(f"{mine}.gaussian", float),
            f"noise_range{end}": _to(f"{mine}.noise", _numbers),
            f"poisson_scale_range{end}": _to(f"{mine}.poisson", _numbers),
            f"gray_noise_prob{end}": _to(f"{mine}.grey", float),
            f"jpeg_range{end}": _to(f"{mine}.jpeg", _wholes),
            f"{data}blur_kernel_size{end}": _only(_WIDEST, why="sides are drawn from 7 to 21"),
            f"{data}kernel_list{end}": lambda value: (
                {} if set(value) <= set(_BLURS) else f"{value}: not all are known here"
            ),
            f"{data}kernel_prob{end}": _to(f"{mine}.blur.kinds", partial(_kinds, listed.get(f"kernel_list{end}"))),
            f"{data}sinc_prob{end}": _to(f"{mine}.blur.sinc", float),
            f"{data}blur_sigma{end}": _to(f"{mine}.blur.sigma", _numbers),
            f"{data}betag_range{end}": _to(f"{mine}.blur.generalised", _numbers),
            f"{data}betap_range{end}": _to(f"{mine}.blur.plateau", _numbers),
        }
    return readers


def _numbers(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]


def _shares(chances: Iterable[Any]) -> list[float]:
    numbers = _numbers(chances)
    return [number / sum(numbers) for number in numbers]


def _kinds(kinds: Any, chances: Iterable[Any]) -> list[float]:
    """Chances of the six kinds in their usual order; those that are not listed have none."""
    found = dict(zip(_BLURS if kinds is None else kinds, _shares(chances), strict=True))
    return [found.get(kind, 0.0) for kind in _BLURS]


def network_readers(options: Mapping[str, Any]) -> dict[str, Read]:
    """Those of `network_g` and `network_d`, by their types."""
    readers: dict[str, Read] = {}
    for group, table, into in (("network_g", _NETWORKS, "config"), ("network_d", _DISCRIMINATORS, "discriminator")):
        if not isinstance(options.get(group), dict):
            continue
        kind = str(options[group].get("type"))
        if kind not in table:
            raise unknown_name(f"{group}.type", kind, table)
        brings, names = table[kind]
        if group == "network_g" and options.get("scale") is not None:
            brings = {**brings, "config.scale": options["scale"]}
        readers[f"{group}.input_size"] = _input_size
        readers[f"{group}.type"] = _brings(brings)
        readers |= {f"{group}.{theirs}": _to(f"{into}.{mine}") for theirs, mine in names.items()}
        readers[f"{group}.num_out_ch"] = readers.get(f"{group}.num_out_ch", _only(3, 1, why="is that of the input"))
    return readers


def _input_size(value: Any) -> Settings | str:
    """Of the discriminator that ends at 4x4."""
    halvings = {128: 5, 256: 6}.get(value)
    return f"{value}: is not known here" if halvings is None else {
        "discriminator.side": value, "discriminator.halvings": halvings,
    }  # fmt: skip
