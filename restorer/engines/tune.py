"""Which engine is fastest on this machine for a network: measured once, kept, and asked by `auto`.

Set-up is what a process pays before its first tile, once what can be kept is kept.
"""

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restorer import machine
from restorer.engines.precision import DTYPES, choose_device
from restorer.engines.seam import Engine, Open
from restorer.engines.shared import probe, psnr, seconds_of
from restorer.errors import RestorerError, WeightsError, WriteError
from restorer.networks.spec import Model
from restorer.weights.fetch import cache_home
from restorer.weights.whole import write_whole

log = logging.getLogger(__name__)
PACKAGES = ("restorer", "torch", "onnxruntime-gpu", "onnxruntime", "onnx", "onnxscript", "openvino", "spandrel")
SIDE = 192
"""Of the batch that is timed, in input pixels."""
TIMES = 3
ANEW = frozenset({"compiled"})
"""Engines that pay their set-up again for every size of picture: measured for the table, taken only by name."""
FAITHFUL = {"fp32": 80.0, "fp16": 45.0, "bf16": 40.0}
"""dB against PyTorch in float32 that a row must reach on the probe to be chosen."""
LONGEST_SETUP = 15.0
"""Seconds of set-up above which an engine does not pay for single pictures, and `auto` leaves it."""
WORTH = 0.95
"""An engine is chosen over eager when it takes at most this share of its time."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine in one precision, measured."""

    engine: str
    precision: str
    automatic: bool
    """It is what this engine takes by itself; others are measured for the table, and for who asks for them by name."""
    seconds_per_megapixel: float = 0.0
    """Of output, what tiles read twice included."""
    setup_seconds: float = 0.0
    db: float = 0.0
    """Against PyTorch in float32, on the probe; 200 is equal."""
    fault: str = ""
    """Why it did not run; then the numbers mean nothing."""


KINDS = {
    "engine": str, "precision": str, "automatic": bool, "seconds_per_megapixel": int | float,
    "setup_seconds": int | float, "db": int | float, "fault": str,
}  # fmt: skip
"""What the values of a row are, in a file that anything may have happened to."""


def measure(
    model: Model,
    openers: Mapping[str, Open],
    *,
    say: Callable[[str], None],
    read_share: Callable[[Engine], float] = lambda engine: 1.0,
) -> list[Row]:
    """Time every engine in every precision, on the device that `auto` takes; the first opener is the yardstick.

    `read_share` is how many pixels that engine's tiles read for each one of a usual picture: engines that need much
    memory have small tiles, and read more of it twice.
    """
    x = probe(model.traits, SIDE)
    plain = next(iter(openers.values()))(model, device="cpu", precision="fp32", self_check=False)
    exact = plain.run({"image": x})["image"]
    rows: list[Row] = []
    for name, opener in openers.items():
        for precision in ("auto", *_worth_measuring(model)):
            if precision in {row.precision for row in rows if row.engine == name}:
                continue
            say(f"measuring {name}, {precision}")
            opens = functools.partial(opener, model, precision=precision)
            rows.append(_measured(opens, name, precision, x=x, exact=exact, read_share=read_share))
    return rows


