"""restorer models: list, info, fetch, convert, recipe."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restorer.apps.cli.screen import Screen, show, tell
from restorer.apps.cli.words import facts_of
from restorer.errors import UsageError, WeightsError, WriteError

if TYPE_CHECKING:
    from restorer.weights.record import Record

app = typer.Typer(no_args_is_help=True, help="The models that are known, and the files they come in.")


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Every known model: scale, licence, whether its weights are here, and what it is for."""
    from restorer.weights.find import is_here
    from restorer.weights.records import CHECKPOINTS

    for record in CHECKPOINTS.values():
        where = is_here(record)
        if as_json:
            show(json.dumps({**summary(record), "where": where}))
        else:
            show(f"{record.name:30} x{record.scale}  {where or 'to fetch':22} {record.licence:14} {record.summary}")
    return 0


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A name of `restorer models list`, or a weights file.")],
    fact: Annotated[list[str] | None, typer.Option(help="key=value the weights do not say.")] = None,
) -> int:
    """What is known of a model, and what its weights say of themselves when they are here."""
    from restorer.weights.find import find_weights
    from restorer.weights.read import is_onnx
    from restorer.weights.records import find_record

    record = find_record(name)
    try:
        found = find_weights(name, download=False)
    except WeightsError as e:
        if record is None:
            raise
        _show_record(record)
        show(f"{'file':12} none: {e}")
        return 0
    if found.record is not None:
        _show_record(found.record)
    show(f"{'file':12} {found.path} ({found.where})")
    if is_onnx(found.path):
        from restorer.engines.onnx_file import describe

        for key, value in describe(found.path).items():
            show(f"{key:12} {value}")
        return 0
    _show_model(name, facts_of(fact))
    return 0


def _show_record(record: "Record") -> None:
    for key, value in summary(record).items():
        show(f"{key:12} {value}")


def _show_model(name: str, facts: dict[str, str]) -> None:
    """Read the weights and show what network they are."""
    from restorer.api import open_model

    model = open_model(name, facts=facts)
    traits = model.traits
    show(f"{'network':12} {model.spec.name}, {model.config}")
    show(f"{'parameters':12} {sum(p.numel() for p in model.network.parameters()):,}")
    tiles = f"radius {traits.radius} input pixels, read with {traits.overlap} around each tile"
    if model.spec.stages is not None:
        tiles = f"none: rows after rows; with --tile, {tiles}"
    walked = model.spec.walk is not None
    show(f"{'tiling':12} {'none: in one go, or in bands of rows by the statistics of all of it' if walked else tiles}")
    show(f"{'precisions':12} {', '.join(sorted(traits.precisions))}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name of `restorer models list`.")],
    trust_first_use: Annotated[
        bool, typer.Option("--trust-first-use", help="Accept and pin weights whose hash is not known.")
    ] = False,
) -> int:
    """Download a model's weights into the user's cache; the hash is checked before anything is kept."""
    from restorer.weights import fetch as fetching
    from restorer.weights.records import get_record

    record = get_record(name)
    progress = Screen(as_json=False, quiet=False).downloading(record.name)
    path = fetching.fetch(record, trust_first_use=trust_first_use, progress=progress)
    tell(f"{record.name}: {record.licence}, {record.source}")
    show(str(path))
    return 0


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A name, a weights file of any readable kind, or options.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write; of options, a .toml recipe.")],
    fact: Annotated[list[str] | None, typer.Option(help="key=value to store with the weights.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> int:
    """Read weights, recognise their network, and write them as safetensors under its own key names.

    An option file of BasicSR or Real-ESRGAN (.yml), or of pytorch-CycleGAN-and-pix2pix (train_opt.txt), becomes a
    recipe; every key that it does not follow is listed.
    """
    if Path(source).suffix in (".yml", ".yaml", ".txt"):
        return _convert_options(Path(source), out, overwrite=overwrite)
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: weights are written as .safetensors; give such a name")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; give --overwrite, or another name")
    from restorer.api import open_model
    from restorer.weights.read import write_safetensors

    model = open_model(source, facts=facts_of(fact))
    write_safetensors(out, dict(model.network.state_dict()), dict(model.facts))
    show(f"{out}: {model.spec.name}, {model.config}")
    return 0


def _convert_options(source: Path, out: Path, *, overwrite: bool) -> int:
    if out.suffix != ".toml":
        raise UsageError(f"{out}: recipes are written as .toml; give such a name")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; give --overwrite, or another name")
    from restorer.training.option_files import as_toml, read_options, recipe_of
    from restorer.training.option_words import read_option_file, recipe_of_words
    from restorer.weights.whole import write_whole

    if source.suffix == ".txt":
        said, unknown = read_option_file(source)
        base, settings, lines = recipe_of_words(said)
        lines = [*unknown, *lines]
    else:
        base, settings, lines = recipe_of(read_options(source))
    for line in lines:
        tell(f"not followed: {line}")
    try:
        write_whole(out, [as_toml(base, settings, lines).encode()])
    except OSError as error:
        raise WriteError(f"{out}: {error.strerror}") from None
    show(f"{out}: {base} with {len(settings)} settings; restorer train {out} takes it")
    return 0


@app.command(context_settings={"ignore_unknown_options": True})
def recipe(
    options: Annotated[list[str] | None, typer.Argument(help="Such as: --model pix2pix --dataroot DIR.")] = None,
) -> int:
    """Print the recipe that options of pytorch-CycleGAN-and-pix2pix's train.py stand for, as TOML.

    The whole command may be given; each option that the recipe does not follow is told.
    """
    from restorer.training.option_files import as_toml
    from restorer.training.option_words import read_words, recipe_of_words

    if not options:
        raise UsageError("give the options of train.py, such as: --model pix2pix --dataroot datasets/facades")
    base, settings, lines = recipe_of_words(read_words(options))
    for line in lines:
        tell(f"not followed: {line}")
    for line in as_toml(base, settings, lines).splitlines():
        show(line)
    return 0


def summary(record: "Record") -> dict[str, object]:
    """A record's public fields."""
    return {
        "name": record.name,
        "network": record.network,
        "scale": record.scale,
        "licence": record.licence,
        "source": record.source,
        "summary": record.summary,
        "download": record.url or "none",
        "bytes": record.size,
        "sha256": record.sha256,
    }
