"""What a run tells: events, which the command line shows in words or as JSON, and the words for time."""

from typing import TYPE_CHECKING

from restorer.pipeline.files import Job

if TYPE_CHECKING:
    from restorer.engines import Engine
    from restorer.pipeline.work import Work

Event = dict[str, object]
"""Plain values under names; "event" is plan, model, notice, estimate, progress, result, skipped, error or summary."""
LONG = 60.0
"""Seconds from which a run is announced."""
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


def described(job: Job, work: "Work", *, model: str) -> Event:
    """What a plan and a result say of one picture."""
    output = "-" if job.output is None else str(job.output)
    return {"input": job.label, "output": output, "model": model, **work.told()}


def engine_told(engine: "Engine") -> Event:
    """What plans and results say of the engine that computes."""
    return {"engine": engine.name, "precision": precision_of(engine), "device": engine.where}


def precision_of(engine: "Engine") -> str:
    """The name of what the bulk of the network computes in."""
    return PRECISIONS[str(engine.dtype).removeprefix("torch.")]


def spoken(seconds: float) -> str:
    """A length of time as one would say it.

    >>> spoken(0), spoken(7.4), spoken(95), spoken(4000)
    ('a second', '7 seconds', '2 minutes', '1.1 hours')
    """
    if seconds < 90:
        return f"{round(seconds)} seconds" if seconds >= 1.5 else "a second"
    return f"{round(seconds / 60)} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def quicker(model: str) -> str:
    """The words that name a quicker model for the same task, where the table knows one."""
    from restorer.weights.records import find_record

    record = find_record(model)
    if record is None or record.quicker is None:
        return ""
    name, times = record.quicker
    return f"; --model {name} would be about {times} times quicker"
