"""Recipes by name: Python functions that return a frozen `Recipe`. Users change them with `override`."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from restorer.errors import UsageError, unknown_name
from restorer.networks.spec import get_spec
from restorer.training.recipe import CHOICES, Recipe, flattened, override
from restorer.training.recipes.faces import gfpgan_512, gfpgan_512_tiny
from restorer.training.recipes.photo import pix2pix_unfade, srgan_x4_photo, srresnet_x4_photo
from restorer.training.recipes.real import (
    realesr_general_x4v3,
    realesr_general_x4v3_tiny,
    realesrgan_x2,
    realesrgan_x2_tiny,
    realesrgan_x4,
    realesrgan_x4_tiny,
    realesrnet_x4,
    realesrnet_x4_tiny,
)
from restorer.training.recipes.style import stylegan2_256, stylegan2_256_tiny, stylegan2_512, stylegan2_512_tiny
from restorer.training.recipes.super_resolution import (
    esrgan_psnr_x4,
    esrgan_psnr_x4_tiny,
    esrgan_x4,
    esrgan_x4_tiny,
    srgan_x4,
    srgan_x4_tiny,
    srresnet_x4,
    srresnet_x4_tiny,
)
from restorer.training.recipes.translation import (
    cyclegan_256,
    cyclegan_256_tiny,
    cyclegan_resnet6_128,
    cyclegan_resnet6_128_tiny,
    pix2pix_256,
    pix2pix_256_tiny,
)

RECIPES: dict[str, Callable[[], Recipe]] = {
    "srresnet_x4": srresnet_x4,
    "srgan_x4": srgan_x4,
    "esrgan_psnr_x4": esrgan_psnr_x4,
    "esrgan_x4": esrgan_x4,
    "realesrnet_x4": realesrnet_x4,
    "realesrgan_x4": realesrgan_x4,
    "realesrgan_x2": realesrgan_x2,
    "realesr_general_x4v3": realesr_general_x4v3,
    "stylegan2_256": stylegan2_256,
    "stylegan2_512": stylegan2_512,
    "gfpgan_512": gfpgan_512,
    "pix2pix_256": pix2pix_256,
    "cyclegan_256": cyclegan_256,
    "cyclegan_resnet6_128": cyclegan_resnet6_128,
    "srresnet_x4_photo": srresnet_x4_photo,
    "srgan_x4_photo": srgan_x4_photo,
    "pix2pix_unfade": pix2pix_unfade,
    "srresnet_x4_tiny": srresnet_x4_tiny,
    "srgan_x4_tiny": srgan_x4_tiny,
    "esrgan_psnr_x4_tiny": esrgan_psnr_x4_tiny,
    "esrgan_x4_tiny": esrgan_x4_tiny,
    "realesrnet_x4_tiny": realesrnet_x4_tiny,
    "realesrgan_x4_tiny": realesrgan_x4_tiny,
    "realesrgan_x2_tiny": realesrgan_x2_tiny,
    "realesr_general_x4v3_tiny": realesr_general_x4v3_tiny,
    "stylegan2_256_tiny": stylegan2_256_tiny,
    "stylegan2_512_tiny": stylegan2_512_tiny,
    "gfpgan_512_tiny": gfpgan_512_tiny,
    "pix2pix_256_tiny": pix2pix_256_tiny,
    "cyclegan_256_tiny": cyclegan_256_tiny,
    "cyclegan_resnet6_128_tiny": cyclegan_resnet6_128_tiny,
}
"""Name -> recipe. A `_tiny` twin is the same game with small numbers: minutes on two cores, an hour for faces."""


def get_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a .toml or .json file: the name of a recipe, and what is changed in it.

    A file is data: `recipe = "srgan_x4"`, then tables such as `[train]` with `steps = 1000`. RUN/recipe.json is one.
    """
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        if name not in RECIPES:
            raise unknown_name("recipe", name, RECIPES)
        return RECIPES[name]()
    data = _read(path)
    base = data.pop("recipe", None) or data.pop("name", None)
    if not isinstance(base, str):
        raise UsageError(f'{path}: must name its recipe, such as: recipe = "srgan_x4"')
    if base not in RECIPES:
        raise unknown_name("recipe", base, RECIPES)
    return changed(RECIPES[base](), flattened(data))


def changed(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """`override`, in the order in which it makes sense: another network brings its own config first."""
    settings = dict(settings)
    network = settings.pop("network", recipe.network)
    if network != recipe.network:
        recipe = override(recipe, {"network": network})
        recipe = replace(recipe, config=get_spec(recipe.network).config())
    settings.pop("name", None)
    return override(recipe, {key: value for key, value in settings.items() if value is not None or key in CHOICES})


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a table of settings")
    return data
