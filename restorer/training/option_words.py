"""Options of pytorch-CycleGAN-and-pix2pix's train.py -> a recipe, and every option that it does not follow.

What is not said has the defaults of the original, which differ with --model. Its epochs become steps by counting the
pictures. Its rate falls once an epoch and, being asked for before the first, reaches 0 an epoch early; here it falls
with every step from the same epoch on, to 0 at the end.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restorer.errors import DataError, UsageError, unknown_name
from restorer.training.build import checked_traits
from restorer.training.games import game_of
from restorer.training.option_keys import Settings
from restorer.training.recipes import RECIPES, changed
from restorer.training.translation_data import TranslationDataConfig, open_domains

Value = bool | int | float | str
Options = Mapping[str, Value]
"""All options of a run by name, said or not."""
PROGRAM = "train.py"


@dataclass(frozen=True, kw_only=True)
class Model:
    """What --model changes."""

    recipe: str
    """Whose other numbers hold."""
    defaults: Options
    own: Options
    """Options that other models do not have."""


_OF_PIX2PIX: Options = {"lambda_L1": 100.0}
_OF_CYCLEGAN: Options = {"lambda_A": 10.0, "lambda_B": 10.0, "lambda_identity": 0.5}
MODELS: Mapping[str, Model] = {
    "pix2pix": Model(
        recipe="pix2pix_256",
        defaults={
            "norm": "batch",
            "netG": "unet_256",
            "dataset_mode": "aligned",
            "pool_size": 0,
            "gan_mode": "vanilla",
        },
        own=_OF_PIX2PIX,
    ),
    "cycle_gan": Model(
        recipe="cyclegan_256",
        defaults={"no_dropout": True},
        own=_OF_CYCLEGAN,
    ),
}
_DEFAULTS: Options = {
    "dataroot": "", "name": "experiment_name", "model": "cycle_gan", "phase": "train", "suffix": "",
    "input_nc": 3, "output_nc": 3, "ngf": 64, "ndf": 64, "netG": "resnet_9blocks", "netD": "basic",
    "n_layers_D": 3, "norm": "instance", "init_type": "normal", "init_gain": 0.02, "no_dropout": False,
    "dataset_mode": "unaligned", "direction": "AtoB", "serial_batches": False, "num_threads": 4, "batch_size": 1,
    "load_size": 286, "crop_size": 256, "preprocess": "resize_and_crop", "no_flip": False,
    "max_dataset_size": math.inf, "n_epochs": 100, "n_epochs_decay": 100, "lr": 0.0002, "beta1": 0.5,
    "lr_policy": "linear", "lr_decay_iters": 50, "gan_mode": "lsgan", "pool_size": 50, "gpu_ids": "0",
    "checkpoints_dir": "./checkpoints", "epoch": "latest", "load_iter": 0, "continue_train": False,
    "epoch_count": 1, "save_latest_freq": 5000, "save_epoch_freq": 5, "save_by_iter": False, "print_freq": 100,
    "verbose": False, "display_freq": 400, "display_ncols": 4, "display_id": 1, "display_port": 8097,
    "display_server": "http://localhost", "display_env": "main", "display_winsize": 256,
    "update_html_freq": 1000, "no_html": False, "use_wandb": False, "wandb_project_name": "",
    "no_lsgan": False,
}  # fmt: skip
"""Of all models; the kind of each value is that of its default."""
_KNOWN: Options = {**_DEFAULTS, **_OF_PIX2PIX, **_OF_CYCLEGAN}
_EARLIER = {
    "niter": "n_epochs",
    "niter_decay": "n_epochs_decay",
    "batchSize": "batch_size",
    "loadSize": "load_size",
    "fineSize": "crop_size",
    "which_direction": "direction",
    "which_model_netG": "netG",
    "which_model_netD": "netD",
    "resize_or_crop": "preprocess",
    "nThreads": "num_threads",
    "identity": "lambda_identity",
}
"""Names of before 2019 -> those of today."""
_SILENT = frozenset({"name", "verbose", "isTrain"})
"""Nothing would follow from them."""
_LEFT: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("display_freq", "display_ncols", "display_id", "display_port", "display_server", "display_env",
         "display_winsize", "update_html_freq", "no_html", "use_wandb", "wandb_project_name"),
        "a run is logged to its own folder and to TensorBoard",
    ),
    (("checkpoints_dir", "suffix"), "the run folder is what --out of `restorer train` says"),
    (
        ("continue_train", "epoch", "load_iter", "epoch_count"),
        "runs of other programs cannot be gone on with; a run may begin with their weights, by the setting start",
    ),
    (("save_epoch_freq", "save_by_iter"), "checkpoints are saved by train.save_every, and train.keep of them are kept"),
    (("serial_batches",), "pictures are always shuffled"),
    (("max_dataset_size",), "all pictures are used, in as many steps; put fewer into the folder"),
    (("init_type", "init_gain"), "weights start from N(0, 0.02)"),
)  # fmt: skip
"""Options that are not followed, and why; told once for all of them."""
_GENERATORS: Mapping[str, Settings] = {
    "resnet_9blocks": {"network": "cyclegan", "config.blocks": 9},
    "resnet_6blocks": {"network": "cyclegan", "config.blocks": 6},
    "unet_128": {"network": "pix2pix", "config.levels": 7},
    "unet_256": {"network": "pix2pix", "config.levels": 8},
}
_POLICIES = {"linear": "linear", "step": "steps", "cosine": "cosine", "plateau": "constant"}
_UNCOUNTED = ("linear", "plateau")
"""Those that need no number of steps."""
_GAMES = {"vanilla": "non_saturating", "lsgan": "least_squares", "wgangp": "wasserstein"}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What some options mean here."""

    settings: Settings = field(default_factory=dict)
    lines: Sequence[str] = ()
    """About what is not followed."""


