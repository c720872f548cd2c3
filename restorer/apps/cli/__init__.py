"""The command line: one small file a command; mistakes become one line and an exit status. No torch until it is needed.

Exit 0: everything asked for exists. 1: something could not be done. 2: wrong usage. 130 and 143: interrupted, terminated.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from restorer.apps.cli import doctor, models, screen, upscale
from restorer.errors import RestorerError, UsageError

WrongUsage = typer.BadParameter.__mro__[2]
"""What typer raises for any mistake in the words of a command."""

app = typer.Typer(
    name="restorer",
    help="Restore, upscale and translate pictures with GANs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale", no_args_is_help=True)(upscale.upscale)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


class Terminated(BaseException):
    """SIGTERM, on its way to a clean end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    screen.keep_native_noise_off()
    try:
        status = app(args=list(sys.argv[1:] if argv is None else argv), standalone_mode=False)
    except UsageError as e:
        return _told(str(e), 2)
    except RestorerError as e:
        return _told(str(e), 1)
    except KeyboardInterrupt:
        return _told("interrupted; what was finished is kept", 130)
    except Terminated:
        return _told("terminated; what was finished is kept", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing is left to flush
        return 1
    except typer.Abort:
        return 130
    except WrongUsage as e:
        return _told(f"{e.format_message()}; see --help", 2)  # type: ignore[attr-defined]
    return status if isinstance(status, int) else 0


def _told(message: str, status: int) -> int:
    screen.tell(message)
    return status


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def entry() -> None:
    """The console script."""
    sys.exit(main())
