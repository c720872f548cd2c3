"""A picture resampled plainly to another size, streamed: what stands around faces where no network is asked for."""

from collections.abc import Callable

from restorer.pipeline.events import Event
from restorer.pipeline.finish import CHUNK, Quantise, plain_rows
from restorer.pipeline.picture import Picture
from restorer.pipeline.plan import Box
from restorer.pipeline.restore import Progress
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.source import PictureSource, RowTaker


class Plain:
    """One picture's plan: see Work."""

    def __init__(self, picture: Picture, settings: UpscaleSettings) -> None:
        self.picture, self.settings = picture, settings
        self.size_in = picture.size
        self.size_out = settings.output_size(self.size_in, 1)

    @property
    def pixels(self) -> int:
        """What `progress` counts to."""
        return self.size_in[0] * self.size_in[1]

    def run(self, open_rows: Callable[[], RowTaker], *, progress: Progress | None = None) -> None:
        """Send the rows to what `open_rows` gives."""
        take = open_rows()
        source = PictureSource(self.picture, wrap=self.settings.wrap)
        height, width = self.size_out
        last = Quantise(source.dtype, take)
        for start in range(0, height, CHUNK):
            stop = min(start + CHUNK, height)
            if self.size_out == self.size_in:
                take(source.read(Box(start, 0, stop, width)).copy())  # whoever takes rows may write into them
            else:
                last.push(plain_rows(source, self.size_out, start, stop, wrap=self.settings.wrap))
            if progress is not None:
                progress(self.pixels * stop // height, self.pixels)

    def told(self) -> Event:
        """What a plan and a result say of it; sizes are (width, height)."""
        return {
            "engine": "none",
            "precision": "fp32",
            "device": "cpu",
            "size_in": [self.size_in[1], self.size_in[0]],
            "size_out": [self.size_out[1], self.size_out[0]],
            "passes": 0,
            "tile": [self.size_in[1], self.size_in[0]],
            "tiles": 1,
            "estimated_seconds": 0.0,
        }
