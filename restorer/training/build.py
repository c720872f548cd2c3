"""Recipe -> what plays: networks with their first weights, the objective, optimisers, the average."""

import copy
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from restorer.api import open_model
from restorer.errors import UsageError, WeightsError
from restorer.networks.discriminators import UNetDiscriminatorConfig, rename_discriminator
from restorer.networks.spec import Facts, StateDict, Traits, get_spec
from restorer.training.checkpoint import Parts, load_run
from restorer.training.face_restoration import WHOLE
from restorer.training.games import game_of
from restorer.training.objective import Objective, Player, derived_seed
from restorer.training.recipe import Recipe
from restorer.weights.find import find_weights
from restorer.weights.read import RUN, read_checkpoint

EPSILON = 1e-8
"""Of Adam."""


@runtime_checkable
class HasRates(Protocol):
    """A network whose parameters do not all learn at one rate."""

    def rates(self) -> dict[str, float]:
        """Parameter -> factor of the player's rate; 1 for those not in it."""


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
    return game_of(recipe.weights).objective(recipe, _generator(recipe), _discriminator(recipe), trust_first_use)


def checked_traits(recipe: Recipe) -> Traits:
    """What the pictures of a run must be like; players that do not fit each other or the game are refused."""
    traits = get_spec(recipe.network).traits(recipe.config)
    reason = game_of(recipe.weights).refusal(recipe, traits)
    if reason is not None:
        raise UsageError(reason)
    if isinstance(recipe.discriminator, UNetDiscriminatorConfig) and recipe.data.crop % 8:
        raise UsageError(f"this discriminator takes sides that are multiples of 8, data.crop is {recipe.data.crop}")
    least = getattr(recipe.discriminator, "least", 1)
    if recipe.data.crop < least:
        raise UsageError(f"this discriminator takes pictures of side {least} or more, data.crop is {recipe.data.crop}")
    return traits


def facts_of(recipe: Recipe) -> Facts:
    """What the generator's weights do not say of its network: such as an activation without weights."""
    activation = getattr(recipe.config, "activation", None)
    return {} if activation is None else {"activation": activation}


def _generator(recipe: Recipe) -> nn.Module:
    network = get_spec(recipe.network).build(recipe.config)
    if recipe.start:
        resampling = getattr(recipe.config, "resampling", None)  # which some published files leave to be told
        model = open_model(recipe.start, facts={} if resampling is None else {"resampling": resampling})
        if (model.spec.name, model.config) != (recipe.network, recipe.config):
            raise UsageError(
                f"start: '{recipe.start}' is {model.spec.name} with {model.config}, this recipe wants {recipe.network} "
                f"with {recipe.config}; choose the recipe or the config.* settings to fit"
            )
        network.load_state_dict(model.network.state_dict())
    return network.train().requires_grad_(True)


def _discriminator(recipe: Recipe) -> nn.Module | None:
    network = game_of(recipe.weights).discriminator(recipe)
    if network is None or not recipe.discriminator_start:
        return network
    assert recipe.discriminator is not None
    weights = _discriminator_weights(find_weights(recipe.discriminator_start).path)
    holds_all = any(name.startswith(f"{WHOLE}.") for name in weights)  # others hold one network
    first = network[WHOLE] if isinstance(network, nn.ModuleDict) and not holds_all else network
    try:
        first.load_state_dict(dict(rename_discriminator(weights, recipe.discriminator)))
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
        player: torch.optim.Adam(groups_of(network, rate), lr=rate, betas=train.betas, fused=True)
        for player, network, rate in players
        if next(network.parameters(), None) is not None
    }


def groups_of(network: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameters that learn, by the factor of their rate, which each group keeps as `factor`.

    A part of a network that wants its own factors has a method `rates`, parameter -> factor, such as StyleGAN2's.
    Adam's epsilon is divided by it: then steps are those of weights that are multiplied with the factor at run time.
    """
    factors: dict[str, float] = {}
    for prefix, part in network.named_modules():
        if isinstance(part, HasRates):
            factors |= {f"{prefix}.{name}".removeprefix("."): factor for name, factor in part.rates().items()}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    return [
        {"params": each, "lr": rate * factor, "factor": factor, "eps": EPSILON / factor}
        for factor, each in groups.items()
    ]
