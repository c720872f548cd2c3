"""Every error that a user can cause.

RestorerError                 anything a user can mend; the message is one sentence with the cure
├── UsageError                options that contradict each other or are out of range (exit status 2)
├── UnknownNameError          a model, network or format that is not in its table
├── PictureError              a file that is not a picture, is damaged, or is too large
├── WriteError                an output that cannot be written: no room, no right, wrong kind
├── WeightsError              weights that cannot be used
│   ├── UnknownWeightsError   no network recognises them
│   ├── AmbiguousWeightsError two readings are possible; a fact must be given
│   └── UnsafeWeightsError    a checkpoint asks for more than plain tensors
├── DataError                 pictures that cannot be trained on: none, unpaired, too small
├── DownloadError             a download that failed, or whose bytes are not the expected ones
├── MissingPackageError       an extra that is not installed
├── UnsupportedError          a device, precision or engine that cannot do what was asked
├── OutOfMemoryError          not enough memory, even for the smallest tile
└── NumericalError            a result that stays non-finite, collapsed or wrong, or a training that went astray
"""

import difflib
from collections.abc import Iterable


class RestorerError(Exception):
    """A mistake or a condition that the user can mend; the message says how."""


class UsageError(RestorerError):
    """Options that contradict each other or are out of range."""


class UnknownNameError(RestorerError):
    """A name that is not in its table."""


class PictureError(RestorerError):
    """A file that is not a picture, is damaged, or is too large."""


class WriteError(RestorerError):
    """An output that cannot be written."""


class WeightsError(RestorerError):
    """Weights that cannot be used."""


class UnknownWeightsError(WeightsError):
    """No network recognises the weights."""


class AmbiguousWeightsError(WeightsError):
    """The weights fit two readings; a fact must decide."""


class UnsafeWeightsError(WeightsError):
    """A checkpoint that asks for more than plain tensors and containers."""


class DataError(RestorerError):
    """Pictures that cannot be trained on."""


class DownloadError(RestorerError):
    """A download that failed or brought other bytes than expected."""


class MissingPackageError(RestorerError):
    """An extra that is not installed."""


class UnsupportedError(RestorerError):
    """A device, precision or engine that cannot do what was asked."""


class OutOfMemoryError(RestorerError):
    """Not enough memory, even for the smallest tile."""


class NumericalError(RestorerError):
    """A result that stays non-finite or collapsed in float32, or a graph that differs from its model."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Say that `name` is no `kind`, and which known name is nearest.

    >>> str(unknown_name("model", "realesrgan-x4plu", ["realesrgan-x4plus", "bsrgan-x4"]))
    "no model named 'realesrgan-x4plu'; did you mean 'realesrgan-x4plus'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    cure = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return UnknownNameError(f"no {kind} named '{name}'; {cure}")


def first_line(error: BaseException) -> str:
    """What a library said went wrong, as far as one line holds it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


COMMANDS = {"upscale": "upscale", "restore": "upscale", "face": "faces", "translate": "translate"}
"""Task of a network -> the command that takes it."""


def wrong_task(name: str, task: str) -> UsageError:
    """A network was given to a command that it is not for."""
    command = COMMANDS.get(task)
    cure = f"use it with: restorer {command}" if command else "no command takes it by itself"
    return UsageError(f"{name} is a '{task}' network; {cure}")
