"""Every kind of pictures to learn from: what `data` of a recipe may be, and how it is opened."""

from collections.abc import Mapping

from restorer.networks.spec import Traits
from restorer.training.data import CropSource, DataConfig, Source
from restorer.training.game import Game
from restorer.training.translation_data import TranslationDataConfig, TranslationSource

Data = DataConfig | TranslationDataConfig
"""Which pictures, and what is cut out of them."""
DATA: Mapping[str, type[Data]] = {"pictures": DataConfig, "translation": TranslationDataConfig}
"""Kind -> its config."""


def open_source(
    data: Data, traits: Traits, game: Game, *, seed: int, processes: int = 1, margin: int = 0
) -> CropSource:
    """Open what a game is played on. `processes` share the memory; `margin` is what is cut out around each crop."""
    if isinstance(data, TranslationDataConfig):
        return TranslationSource(data, traits, seed=seed, processes=processes, aligned=game.aligned)
    return Source(data, traits, seed=seed, processes=processes, margin=margin, whole=game.whole)


def refusal_of_data(data: Data, game: Game, *, degraded: bool) -> str | None:
    """Why a game cannot be played on these pictures, with the cure; None where it can. No file is looked at."""
    if data.kind != game.data:
        return f"this game is played on data.kind={game.data}, and the recipe has {data.kind}; set one to fit"
    if not isinstance(data, TranslationDataConfig):
        return None
    if degraded:
        return "the two domains are what is learned from, and nothing is degraded: set degradation=none"
    if game.aligned and data.layout == "unaligned":
        return "this game needs pairs, and data.layout=unaligned has none; choose aligned or folders, or another game"
    return None
