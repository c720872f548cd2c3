"""The game of GFPGAN: near the truth, one person's face, and taken for real as a whole and in eyes and mouth.

Faces are aligned (arXiv:2101.04061). Letters: N batch, S side of a face.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.api import open_model
from restorer.errors import AmbiguousWeightsError, UsageError, unknown_name
from restorer.losses.adversarial import Logits, gan_loss
from restorer.losses.components import PARTS, Part, component_style, crop, places
from restorer.losses.identity import Identity
from restorer.losses.pixel import PIXEL_LOSSES, pixel_loss
from restorer.networks.arcface import ArcFace, ArcFaceConfig
from restorer.networks.discriminators import build_discriminator
from restorer.networks.face_discriminators import ComponentDiscriminator, ComponentDiscriminatorConfig
from restorer.networks.gfpgan import GFPGAN, GFPGANConfig
from restorer.networks.spec import Model, Traits, at_least_one
from restorer.networks.style_layers import Synthesis, halved
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config
from restorer.training.adversary import Adversary
from restorer.training.data import DataConfig
from restorer.training.feature_losses import looking_through
from restorer.training.game import Game
from restorer.training.objective import Batch, Now, Objective, Penalty, Player, Terms
from restorer.training.super_resolution import RESTORATION, pairs_of, refusal_of_pairs
from restorer.weights.find import find_weights

if TYPE_CHECKING:
    from restorer.training.recipe import Recipe

WHOLE = "whole"
"""The discriminator that sees all of the face; the others are called as `PARTS`."""
SMALLEST = 32
"""The smallest side of a face that components can be looked at in."""
_WITHOUT = "set weights.component=0 and weights.component_style=0"


@dataclass(frozen=True, kw_only=True)
class FaceWeights:
    """Numbers of GFPGAN v1; zero leaves a thing out."""

    kind: Literal["face"] = "face"
    pixel: float = 0.1
    pixel_kind: str = "l1"
    """A name of `PIXEL_LOSSES`."""
    pyramid: float = 1.0
    """Of what the U-Net alone makes of the face, at every size."""
    pyramid_steps: int = 50_000
    """Steps after which the pyramid counts no more."""
    perceptual: float = 1.0
    style: float = 50.0
    adversarial: float = 0.1
    """Of the discriminator that sees all of the face."""
    component: float = 1.0
    """Of each discriminator of eyes and mouth."""
    component_style: float = 200.0
    """Of the features of these discriminators."""
    component_features: int = 64
    """Channels of their first layer."""
    identity: float = 10.0
    identity_network: str = "arcface-resnet18"
    """A model's name or a file: the network that tells people apart."""
    painter: str = ""
    """A model's name or a file: the StyleGAN2 of faces that the painter begins as."""
    train_painter: bool = False
    """The painter learns, too; as published it keeps what it knew of faces."""

    def __post_init__(self) -> None:
        if self.pixel_kind not in PIXEL_LOSSES:
            raise unknown_name("pixel loss", self.pixel_kind, PIXEL_LOSSES)
        if self.pyramid_steps < 0:
            raise ValueError(f"pyramid_steps must not be negative, got {self.pyramid_steps}")
        at_least_one(component_features=self.component_features)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The components that have discriminators of their own."""
        return PARTS if self.component or self.component_style else ()

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted of the generator."""
        near = self.pixel or self.perceptual or self.style or self.identity or (self.pyramid and self.pyramid_steps)
        return not (near or self.adversarial or self.parts)


