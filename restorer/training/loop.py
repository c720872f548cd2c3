"""The run: steps, and what is done between them. `train` is the paragraph to read first."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from restorer import machine
from restorer.errors import MissingPackageError, NumericalError, UsageError, WriteError
from restorer.networks.spec import Traits
from restorer.training.averaging import decay_at, update_average
from restorer.training.board import Board
from restorer.training.build import build_parts, checked_traits, facts_of, in_layout, layout_of
from restorer.training.checkpoint import Parts, latest, load_run, remove_older, restore_run, save_run
from restorer.training.data import CropSource, ReadAhead, batches_of
from restorer.training.game import generators_of
from restorer.training.games import game_of
from restorer.training.objective import Batch, Clock, Rules, Turns, gan_step
from restorer.training.pairing import margin_of
from restorer.training.picture_grid import write_grid
from restorer.training.recipe import Recipe, as_data
from restorer.training.report import write_report
from restorer.training.schedule import d_turns_at, g_updates_before, rate_at
from restorer.training.sources import open_source
from restorer.training.translation_data import TranslationDataConfig
from restorer.training.watch import GIVE_UP, Readings, Watch, Window, evaluating, looked_at
from restorer.weights.safe import write_safetensors
from restorer.weights.whole import write_whole

if TYPE_CHECKING:
    from lightning.fabric import Fabric

log = logging.getLogger(__name__)
Say = Callable[[str], None]
SHOWN = 4
"""Crops in a grid of pictures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run that is going on."""

    recipe: Recipe
    traits: Traits
    folder: Path
    parts: Parts
    source: CropSource
    fabric: "Fabric"
    board: Board | None
    """None in processes that do not write."""
    say: Say

    @property
    def is_first(self) -> bool:
        """Of several processes, this is the one that writes."""
        return self.fabric.global_rank == 0


def train(recipe: Recipe, folder: Path, *, fabric: "Fabric", resume: bool = False, trust_first_use: bool = False,
          say: Say = log.info, stop: Callable[[], bool] = lambda: False) -> Path:  # fmt: skip
    """Play every step of a recipe; returns the last checkpoint. A run resumed is a run that was never stopped.

    `stop` is asked after each step: where it says so, the run is saved and ends.
    DataError, WeightsError: what it was given cannot be trained on or from. NumericalError: the game went wrong, and
    the checkpoints before are whole. WriteError: the folder is full or locked; the same holds.
    """
    run, step = _opened(recipe, folder, fabric, resume=resume, trust_first_use=trust_first_use, say=say)
    train, cadence, players = recipe.train, recipe.cadence, run.parts.optimisers
    if fabric.device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # what a resumed run's equality rests on
    window, watch, started = Window(), Watch(), time.monotonic()
    rules = Rules(optimisers=players, order=train.order, clip=train.clip, autocast=fabric.autocast)
    shown = _samples(run)
    path, skipped = folder / f"step-{step:07d}.safetensors", 0
    if step == 0:
        path = _saved(run, step)
        _show(run, step, shown)
    with _read_ahead(run, step) as steps:
        for batches in steps:
            clock = Clock(seed=train.seed, step=step, rank=fabric.global_rank, device=fabric.device)
            updates = g_updates_before(cadence, step)
            learns = step >= cadence.warm_steps
            _set_rates(run, step, updates)
            turns = _turns(run, batches, learns=learns)
            terms = gan_step(run.parts.objective, turns, rules=rules, clock=clock)
            if learns:
                _follow(run, updates)
            skipped = skipped + 1 if any(name.endswith("/skipped") for name in terms) else 0
            window.add(terms)
            step += 1
            last = step == train.steps or _agreed(run, stop())
            if skipped >= GIVE_UP or _due(step, train.log_every) or last:
                _log(run, step, window.take(), _look(run, turns, clock), watch, started=started)
            if skipped >= GIVE_UP:
                raise NumericalError(
                    f"no finite gradient for {GIVE_UP} steps; resume from {path.name} with train.clip=1"
                )
            if _due(step, train.picture_every) or last:
                _show(run, step, shown)
            if _due(step, train.save_every) or last:
                path = _saved(run, step)
            if last:
                break
    if run.board is not None:
        run.board.close()
    return path


def open_fabric(recipe: Recipe, *, device: str = "auto", devices: int = 1) -> "Fabric":
    """Lightning Fabric for a recipe: where it runs, in how many processes, and in which precision."""
    try:
        from lightning.fabric import Fabric
    except ImportError:
        raise MissingPackageError('training needs extra packages: pip install "restorer[train]"') from None
    from restorer.engines.precision import choose_device

    chosen = choose_device(device)
    kind = chosen.type
    is_named = ":" in device
    if is_named and devices > 1:
        raise UsageError(f"--device {device} names one device, and --processes {devices} need as many; leave one out")
    most = torch.cuda.device_count() if kind == "cuda" else 1 if kind == "mps" else devices
    if not 1 <= devices <= most:
        raise UsageError(f"--processes must be between 1 and {max(1, most)} on {kind}, got {devices}")
    fast = machine.has_fast_bf16(machine.look()) if kind == "cpu" else kind == "cuda" and torch.cuda.is_bf16_supported()
    precision = recipe.train.precision
    half = precision == "bf16" or (precision == "auto" and fast)
    strategy = "ddp" if devices > 1 else "auto"
    for name in ("lightning.fabric", "lightning.pytorch"):  # either has its own words for the precision
        logging.getLogger(name).setLevel(logging.WARNING)
    places = [chosen.index] if is_named and chosen.index is not None and kind == "cuda" else devices
    return Fabric(accelerator=kind, devices=places, strategy=strategy, precision="bf16-mixed" if half else "32-true")


def _opened(
    recipe: Recipe, folder: Path, fabric: "Fabric", *, resume: bool, trust_first_use: bool, say: Say
) -> tuple[Run, int]:
    """Everything that may be refused is opened before the first step."""
    if recipe.train.batch % (fabric.world_size * recipe.train.accumulate):
        raise UsageError(
            f"train.batch must be a multiple of processes times train.accumulate, {fabric.world_size} x "
            f"{recipe.train.accumulate}; got {recipe.train.batch}"
        )
    if not resume and any(folder.glob("step-*.safetensors")):  # asked by every process before any writes
        raise UsageError(f"'{folder}' holds a run already; go on with --resume {folder}, or choose another --out")
    traits = checked_traits(recipe)
    seed = recipe.train.seed
    margin = margin_of(recipe.degradation)
    source = open_source(
        recipe.data, traits, game_of(recipe.weights), seed=seed, processes=fabric.world_size, margin=margin
    )
    if recipe.train.batch > len(source):
        say(f"the batch of {recipe.train.batch} is larger than the {len(source)} pictures: each is in it several times")
    parts = build_parts(recipe, fabric.device, trust_first_use=trust_first_use, resumed=resume)
    step = 0
    if resume:
        path = latest(folder)
        if path is None:
            raise UsageError(f"no whole checkpoint in '{folder}' to resume from; start anew without --resume")
        tensors, told = load_run(path)
        restore_run(parts, tensors)
        step = int(told["step"])
        if step >= recipe.train.steps:
            raise UsageError(f"the run in '{folder}' has all its {step} steps; set a larger train.steps to go on")
    board = None
    if fabric.global_rank == 0:
        _prepare(folder, recipe, step=step)
        with _writing(folder):
            board = Board(folder, step=step)
    fabric.barrier()
    return Run(
        recipe=recipe, traits=traits, folder=folder, parts=parts, source=source, fabric=fabric, board=board, say=say
    ), step


def _prepare(folder: Path, recipe: Recipe, *, step: int) -> None:
    """Make the folder; a resumed run forgets what it logged later."""
    with _writing(folder):
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        write_whole(folder / "recipe.json", [(json.dumps(as_data(recipe), indent=1) + "\n").encode()])
        lines = [line for line in _lines(folder) if line["step"] <= step]
        write_whole(folder / "log.jsonl", ["".join(json.dumps(line) + "\n" for line in lines).encode()])


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a disk that is full or locked into one line; checkpoints that are there stay whole."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write to '{folder}': {error.strerror}; make room, then: restorer train --resume {folder}"
        ) from None


def _lines(folder: Path) -> list[dict[str, Any]]:
    """What was logged; a last line that was torn is left out."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _read_ahead(run: Run, step: int) -> ReadAhead:
    train, cadence, fabric = run.recipe.train, run.recipe.cadence, run.fabric
    make = batches_of(
        run.source, batch=train.batch, rank=fabric.global_rank, processes=fabric.world_size, turns=cadence.d_turns
    )
    return ReadAhead(
        make,
        turns=lambda at: d_turns_at(cadence, at),
        start=step,
        stop=train.steps,
        threads=run.recipe.data.threads,
    )


