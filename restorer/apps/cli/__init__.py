"""The command line: one small file a command; mistakes become one line and an exit status. No torch before its time.

Exit 0: everything asked for exists. 1: something could not be done. 2: wrong usage. 130, 143: interrupted, terminated.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import cast

import typer

from restorer.apps.cli import degrade, doctor, evaluate, export, faces, models, screen, train, translate, upscale
from restorer.errors import RestorerError, UsageError, WriteError

WrongUsage: type[Exception] = typer.BadParameter.__mro__[2]
"""What typer raises for any mistake in the words of a command."""
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

app = typer.Typer(
    name="restorer",
    help="Restore, upscale and translate pictures with GANs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale", no_args_is_help=True)(upscale.upscale)
app.command("faces", no_args_is_help=True)(faces.faces)
app.command("translate", no_args_is_help=True)(translate.translate)
app.command("export", no_args_is_help=True)(export.export)
app.command("train", no_args_is_help=True)(train.train)
app.command("evaluate", no_args_is_help=True)(evaluate.evaluate)
app.command("degrade", no_args_is_help=True)(degrade.degrade)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


class Stopped(BaseException):
    """A signal of SIGNALS, on its way to a clean end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status, self.how = 128 + number, SIGNALS[signal.Signals(number)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        with screen.native_noise_off(), screen.warnings_told(screen.tell), _stoppable():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except Stopped as e:
        return _told(f"{e.how}; what was finished is kept", e.status)


def _run(arguments: list[str]) -> int:
    try:
        status = app(args=arguments, standalone_mode=False)
    except RestorerError as e:
        if isinstance(e, WriteError):
            _forget_stdout()
        return _told(str(e), 2 if isinstance(e, UsageError) else 1)
    except screen.Unheard:
        _forget_stdout()
        return 1
    except WrongUsage as e:
        words = cast(typer.BadParameter, e).format_message().rstrip(".")
        return _told(f"{words}; see --help", 2) if words else 2  # no words: the help was shown instead
    return status if isinstance(status, int) else 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let signals end the command as exceptions do, for a while; one that is ignored stays so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _forget_stdout() -> None:
    """What could not be written is not tried again, with another message, when Python ends."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _told(message: str, status: int) -> int:
    screen.tell(message)
    return status


def entry() -> None:
    """The console script."""
    sys.exit(main())