def keep(model: Model, rows: Sequence[Row]) -> Path:
    """Write the table to the user's cache, beside those of other networks; returns the file."""
    path = _file()
    tables = {**_tables(), _key(model): {"about": _about(model), "rows": [asdict(row) for row in rows]}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WriteError(f"cannot make {path.parent}: {e.strerror}; set RESTORER_CACHE to a folder") from e
    write_whole(path, [json.dumps(tables, indent=1).encode()])
    return path


def kept(model: Model) -> list[Row]:
    """The table of this network on this machine with these packages; empty where nothing was measured."""
    table = _tables().get(_key(model), {})
    try:
        rows = [Row(**row) for row in table["rows"]]
        whole = all(isinstance(getattr(row, name), kind) for row in rows for name, kind in KINDS.items())
    except (KeyError, TypeError):
        return []
    return rows if whole else []


def choose(rows: Sequence[Row], precision: str = "auto") -> Row | None:
    """The fastest faithful row in this precision whose set-up pays; None where there is nothing to go by.

    >>> slow = Row(engine="eager", precision="fp32", automatic=True, seconds_per_megapixel=2, db=200)
    >>> fast = Row(engine="onnx", precision="fp32", automatic=True, seconds_per_megapixel=1, db=120)
    >>> choose([slow, fast]).engine, choose([fast]), choose([slow, fast], "bf16")
    ('onnx', None, None)
    """
    fitting = [row for row in rows if not row.fault and row.db >= FAITHFUL.get(row.precision, 80.0)]
    fitting = [row for row in fitting if (row.automatic if precision == "auto" else row.precision == precision)]
    eager = next((row for row in fitting if row.engine == "eager"), None)
    if eager is None:
        return None
    quick = [
        row
        for row in fitting
        if row.setup_seconds <= LONGEST_SETUP and row.seconds_per_megapixel <= WORTH * eager.seconds_per_megapixel
    ]
    return min(quick, key=lambda row: row.seconds_per_megapixel, default=eager)


def table_lines(rows: Sequence[Row], chosen: Row | None) -> Iterator[str]:
    """The table as text, a line a row, the chosen one marked."""
    yield f"{'engine':10} {'precision':9} {'s/MP out':>9} {'set-up s':>9} {'dB':>6}"
    for row in rows:
        if row.fault:
            yield f"{row.engine:10} {row.precision:9} {row.fault}"
            continue
        mark = "  <- auto" if row == chosen else ""
        numbers = f"{row.seconds_per_megapixel:9.3f} {row.setup_seconds:9.1f} {row.db:6.1f}"
        yield f"{row.engine:10} {row.precision:9} {numbers}{mark}"


def _worth_measuring(model: Model) -> list[str]:
    """The precisions that this machine computes at a useful speed, and the network is proven in."""
    on_cpu = choose_device("auto").type == "cpu"
    slow = "fp16" if on_cpu else "" if torch.cuda.is_bf16_supported() else "bf16"
    also_slow = "bf16" if on_cpu and not machine.has_fast_bf16(machine.look()) else ""
    return sorted((model.traits.precisions & DTYPES.keys()) - {slow, also_slow})


def _measured(
    opens: Callable[..., Engine],
    name: str,
    asked: str,
    *,
    x: Tensor,
    exact: Tensor,
    read_share: Callable[[Engine], float],
) -> Row:
    automatic = asked == "auto" and name not in ANEW
    try:
        opens(self_check=False)  # what can be kept is kept from here on
        start = time.perf_counter()
        engine = opens(self_check=False)
        there = x.to(engine.device)
        y = engine.run({"image": there})["image"].cpu()
        first = time.perf_counter() - start
        seconds = min(seconds_of(engine.run, there) for _ in range(TIMES))
    except RestorerError as e:
        return Row(engine=name, precision=asked, automatic=automatic, fault=str(e))
    return Row(
        engine=name,
        precision=next(key for key, dtype in DTYPES.items() if dtype == engine.dtype),
        automatic=automatic,
        seconds_per_megapixel=seconds * read_share(engine) / (y.shape[-1] * y.shape[-2] / 1e6),
        setup_seconds=max(0.0, first - seconds),
        db=psnr(y, exact),
    )


def _about(model: Model) -> dict[str, Any]:
    """All that a measurement holds for."""
    here = machine.look()
    device = choose_device("auto")
    return {
        "processor": here.cpu_name,
        "cores": here.cores,
        "sets": sorted(here.instruction_sets & {"avx2", "avx512f", *machine.FAST_BF16}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: machine.installed(name) for name in PACKAGES},
        "network": model.spec.name,
        "config": repr(model.config),
        "scale": model.traits.scale,
    }


def _key(model: Model) -> str:
    return hashlib.sha256(json.dumps(_about(model), sort_keys=True).encode()).hexdigest()[:32]


def _file() -> Path:
    return cache_home() / "engines.json"


def _tables() -> dict[str, Any]:
    try:
        tables = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, WeightsError):  # WeightsError: this user has no home
        return {}
    return tables if isinstance(tables, dict) else {}