def read_words(words: Sequence[str]) -> dict[str, Value]:
    """Words of a command line -> what they say. The command itself, up to its train.py, may stand before them.

    >>> read_words(["python", "train.py", "--model", "pix2pix", "--niter=5", "--no_flip"])
    {'model': 'pix2pix', 'n_epochs': 5, 'no_flip': True}
    """
    programs = [number for number, word in enumerate(words) if Path(word).name == PROGRAM]
    left = list(words[programs[0] + 1 :] if programs else words)
    said: dict[str, Value] = {}
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"'{word}' belongs to no option of {PROGRAM}; options are words such as --model pix2pix")
        short, has_value, value = word[2:].partition("=")
        name = _named(short)
        if isinstance(_KNOWN[name], bool):
            if has_value:
                raise UsageError(f"--{name} is there or not, and takes no value; got '{value}'")
            said[name] = True
            continue
        if not has_value:
            if not left or left[0].startswith("--"):
                raise UsageError(f"--{name} takes a value, such as --{name} {_KNOWN[name] or 'TEXT'}")
            value = left.pop(0)
        said[name] = _value(name, value)
    return said


def read_option_file(path: Path) -> tuple[dict[str, Value], list[str]]:
    """train_opt.txt of a checkpoints folder -> (what is not as usual in it, a line for each option not known here)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    pairs = [line.split("[default:")[0].partition(":") for line in text.splitlines() if not line.startswith("-")]
    texts = {name.strip(): value.strip() for name, found, value in pairs if found}
    if "model" not in texts or "dataroot" not in texts:
        raise UsageError(f"{path}: is no train_opt.txt: it has no lines for model and dataroot")
    if texts.get("isTrain") == "False":
        raise UsageError(f"{path}: are options of a test; give train_opt.txt")
    said: dict[str, Value] = {}
    lines = []
    for name, value in texts.items():
        now = _EARLIER.get(name, name)
        if now in _KNOWN:
            said |= {now: _value(now, value)} if value != "None" else {}
        elif now not in _SILENT:
            lines.append(f"--{name}: is not known here")
    usual = {**_DEFAULTS, **_model(said).defaults, **_model(said).own}
    return {name: value for name, value in said.items() if value != usual.get(name)}, lines


def recipe_of_words(said: Options) -> tuple[str, Settings, list[str]]:
    """-> (a recipe's name, what is changed in it, a line for each option that is not followed).

    UsageError where what is asked for cannot be trained here at all.
    """
    model = _model(said)
    options = {**_DEFAULTS, **model.defaults, **model.own, **said}
    foreign = [name for name in said if name not in options or (name in _KNOWN and not _is_of(name, model))]
    lines = [f"--{name}: {options['model']} has no such option" for name in foreign]
    lines += _left(said)
    answers = [_players(options), _wishes(options), _data(options)]
    recipe = changed(RECIPES[model.recipe](), _settings(answers))
    assert isinstance(recipe.data, TranslationDataConfig), "what a translation recipe has"
    answers.append(_numbers(options))
    answers.append(_length(options, recipe.data, aligned=game_of(recipe.weights).aligned))
    settings = _settings(answers)
    checked_traits(changed(RECIPES[model.recipe](), settings))
    return model.recipe, settings, [*lines, *(line for answer in answers for line in answer.lines)]


def _named(name: str) -> str:
    """The option of this name, or, as in the original, the one that begins like this."""
    name = _EARLIER.get(name, name)
    if name in _KNOWN:
        return name
    longer = [known for known in _KNOWN if name and known.startswith(name)]
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise UsageError(f"--{name} may be {' or '.join(f'--{each}' for each in sorted(longer))}; write it out")
    raise UsageError(str(unknown_name(f"option of {PROGRAM}", f"--{name}", [f"--{known}" for known in _KNOWN])))


_READ: Mapping[type, tuple[Callable[[str], Value], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
    bool: (lambda text: {"True": True, "False": False}[text], "True or False"),
}


def _value(name: str, text: str) -> Value:
    read, kind = _READ[type(_KNOWN[name])]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise UsageError(f"--{name} takes {kind}; got '{text}'") from None


def _model(said: Options) -> Model:
    name = str(said.get("model", _DEFAULTS["model"]))
    if name not in MODELS:
        raise unknown_name("--model that is trained here", name, MODELS)
    return MODELS[name]


def _is_of(name: str, model: Model) -> bool:
    return name in _DEFAULTS or name in model.own


def _left(said: Options) -> list[str]:
    usual = {"init_type": "normal", "init_gain": 0.02, "epoch_count": 1, "max_dataset_size": math.inf}
    lines = []
    for names, why in _LEFT:
        found = [name for name in names if name in said and said[name] not in (False, usual.get(name))]
        lines += [f"{', '.join(f'--{name}' for name in found)}: {why}"] if found else []
    gpus = str(said.get("gpu_ids", "0"))
    if gpus != "0":
        cure = "--device cpu" if gpus.startswith("-") else f"--processes {gpus.count(',') + 1}" if "," in gpus else ""
        lines.append(f"--gpu_ids: say it to `restorer train`: {cure or f'--device cuda:{gpus}'}")
    return lines


def _settings(answers: Sequence[_Answer]) -> Settings:
    return {name: value for answer in answers for name, value in answer.settings.items()}


def _chosen(options: Options, name: str, table: Mapping[str, object]) -> str:
    value = str(options[name])
    if value not in table:
        raise unknown_name(f"--{name}", value, table)
    return value


def _number(options: Options, name: str) -> int:
    value = options[name]
    assert isinstance(value, int | float), "read as one"
    return int(value)


def _players(options: Options) -> _Answer:
    """Both networks."""
    judged = _number(options, "output_nc") + (_number(options, "input_nc") if options["model"] == "pix2pix" else 0)
    kind = _chosen(options, "netD", {"basic": "patch", "n_layers": "patch", "pixel": "pixel"})
    layers = _number(options, "n_layers_D") if kind == "n_layers" else 3
    settings: Settings = {
        **_GENERATORS[_chosen(options, "netG", _GENERATORS)],
        "config.in_channels": options["input_nc"],
        "config.out_channels": options["output_nc"],
        "config.features": options["ngf"],
        "config.norm": options["norm"],
        "config.dropout": not options["no_dropout"],
        "discriminator.kind": "pixel" if kind == "pixel" else "patch",
        "discriminator.channels": judged,
        "discriminator.features": options["ndf"],
        "discriminator.norm": options["norm"],
        **({} if kind == "pixel" else {"discriminator.layers": layers}),
    }
    unused = kind != "n_layers" and options["n_layers_D"] != _DEFAULTS["n_layers_D"]
    return _Answer(settings=settings, lines=["--n_layers_D: is only for --netD n_layers"] if unused else [])


def _wishes(options: Options) -> _Answer:
    """The game and its weights."""
    mode = "vanilla" if options["no_lsgan"] else _chosen(options, "gan_mode", _GAMES)
    settings: Settings = {"adversary.loss": _GAMES[mode], "weights.pool": options["pool_size"]}
    if options["model"] == "pix2pix":
        settings |= {"weights.pixel": options["lambda_L1"]}
    else:
        settings |= {
            "weights.cycle": options["lambda_A"],
            "weights.cycle_b": options["lambda_B"],
            "weights.identity": options["lambda_identity"],
        }
    never = "is trained as it is there, without its penalty; set adversary.gradient_penalty=10 to add it"
    return _Answer(settings=settings, lines=[f"--gan_mode wgangp: {never}"] if mode == "wgangp" else [])


def _data(options: Options) -> _Answer:
    """Which pictures, and how they are cut."""
    layouts = {"aligned": "aligned", "unaligned": "unaligned"}
    directions = {"AtoB": "a2b", "BtoA": "b2a"}
    settings: Settings = {
        "data.layout": layouts[_chosen(options, "dataset_mode", layouts)],
        "data.phase": options["phase"],
        "data.direction": directions[_chosen(options, "direction", directions)],
        "data.preprocess": options["preprocess"],
        "data.load_size": options["load_size"],
        "data.crop": options["crop_size"],
        "data.flip": not options["no_flip"],
        "data.threads": max(1, _number(options, "num_threads")),
    }
    if options["dataroot"]:
        settings["data.root"] = str(Path(str(options["dataroot"])).expanduser())
    return _Answer(settings=settings)


def _numbers(options: Options) -> _Answer:
    """Of the optimisers, and what is counted in pictures there."""
    batch = max(1, _number(options, "batch_size"))
    return _Answer(
        settings={
            "train.batch": options["batch_size"],
            "train.g_rate": options["lr"],
            "train.d_rate": options["lr"],
            "train.betas": [options["beta1"], 0.999],
            "train.log_every": max(1, _number(options, "print_freq") // batch),
            "train.save_every": max(1, _number(options, "save_latest_freq") // batch),
        }
    )


def _length(options: Options, data: TranslationDataConfig, *, aligned: bool) -> _Answer:
    """Epochs -> steps, by the pictures that are there; and how the rate falls in them."""
    flat, falling = _number(options, "n_epochs"), _number(options, "n_epochs_decay")
    policy = _chosen(options, "lr_policy", _POLICIES)
    if flat < 0 or falling < 0 or flat + falling < 1 or (policy == "cosine" and flat < 1):
        raise UsageError(f"--n_epochs and --n_epochs_decay must make epochs to train in; got {flat} and {falling}")
    settings: Settings = {"schedule.kind": _POLICIES[policy], "schedule.flat": flat / (flat + falling)}
    lines = ["--lr_policy plateau: the rate is constant here"] if policy == "plateau" else []
    try:
        pictures = len(open_domains(data, aligned=aligned))
    except DataError as error:
        why = f"pictures cannot be counted, so steps are the recipe's own: {error}"
        named = "--n_epochs, --n_epochs_decay" + ("" if policy in _UNCOUNTED else f", --lr_policy {policy}")
        known = settings if policy in _UNCOUNTED else {}
        return _Answer(settings=known, lines=[*lines, f"{named}: {why}"])
    most, batch = float(options["max_dataset_size"]), max(1, _number(options, "batch_size"))
    epoch = -(-int(min(pictures, most)) // batch)
    steps = settings["train.steps"] = (flat + falling) * epoch
    if policy == "linear" and flat:
        settings["schedule.milestones"] = [flat * epoch]
    elif policy == "step":
        every = max(1, _number(options, "lr_decay_iters")) * epoch
        settings |= {"schedule.factor": 0.1, "schedule.milestones": list(range(every, steps, every))}
    elif policy == "cosine":
        settings |= {"train.steps": flat * epoch, "schedule.periods": [flat * epoch], "schedule.floor": 0.0}
        lines = ["--lr_policy cosine: is followed to where the rate is 0, after --n_epochs, and there the run ends"]
    return _Answer(settings=settings, lines=lines)
