"""A run on disk: everything that its next step depends on, in one file that appears whole or not at all.

Names in the file: g/NAME and d/NAME for the players, average/NAME, objective/NAME for what the objective remembers,
g_optimiser/NUMBER/STATE and d_optimiser/NUMBER/STATE. Schedules, chance and the place in the data follow from the step.
`restorer upscale` and `restorer export` take such a file as it is: they read the average.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restorer.errors import WeightsError
from restorer.networks.spec import listed
from restorer.training.objective import Objective, Player
from restorer.weights.safe import read_safetensors, write_safetensors

log = logging.getLogger(__name__)
_PLAYERS: tuple[Player, Player] = ("g", "d")


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """What a run consists of."""

    objective: Objective
    optimisers: Mapping[Player, torch.optim.Optimizer]
    average: nn.Module


def save_run(folder: Path, parts: Parts, *, step: int, recipe: Mapping[str, Any], facts: Mapping[str, object]) -> Path:
    """Write the state after `step` steps. `facts` are what the generator's weights do not say of their network."""
    path = folder / f"step-{step:07d}.safetensors"
    told = {**facts, "training": {"step": step, "recipe": dict(recipe)}}
    write_safetensors(path, _state(parts), told)
    return path


def load_run(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of a run. -> (its tensors, {"step": ..., "recipe": ...})"""
    with path.open("rb") as file:
        tensors, facts = read_safetensors(file, path.stat().st_size)
    told = facts.get("training")
    if not isinstance(told, dict) or not isinstance(told.get("step"), int) or not isinstance(told.get("recipe"), dict):
        raise WeightsError(f"{path.name}: is no checkpoint of a run; give one that `restorer train` wrote")
    return tensors, told


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; torn ones are named and passed over. None where there is none."""
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            load_run(path)
        except (WeightsError, OSError) as error:
            log.warning("%s: %s; an older one is used", path.name, error)
        else:
            return path
    return None


def remove_older(folder: Path, *, keep: int) -> None:
    """Leave the newest `keep` checkpoints."""
    for path in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        path.unlink(missing_ok=True)


def restore_run(parts: Parts, tensors: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's tensors back where they came from; one too few, too many or of another shape is refused."""
    _load("the generator", parts.objective.g, _under(tensors, "g/"))
    _load("the discriminator", parts.objective.d, _under(tensors, "d/"))
    _load("the average", parts.average, _under(tensors, "average/"))
    remembered, saved = _remembered(parts.objective), _under(tensors, "objective/")
    _check("what the game remembers", remembered, saved)
    for name, tensor in saved.items():
        remembered[name].copy_(tensor)
    for player, optimiser in parts.optimisers.items():
        _restore_optimiser(optimiser, _under(tensors, f"{player}_optimiser/"))


def _state(parts: Parts) -> dict[str, Tensor]:
    state = {f"{player}/{name}": value for player in _PLAYERS for name, value in _network(parts, player).items()}
    state |= {f"average/{name}": value for name, value in parts.average.state_dict().items()}
    state |= {f"objective/{name}": value for name, value in _remembered(parts.objective).items()}
    for player, optimiser in parts.optimisers.items():
        for number, entries in optimiser.state_dict()["state"].items():
            state |= {f"{player}_optimiser/{number}/{name}": value for name, value in entries.items()}
    return state


def _network(parts: Parts, player: Player) -> dict[str, Tensor]:
    return (parts.objective.g if player == "g" else parts.objective.d).state_dict()


def _remembered(objective: Objective) -> dict[str, Tensor]:
    """What the objective holds beside the players."""
    state: dict[str, Tensor] = objective.state_dict(keep_vars=True)
    return {name: value.detach() for name, value in state.items() if not name.startswith(("g.", "d."))}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load(what: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    _check(what, network.state_dict(), tensors)
    network.load_state_dict(dict(tensors))


def _check(what: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    wrong = [name for name in expected if name not in tensors or tensors[name].shape != expected[name].shape]
    wrong += [name for name in tensors if name not in expected]
    if wrong:
        raise WeightsError(
            f"the checkpoint does not hold {what} of this recipe ({listed(wrong)}); resume it with its own recipe"
        )


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Each entry gets the memory layout of its parameter: fused optimisers walk through memory, not through indices."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, entry = name.split("/", 1)
        if int(number) >= len(parameters) or value.shape not in ((), parameters[int(number)].shape):
            raise WeightsError("the checkpoint's optimiser has other parameters than this recipe; resume with its own")
        like = parameters[int(number)] if value.shape else value
        state.setdefault(int(number), {})[entry] = torch.empty_like(like, requires_grad=False).copy_(value)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