def _turns(run: Run, batches: list[Batch], *, learns: bool) -> Turns:
    """The generator shares the discriminator's first batch where it goes first, and its last where it goes last."""
    recipe = run.recipe
    parts = [_parts(_pair(run, batch), recipe.train.accumulate) for batch in batches]
    shared = parts[0 if recipe.train.order == "gd" else -1] if learns else None
    return Turns(d=parts if "d" in run.parts.optimisers else [], g=shared)


def _pair(run: Run, batch: Batch) -> Batch:
    """(N, C, H, W) -> on the device, in its networks' layout, with what the game adds, such as a small partner."""
    device = run.fabric.device
    layout = layout_of(run.traits, device)
    there = {name: in_layout(tensor.to(device, non_blocking=True), layout) for name, tensor in batch.items()}
    return game_of(run.recipe.weights).pair(there, run.recipe, run.traits)


def _parts(batch: Batch, count: int) -> list[Batch]:
    chunks = {name: tensor.chunk(count) for name, tensor in batch.items()}
    return [{name: chunks[name][number] for name in batch} for number in range(count)]


def _set_rates(run: Run, step: int, updates: int) -> None:
    train, schedule = run.recipe.train, run.recipe.schedule
    rates = {"g": (train.g_rate, updates), "d": (train.d_rate, step)}
    for player, optimiser in run.parts.optimisers.items():
        rate, count = rates[player]
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * rate_at(schedule, rate, count, train.steps)


