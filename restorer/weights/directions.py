"""Which generator goes the way that is asked for: CycleGAN's come as pairs of opposites. Torch-free."""

from pathlib import Path

from restorer.errors import UsageError
from restorer.weights.translation_records import opposite

SIBLINGS = (("a2b", "b2a"), ("b2a", "a2b"), ("_G_A", "_G_B"), ("_G_B", "_G_A"))
"""What the names of the two files of one training differ in."""


def model_for(model: str, direction: str, *, pair: bool) -> str:
    """The model's name or file for a direction: b2a is the model's opposite, but with `pair` the model stays.

    Of two pictures side by side the direction says which is the input, as it did when a model was trained on them.
    """
    if direction == "a2b" or pair:
        return model
    if (other := opposite(model)) is not None:
        return other
    path = Path(model)
    for one, two in SIBLINGS:
        if one in path.name and (sibling := path.with_name(path.name.replace(one, two))).is_file():
            return str(sibling)
    raise UsageError(
        f"no opposite of {model} is known; give its own name or file as --model, and leave --direction out"
    )
