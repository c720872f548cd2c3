"""restorer train: a recipe and pictures -> a run folder."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from restorer.apps.cli.screen import show, tell
from restorer.errors import COMMANDS, UsageError

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe


def train(
    recipe: Annotated[str | None, typer.Argument(help="A name, or a .toml or .json file; not with --resume.")] = None,
    *,
    data: Annotated[str | None, typer.Option(help="Pictures: a folder, glob, .txt list, .tar shards, LMDB.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run folder.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="group.name=value; may be repeated.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    processes: Annotated[int, typer.Option(help="That share the batch; one a device.")] = 1,
    trust_first_use: Annotated[
        bool, typer.Option("--trust-first-use", help="Accept feature weights whose full hash was not published.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")] = False,
) -> int:
    """Train a network, or go on with a run. Its checkpoints are models: upscale, faces and export take them."""
    if (recipe is None) == (resume is None):
        raise UsageError("name a recipe, or a run to go on with: --resume RUN")
    chosen = _chosen(recipe, resume, settings or [], data)
    if dry_run:
        _show_plan(chosen)
        return 0
    folder = resume if resume is not None else out
    if folder is None:
        raise UsageError("name a folder for the run: --out RUN")
    if not chosen.data.where:
        raise UsageError("name the pictures to train on: --data DIR")
    from restorer.networks.spec import get_spec
    from restorer.training.loop import open_fabric
    from restorer.training.loop import train as play

    fabric = open_fabric(chosen, device=device, devices=processes)
    fabric.launch()
    with _asked_to_stop() as asked:
        path = play(
            chosen, folder, fabric=fabric, resume=resume is not None, trust_first_use=trust_first_use, say=tell,
            stop=lambda: bool(asked),
        )  # fmt: skip
    if asked and path.stem != f"step-{chosen.train.steps:07d}":
        tell(f"stopped, and {path} is whole; to go on: restorer train --resume {folder}")
        return 128 + asked[0]
    if fabric.global_rank == 0:
        command = COMMANDS.get(get_spec(chosen.network).task)
        one_way = path.with_name("generator-a2b.safetensors")  # of two generators, each has a file
        model = one_way if one_way.is_file() else path
        taken = f"; restorer {command} --model {model} takes it" if command else ""
        show(f"{path}: {chosen.name}, {chosen.train.steps} steps{taken}")
    return 0


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collect signals that end a command: the first is answered when the step is over and saved, the next at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def gently(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        line = b"restorer: stopping when this step is over; once more to stop at once\n"
        with suppress(OSError, AttributeError):  # there may be no screen; if there is, amid any other line
            os.write(sys.stderr.fileno(), line)

    for number, handler in before.items():
        if callable(handler):  # one that is ignored stays so
            signal.signal(number, gently)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chosen(recipe: str | None, resume: Path | None, settings: list[str], data: str | None) -> "Recipe":
    from restorer.training.recipes import changed, get_recipe

    base = get_recipe(recipe if recipe is not None else str(_of_run(resume)))
    chosen = changed(base, dict(setting_of(text) for text in settings))
    return changed(chosen, {f"data.{chosen.data.place}": data}) if data else chosen  # the kind of data says which


def _of_run(folder: Path | None) -> Path:
    assert folder is not None
    path = folder / "recipe.json"
    if not path.is_file():
        raise UsageError(f"'{folder}' is no run: it has no recipe.json")
    return path


def setting_of(text: str) -> tuple[str, str]:
    """group.name=value -> (group.name, value)."""
    name, found, value = text.partition("=")
    if not found:
        raise UsageError(f"--set takes group.name=value, such as train.steps=1000; got '{text}'")
    return name, value


def _show_plan(recipe: "Recipe") -> None:
    from restorer.training.estimate import estimate
    from restorer.training.recipe import as_data

    show(json.dumps(as_data(recipe), indent=1))
    for line in estimate(recipe):
        show(line)