def _follow(run: Run, updates: int) -> None:
    """The average takes its step after the generator's."""
    averaging = run.recipe.averaging
    decay = decay_at(averaging, updates, run.recipe.train.batch)
    update_average(run.parts.average, run.parts.objective.g, decay, buffers=averaging.buffers)


def _agreed(run: Run, wish: bool) -> bool:
    """Whether any process wishes it: all of them end at the same step."""
    if run.fabric.world_size == 1:
        return wish
    wishes = run.fabric.all_reduce(torch.tensor(float(wish), device=run.fabric.device), reduce_op="sum")
    return bool(wishes)


def _due(step: int, every: int) -> bool:
    return step % every == 0


def _look(run: Run, turns: Turns, clock: Clock) -> Readings:
    """How the game stands, on the batch that was just played."""
    batches = turns.g if turns.g is not None else turns.d[0]
    with clock.turn("d", -1, 0) as now, run.fabric.autocast():
        return looked_at(run.parts.objective, batches[0], now)


def _log(run: Run, step: int, terms: Readings, looks: Readings, watch: Watch, *, started: float) -> None:
    """One line to the log and to the user; trouble is told, or ends the run."""
    readings = _shared(run, terms | looks)
    if run.is_first:
        line = {"step": step, "seconds": round(time.monotonic() - started, 3), **readings, "bad_files": run.source.bad}
        with _writing(run.folder):
            with (run.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if run.board is not None:
                run.board.tell(step, readings)
        told = "  ".join(f"{name} {value:.4g}" for name, value in sorted(readings.items()))
        run.say(f"step {step}/{run.recipe.train.steps}  {told}")
    for trouble in watch.troubles(readings):
        if run.recipe.train.on_trouble == "stop":
            raise NumericalError(f"step {step}: {trouble}; train.on_trouble=warn goes on all the same")
        log.warning("step %d: %s", step, trouble)


def _shared(run: Run, readings: Readings) -> Readings:
    """The mean over processes, so that all of them come to the same conclusions."""
    if run.fabric.world_size == 1:
        return readings
    values = torch.tensor([readings[name] for name in sorted(readings)], device=run.fabric.device)
    means = run.fabric.all_reduce(values, reduce_op="mean")
    assert isinstance(means, Tensor)
    return dict(zip(sorted(readings), means.tolist(), strict=True))


def _samples(run: Run) -> Batch:
    """The crops that every grid shows: the first of step 0, whenever the run began and however small its batch is."""
    data, batch = run.recipe.data, run.recipe.train.batch
    alike = not isinstance(data, TranslationDataConfig) or data.crops  # others stand in no batch together
    count = min(SHOWN, max(batch, len(run.source)) if alike else batch)
    return _pair(run, batches_of(run.source, batch=count, rank=0, processes=1, turns=1)(0, 0))


def _show(run: Run, step: int, samples: Mapping[str, Tensor]) -> None:
    """A grid: such as what the network is given, what its average makes of it, the truth; and the report anew."""
    if not run.is_first:
        return
    with evaluating(run.parts.average):
        columns = game_of(run.recipe.weights).columns(run.parts.average, dict(samples))
    with _writing(run.folder):
        pixels = write_grid(run.folder / "pictures" / f"step-{step:07d}.png", columns)
        if run.board is not None:
            run.board.show(step, pixels)
        write_report(run.folder, run.recipe, _lines(run.folder))


def _saved(run: Run, step: int) -> Path:
    """Write the checkpoint, and each generator alone; only then are old checkpoints removed."""
    recipe, path = run.recipe, run.folder / f"step-{step:07d}.safetensors"
    if run.is_first:
        facts = facts_of(recipe)
        path = save_run(run.folder, run.parts, step=step, recipe=as_data(recipe), facts=facts)
        for name, network in generators_of(run.parts.average).items():
            write_safetensors(run.folder / f"{name}.safetensors", network.state_dict(), facts)
        remove_older(run.folder, keep=recipe.train.keep)
    run.fabric.barrier()
    return path
