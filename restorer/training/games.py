"""Every kind of game: what `weights` of a recipe may be, and how the loop plays it."""

from collections.abc import Mapping

from restorer.training.face_restoration import FACE_RESTORATION, FaceWeights
from restorer.training.game import Game
from restorer.training.generation import GENERATION, GenerationWeights
from restorer.training.paired import PAIRED, PairedWeights
from restorer.training.super_resolution import RESTORATION, RestorationWeights
from restorer.training.unpaired import UNPAIRED, UnpairedWeights

Weights = RestorationWeights | GenerationWeights | FaceWeights | PairedWeights | UnpairedWeights
"""How much each wish counts, of any game."""
WEIGHTS: Mapping[str, type[Weights]] = {
    "restoration": RestorationWeights,
    "generation": GenerationWeights,
    "face": FaceWeights,
    "paired": PairedWeights,
    "unpaired": UnpairedWeights,
}
"""Kind -> its weights."""
_GAMES: Mapping[str, Game] = {
    "restoration": RESTORATION,
    "generation": GENERATION,
    "face": FACE_RESTORATION,
    "paired": PAIRED,
    "unpaired": UNPAIRED,
}


def game_of(weights: Weights) -> Game:
    """The game that these weights are for."""
    return _GAMES[weights.kind]