class FaceRestoration(Objective):
    """Batch: `low` and `high` (N, 3, S, S) in [0, 1].

    Pixels and the pyramid are held against the truth in the generator's own range, [-1, 1], which makes an L1 twice as
    large: so the published weights mean what they meant. The losses in `compared` were published over [0, 1]. R1 is
    taken over [0, 1], where its square is 4 times that over [-1, 1]: the published weight 10 is 2.5 here.
    """

    d: nn.ModuleDict

    def __init__(
        self,
        g: GFPGAN,
        d: nn.ModuleDict | None,
        *,
        weights: FaceWeights,
        adversary: Adversary | None = None,
        compared: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """`d` has `WHOLE` where there is an adversary, and a `ComponentDiscriminator` for each of `weights.parts`.

        `compared` are the losses that have networks of their own: name -> (fake, truth) -> (), weighted inside.
        """
        super().__init__()
        self.g, self.d = g, nn.ModuleDict() if d is None else d
        self.weights, self.adversary = weights, adversary
        self.compared = nn.ModuleDict(compared or {})
        self.component_loss = gan_loss("non_saturating")
        self.places = places(g.config.side)
        expected = {*weights.parts, *([] if adversary is None else [WHOLE])}
        assert set(self.d) == expected, f"discriminators are {sorted(self.d)}, the weights need {sorted(expected)}"
        if not weights.train_painter:
            g.painter.requires_grad_(False)

    def imagine(self, batch: Batch, now: Now) -> Batch:
        """`fake` (N, 3, S, S), and while the pyramid counts `pyramid_8`, `pyramid_16`, ... to S; all in [0, 1].

        The painter's noise is drawn anew, as published.
        """
        generator = self._generator
        noise = generator.painter.fresh_noise(len(batch["low"]), now.rng)
        face, features = generator.painted(_spread(batch["low"]), noise)
        made = {"fake": _narrow(face)}
        if self._pyramid_counts(now):
            levels = [level.to(face.dtype) for level in generator.pyramid(features)]
            made |= {f"pyramid_{level.shape[-1]}": _narrow(level) for level in levels}
        return made

    def g_terms(self, batch: Batch, now: Now) -> Terms:
        """Pixel, pyramid, features and identity, adversary, components."""
        fake, truth, weights = batch["fake"], batch["high"], self.weights
        terms: Terms = {}
        if weights.pixel:
            terms["g/pixel"] = weights.pixel * pixel_loss(weights.pixel_kind, _spread(fake), _spread(truth))
        if self._pyramid_counts(now):
            terms["g/pyramid"] = weights.pyramid * _pyramid_loss(batch)
        for name, loss in self.compared.items():
            terms[f"g/{name}"] = loss(fake, truth)
        if self.adversary is not None:
            terms["g/adversarial"] = weights.adversarial * self.adversary.g_term(self.d[WHOLE], truth, fake, now)
        for part in weights.parts:
            terms |= self._part_terms(part, fake, truth)
        return terms

    def d_terms(self, batch: Batch, now: Now) -> Terms:
        """The adversary's, and one for each component."""
        fake, truth = batch["fake"], batch["high"]
        terms: Terms = {}
        if self.adversary is not None:
            terms["d/adversarial"] = self.adversary.d_term(self.d[WHOLE], truth, fake, now)
        for part in self.weights.parts:
            real, made = (self.d[part](crop(faces, *self.places[part])) for faces in (truth, fake))
            terms[f"d/{part}"] = self.component_loss.d(real, made)
        return terms

    def penalties(self) -> Mapping[str, Penalty]:
        """The adversary's; components pay none."""
        return {} if self.adversary is None else self.adversary.penalties(self.d[WHOLE], ("high", "fake"))

    def after(self, player: Player, now: Now) -> None:
        """Clip the discriminator of the whole face where that was asked for."""
        if player == "d" and self.adversary is not None:
            self.adversary.after(self.d[WHOLE])

    def logits(self, batch: Batch, now: Now) -> tuple[Logits, Logits] | None:
        """Of `high` and `fake`, as they are and as a whole."""
        return None if self.adversary is None else (self.d[WHOLE](batch["high"]), self.d[WHOLE](batch["fake"]))

    def _part_terms(self, part: Part, fake: Tensor, truth: Tensor) -> Terms:
        """What one component wants of the generator."""
        weights, judge, place = self.weights, self.d[part], self.places[part]
        assert isinstance(judge, ComponentDiscriminator)
        logits, features = judge.judged(crop(fake, *place))
        terms: Terms = {}
        if weights.component:
            terms[f"g/{part}"] = weights.component * self.component_loss.g(None, logits)
        if weights.component_style:
            with torch.no_grad():
                _, real = judge.judged(crop(truth, *place))
            terms[f"g/{part}_style"] = weights.component_style * component_style(features, real)
        return terms

    def _pyramid_counts(self, now: Now) -> bool:
        return self.weights.pyramid > 0 and now.step < self.weights.pyramid_steps

    @property
    def _generator(self) -> GFPGAN:
        assert isinstance(self.g, GFPGAN)
        return self.g


def _pyramid_loss(batch: Batch) -> Tensor:
    """L1 of every size of the pyramid, added up; the truth is halved again and again."""
    losses, truth = [], _spread(batch["high"])
    while (name := f"pyramid_{truth.shape[-1]}") in batch:
        losses.append(F.l1_loss(_spread(batch[name]), truth))
        truth = halved(truth, "bilinear")
    return torch.stack(losses).sum()


def _spread(x: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return 2 * x - 1


def _narrow(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return (x + 1) / 2


def _refusal(recipe: "Recipe", traits: Traits) -> str | None:
    return _refusal_of_faces(recipe) or _refusal_of_wishes(recipe) or refusal_of_pairs(recipe, traits)


def _refusal_of_faces(recipe: "Recipe") -> str | None:
    """Why the generator cannot learn from these pictures."""
    if recipe.network != "gfpgan":
        return f"{recipe.network} restores no aligned faces; choose network=gfpgan, or another weights.kind"
    side = recipe.config.side
    if recipe.data.crop != side:
        return f"this generator takes faces of side {side}, data.crop is {recipe.data.crop}; set one to fit"
    assert isinstance(recipe.data, DataConfig), "checked before"
    if recipe.data.turn:
        return "aligned faces stand upright: set data.turn=false"
    if recipe.degradation is None and not recipe.data.low:
        return "nothing is damaged here: set degradation.kind=face, or data.low to damaged faces"
    return None


def _refusal_of_wishes(recipe: "Recipe") -> str | None:
    """Why the weights cannot be had of these players."""
    weights = recipe.weights
    assert isinstance(weights, FaceWeights)
    if weights.painter and recipe.start:
        return "start brings a painter of its own: set start or weights.painter, not both"
    if weights.parts and recipe.discriminator is None:
        return f"eyes and mouth have discriminators, and this recipe has none: {_WITHOUT}"
    if weights.parts and recipe.config.side < SMALLEST:
        return f"faces of side {recipe.config.side} are too small to look at eyes and mouth: {_WITHOUT}"
    return None


def _discriminator(recipe: "Recipe") -> nn.Module | None:
    """The recipe's for the whole face, and one for each component."""
    weights = recipe.weights
    assert isinstance(weights, FaceWeights)
    if recipe.discriminator is None:
        return None
    config = ComponentDiscriminatorConfig(features=weights.component_features)
    players: dict[str, nn.Module] = {WHOLE: build_discriminator(recipe.discriminator)}
    return nn.ModuleDict(players | {part: ComponentDiscriminator(config) for part in weights.parts})


def _objective(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    weights = recipe.weights
    assert isinstance(weights, FaceWeights) and isinstance(g, GFPGAN) and (d is None or isinstance(d, nn.ModuleDict))
    if not (weights.painter or recipe.start or weights.train_painter):
        raise UsageError(
            "the painter is held still and knows no faces yet: set weights.painter to a StyleGAN2, start, or "
            "weights.train_painter=true"
        )
    if weights.painter:
        g.painter.load_state_dict(_painter(weights.painter, g.config, trust_first_use).state_dict())
    return _resumed(recipe, g, d, trust_first_use)


def _resumed(recipe: "Recipe", g: nn.Module, d: nn.Module | None, trust_first_use: bool) -> Objective:
    """The players as they are, which a checkpoint fills; what looks at faces without learning is in none."""
    weights = recipe.weights
    assert isinstance(weights, FaceWeights) and isinstance(g, GFPGAN) and (d is None or isinstance(d, nn.ModuleDict))
    told_apart = {"identity": _identity(weights, trust_first_use)} if weights.identity else {}
    compared = looking_through(
        recipe.features, perceptual=weights.perceptual, style=weights.style, trust_first_use=trust_first_use
    )
    adversary = None if d is None else Adversary(recipe.adversary)
    return FaceRestoration(g, d, weights=weights, adversary=adversary, compared=compared | told_apart)


def _opened(name: str, trust_first_use: bool) -> Model:
    """A model; where its weights must be downloaded, trust is given here."""
    find_weights(name, trust_first_use=trust_first_use)
    return open_model(name)


def _painter(name: str, config: GFPGANConfig, trust_first_use: bool) -> Synthesis:
    """The part of a StyleGAN2 that paints, if it is one that fits; weights that do not tell resample as recipes say."""
    try:
        model = _opened(name, trust_first_use)
    except AmbiguousWeightsError:
        model = open_model(name, facts={"resampling": config.resampling})
    told = f"weights.painter: '{name}' is {model.spec.name}"
    if not isinstance(model.network, StyleGAN2):
        raise UsageError(f"{told}; give a StyleGAN2 of faces")
    have, want = _shape_of(model.network.config), _shape_of(config)
    if have != want:
        raise UsageError(f"{told} with {have}, this recipe wants {want}; set config.* to fit")
    return model.network.synthesis


def _shape_of(config: StyleGAN2Config | GFPGANConfig) -> str:
    return f"widths {config.widths}, style {config.style} and resampling {config.resampling}"


def _identity(weights: FaceWeights, trust_first_use: bool) -> Identity:
    model = _opened(weights.identity_network, trust_first_use)
    if model.spec.task != "identity":
        raise UsageError(
            f"weights.identity_network: '{weights.identity_network}' is {model.spec.name}, which does not tell people "
            "apart; give arcface-resnet18 or a file of such weights"
        )
    return Identity(model.network, side=model.config.side, weight=weights.identity)


def _rehearsed(recipe: "Recipe", g: nn.Module, d: nn.Module | None, given: Tensor) -> Tensor:
    """The face, its components, and who it is; these as for the published network, whose file is not opened."""
    weights, made = recipe.weights, g(given)
    assert isinstance(weights, FaceWeights)
    if isinstance(d, nn.ModuleDict):
        d[WHOLE](made)
        for part in weights.parts:
            side = places(recipe.config.side)[part].side
            d[part](made[..., :side, :side])  # any part of this size: only shapes count
    if weights.identity:
        Identity(ArcFace(ArcFaceConfig()), weight=weights.identity)(made, made)
    return made


@torch.no_grad()
def _columns(average: nn.Module, batch: Batch) -> list[Tensor]:
    """With the noise that is stored in the weights."""
    return [batch["low"], _narrow(average(_spread(batch["low"]))).clamp(0, 1), batch["high"]]


FACE_RESTORATION = Game(
    refusal=_refusal,
    objective=_objective,
    pair=pairs_of,
    columns=_columns,
    caption=RESTORATION.caption,
    discriminator=_discriminator,
    resumed=_resumed,
    rehearsed=_rehearsed,
    whole=True,
)
