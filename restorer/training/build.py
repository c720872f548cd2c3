"""Recipe -> what plays: networks with their first weights, the objective, optimisers, the average."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from restorer.api import open_model
from restorer.errors import UsageError, WeightsError
from restorer.networks.discriminators import UNetDiscriminatorConfig, rename_discriminator
from restorer.networks.spec import Facts, StateDict, Traits, get_spec
from restorer.training.checkpoint import Parts, load_run
from restorer.training.games import game_of
from restorer.training.objective import Objective, Player, derived_seed
from restorer.training.recipe import Recipe
from restorer.training.sources import refusal_of_data
from restorer.weights.find import find_weights
from restorer.weights.read import RUN, read_checkpoint

EPSILON = 1e-8
"""Of Adam."""


@runtime_checkable
class HasRates(Protocol):
    """A network whose parameters do not all learn at one rate."""

    def rates(self) -> dict[str, float]:
        """Parameter -> factor of the player's rate; 1 for those not in it."""


def build_parts(recipe: Recipe, device: torch.device, *, trust_first_use: bool = False, resumed: bool = False) -> Parts:
    """Everything that learns, in float32, on the device. The first weights follow from the seed.

    `resumed`: a checkpoint brings all weights, and what the recipe starts from is not opened; it may be gone by now.
    """
    with torch.random.fork_rng(), torch.device("cpu"):
        torch.manual_seed(derived_seed(recipe.train.seed, "first weights"))
        objective = build_objective(recipe, trust_first_use=trust_first_use, resumed=resumed)
    average = copy.deepcopy(objective.g).eval().requires_grad_(False)
    layout = layout_of(get_spec(recipe.network).traits(recipe.config), device)
    for network in (objective, average):
        network.to(device).to(memory_format=layout)
    return Parts(objective=objective, optimisers=_optimisers(recipe, objective), average=average)


def layout_of(traits: Traits, device: torch.device) -> torch.memory_format:
    """How weights and pictures lie in memory while this generator learns."""
    last = traits.learns_channels_last or device.type != "cpu"
    return torch.channels_last if last else torch.contiguous_format


def in_layout(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """(N, C, H, W) -> same, which lies so; what is no picture as it is."""
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor


def build_objective(recipe: Recipe, *, trust_first_use: bool = False, resumed: bool = False) -> Objective:
    """The players and what they want; learned weights only where the recipe starts from some, and is not resumed."""
    game = game_of(recipe.weights)
    make = game.resumed if resumed and game.resumed is not None else game.objective
    begun = replace(recipe, start="", discriminator_start="") if resumed else recipe
    return make(recipe, _generator(begun), _discriminator(begun), trust_first_use)


def checked_traits(recipe: Recipe) -> Traits:
    """What the pictures of a run must be like; players that do not fit each other or the game are refused."""
    traits = get_spec(recipe.network).traits(recipe.config)
    game = game_of(recipe.weights)
    reason = refusal_of_data(recipe.data, game, degraded=recipe.degradation is not None)
    reason = reason or game.refusal(recipe, traits)
    if reason is not None:
        raise UsageError(reason)
    if isinstance(recipe.discriminator, UNetDiscriminatorConfig) and recipe.data.crop % 8:
        raise UsageError(f"this discriminator takes sides that are multiples of 8, data.crop is {recipe.data.crop}")
    least = getattr(recipe.discriminator, "least", 1)
    if recipe.data.crop < least:
        raise UsageError(f"this discriminator takes pictures of side {least} or more, data.crop is {recipe.data.crop}")
    return traits


def facts_of(recipe: Recipe) -> Facts:
    """What the generator's weights do not say of its network: such as an activation without weights, or dropout."""
    told = {
        "activation": getattr(recipe.config, "activation", None),
        "dropout": getattr(recipe.config, "dropout", None),
    }
    return {name: value for name, value in told.items() if value is not None}


def _generator(recipe: Recipe) -> nn.Module:
    network = game_of(recipe.weights).generator(recipe)
    if recipe.start:
        part, weights = _start_of(network, recipe)
        _load(part, weights, f"start: {recipe.start}")
    return network.train().requires_grad_(True)


def _start_of(network: nn.Module, recipe: Recipe) -> tuple[nn.Module, StateDict]:
    """-> (what the recipe's start is loaded into, its weights)."""
    if isinstance(network, nn.ModuleDict):
        weights = read_checkpoint(find_weights(recipe.start).path).weights
        if _place_of(weights, network) is network:
            return network, weights
    told = {"resampling": getattr(recipe.config, "resampling", None)}  # which some published files leave to be told
    told |= {"dropout": getattr(recipe.config, "dropout", None)}
    model = open_model(recipe.start, facts={name: value for name, value in told.items() if value is not None})
    if (model.spec.name, model.config) != (recipe.network, recipe.config):
        raise UsageError(
            f"start: '{recipe.start}' is {model.spec.name} with {model.config}, this recipe wants {recipe.network} "
            f"with {recipe.config}; choose the recipe or the config.* settings to fit"
        )
    weights = model.network.state_dict()
    return _place_of(weights, network), weights


def _place_of(weights: StateDict, network: nn.Module) -> nn.Module:
    """What weights are loaded into: all of a player, or its first network where they are those of one of several."""
    if not isinstance(network, nn.ModuleDict) or any(name.partition(".")[0] in network for name in weights):
        return network
    return next(iter(network.values()))


def _load(network: nn.Module, weights: StateDict, what: str) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{what}: {reason}") from None


def _discriminator(recipe: Recipe) -> nn.Module | None:
    network = game_of(recipe.weights).discriminator(recipe)
    if network is None or not recipe.discriminator_start:
        return network
    assert recipe.discriminator is not None
    weights = _discriminator_weights(find_weights(recipe.discriminator_start).path)
    renamed = rename_discriminator(weights, recipe.discriminator)
    _load(_place_of(weights, network), renamed, f"discriminator_start: {recipe.discriminator_start}")
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
