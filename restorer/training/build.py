"""Recipe -> what plays: networks with their first weights, the objective, optimisers, the average."""

import copy
from pathlib import Path

import torch
from torch import nn

from restorer.api import open_model
from restorer.errors import UsageError, WeightsError
from restorer.networks.discriminators import UNetDiscriminatorConfig, build_discriminator, rename_discriminator
from restorer.networks.spec import Facts, StateDict, Traits, get_spec
from restorer.training.adversary import Adversary
from restorer.training.checkpoint import Parts, load_run
from restorer.training.degrade_faces import FaceDegradationConfig
from restorer.training.feature_losses import losses_of, open_features
from restorer.training.objective import Objective, Player, derived_seed
from restorer.training.pairing import margin_of
from restorer.training.recipe import Recipe
from restorer.training.super_resolution import SuperResolution
from restorer.weights.find import find_weights
from restorer.weights.read import RUN, read_checkpoint


def build_parts(recipe: Recipe, device: torch.device, *, trust_first_use: bool = False) -> Parts:
    """Everything that learns, in float32, on the device. The first weights follow from the seed."""
    with torch.random.fork_rng(), torch.device("cpu"):
        torch.manual_seed(derived_seed(recipe.train.seed, "first weights"))
        objective = build_objective(recipe, trust_first_use=trust_first_use)
    average = copy.deepcopy(objective.g).eval().requires_grad_(False)
    for network in (objective, average):
        network.to(device).to(memory_format=torch.channels_last)
    return Parts(objective=objective, optimisers=_optimisers(recipe, objective), average=average)


def build_objective(recipe: Recipe, *, trust_first_use: bool = False) -> Objective:
    """The players and what they want; learned weights only where the recipe starts from some."""
    generator = _generator(recipe)
    discriminator = _discriminator(recipe)
    weights = recipe.weights
    compared: dict[str, nn.Module] = {}
    if weights.perceptual or weights.style:
        features = open_features(recipe.features, trust_first_use=trust_first_use)
        compared |= losses_of(features, recipe.features, perceptual=weights.perceptual, style=weights.style)
    adversary = None if discriminator is None else Adversary(recipe.adversary)
    return SuperResolution(generator, discriminator, weights=weights, adversary=adversary, compared=compared)


def checked_traits(recipe: Recipe) -> Traits:
    """What the pictures of a run must be like; players that do not fit each other are refused."""
    traits = get_spec(recipe.network).traits(recipe.config)
    if traits.latent or not traits.makes_pictures or traits.fixed_size or traits.value_range != (0.0, 1.0):
        raise UsageError(f"{recipe.network} cannot be trained to enlarge pictures; choose another network")
    channels = [traits.in_channels, traits.out_channels]
    if recipe.discriminator is not None:
        channels.append(recipe.discriminator.channels)
    if set(channels) not in ({1}, {3}):
        raise UsageError(
            "pictures have 1 or 3 channels, the same for all players; generator's input, its output and discriminator "
            f"have {', '.join(map(str, channels))} here: set config.* and discriminator.channels to fit"
        )
    if isinstance(recipe.degradation, FaceDegradationConfig) and (traits.scale, set(channels)) != (1, {3}):
        raise UsageError("degradation.kind=face keeps the size of its pictures: for networks of scale 1, in colour")
    if margin_of(recipe.degradation) % traits.scale:
        raise UsageError(
            f"degradation.margin must be a multiple of the scale, {traits.scale}; got {margin_of(recipe.degradation)}"
        )
    if isinstance(recipe.discriminator, UNetDiscriminatorConfig) and recipe.data.crop % 8:
        raise UsageError(f"this discriminator takes sides that are multiples of 8, data.crop is {recipe.data.crop}")
    return traits


def facts_of(recipe: Recipe) -> Facts:
    """What the generator's weights do not say of its network: such as an activation without weights."""
    activation = getattr(recipe.config, "activation", None)
    return {} if activation is None else {"activation": activation}


def _generator(recipe: Recipe) -> nn.Module:
    network = get_spec(recipe.network).build(recipe.config)
    if recipe.start:
        model = open_model(recipe.start)
        if (model.spec.name, model.config) != (recipe.network, recipe.config):
            raise UsageError(
                f"start: '{recipe.start}' is {model.spec.name} with {model.config}, this recipe wants {recipe.network} "
                f"with {recipe.config}; choose the recipe or the config.* settings to fit"
            )
        network.load_state_dict(model.network.state_dict())
    return network.train().requires_grad_(True)


def _discriminator(recipe: Recipe) -> nn.Module | None:
    if recipe.discriminator is None:
        return None
    network = build_discriminator(recipe.discriminator)
    if recipe.discriminator_start:
        weights = _discriminator_weights(find_weights(recipe.discriminator_start).path)
        try:
            network.load_state_dict(dict(rename_discriminator(weights)))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"discriminator_start: {recipe.discriminator_start}: {reason}") from None
    return network


def _discriminator_weights(path: Path) -> StateDict:
    """Of a run's checkpoint the discriminator, of any other file all there is."""
    checkpoint = read_checkpoint(path)
    if checkpoint.wrapper != RUN:
        return checkpoint.weights
    return {name.removeprefix("d/"): tensor for name, tensor in load_run(path)[0].items() if name.startswith("d/")}


def _optimisers(recipe: Recipe, objective: Objective) -> dict[Player, torch.optim.Optimizer]:
    train = recipe.train
    players: list[tuple[Player, nn.Module, float]] = [
        ("g", objective.g, train.g_rate),
        ("d", objective.d, train.d_rate),
    ]
    return {
        player: torch.optim.Adam(list(network.parameters()), lr=rate, betas=train.betas, fused=True)
        for player, network, rate in players
        if next(network.parameters(), None) is not None
    }
