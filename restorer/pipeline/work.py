"""What a run over files needs of whatever it runs: a planner, its settings, and the work on one picture. Torch-free."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from restorer.pipeline.events import Event
from restorer.pipeline.picture import Picture, PictureInfo

if TYPE_CHECKING:
    from restorer.engines import Engine
    from restorer.pipeline.restore import Progress
    from restorer.pipeline.source import RowTaker


class Work(Protocol):
    """What is about to be done to one picture. After an error, `run` can go again."""

    size_out: tuple[int, int]

    @property
    def info(self) -> PictureInfo:
        """What the result is, but for its pixels."""

    def run(self, open_rows: "Callable[[], RowTaker]", *, progress: "Progress | None" = None) -> None:
        """Send finished rows to what `open_rows` gives; it is asked anew where the work begins anew."""

    def told(self) -> Event:
        """What a plan and a result say of it."""

    @property
    def notices(self) -> list[str]:
        """What should be said of the picture beside its result."""


@runtime_checkable
class Wanting(Protocol):
    """Work whose settings may name what a picture lacks."""

    @property
    def lacking(self) -> list[str]:
        """What it lacks, each in a sentence; said once a run, of what every picture lacks."""


class Planner(Protocol):
    """What a run needs of a Restorer, of Faces or of a Translator."""

    engine: "Engine"

    def plan(self, picture: Picture) -> Work:
        """What is about to be done to a picture."""


class Settings(Protocol):
    """What a run needs of the settings."""

    @property
    def model(self) -> str:
        """A name of the models' list, or a path."""

    @property
    def max_megapixels_in(self) -> float:
        """Larger inputs are refused."""

    def digest(self) -> str:
        """Equal settings, equal name."""
