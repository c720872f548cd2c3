"""What bench_translation runs in processes of its own: steps and networks beside the original's, and large pictures.

    python child_translation.py step GAME PRECISION ROUNDS paper|small REFERENCE
    python child_translation.py network PRECISION ROUNDS SIDE REFERENCE
    python child_translation.py picture NETWORK PRECISION HEIGHT WIDTH whole|bands

REFERENCE is a checkout of pytorch-CycleGAN-and-pix2pix, whose model classes and networks are imported from it.
"""

import json
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import own_peak
from restorer.engines.eager import EagerEngine
from restorer.engines.shared import psnr
from restorer.networks.discriminators import rename_discriminator
from restorer.networks.spec import get_spec, load_weights
from restorer.pipeline.picture import Picture
from restorer.pipeline.settings import TranslateSettings
from restorer.pipeline.source import ArrayTaker
from restorer.pipeline.translate import Translation
from restorer.resample import resize
from restorer.training.build import build_parts, in_layout, layout_of
from restorer.training.data import DataConfig, Source, batches_of
from restorer.training.games import game_of
from restorer.training.loop import open_fabric
from restorer.training.objective import Batch, Clock, Rules, Turns, gan_step
from restorer.training.recipe import Recipe
from restorer.training.recipes import get_recipe

PICTURES = Path(__file__).resolve().parents[1] / "tests" / "pictures"
LUMA = (0.299, 0.587, 0.114)
SMALL = 64
"""Side of the pictures of the small game."""
TERMS = {"pix2pix": ("g/pixel", "G_L1"), "cyclegan": ("g/cycle_a", "cycle_A")}
"""The term of each game that is compared, by our name and by the original's."""


def main() -> None:
    """Do what the first word says, and print it."""
    what, *words = sys.argv[1:]
    if what == "step":
        game, precision, rounds, size, reference = words
        sys.path.insert(0, reference)
        with tempfile.TemporaryDirectory() as folder:
            told = played(recipe_of(game, size, precision), game, int(rounds), folder)
    elif what == "network":
        precision, rounds, side, reference = words
        sys.path.insert(0, reference)
        told = network(precision, int(rounds), int(side))
    else:
        name, precision, height, width, how = words
        told = picture(name, precision, (int(height), int(width)), how)
    print(json.dumps(told))


def recipe_of(game: str, size: str, precision: str) -> Recipe:
    """The published networks and losses; `small` ones for curves. No dropout, whose chance would differ."""
    recipe = get_recipe(f"{game}_256")
    config = replace(recipe.config, dropout=False)
    if size == "small":
        config = replace(config, features=16, **({"levels": 6} if game == "pix2pix" else {"blocks": 6}))
        recipe = replace(
            recipe,
            discriminator=replace(recipe.discriminator, features=16),
            data=replace(recipe.data, crop=SMALL, load_size=SMALL),
        )
    return replace(recipe, config=config, train=replace(recipe.train, precision=precision))


def played(recipe: Recipe, game: str, rounds: int, folder: str) -> dict[str, Any]:
    """Both play every batch, who goes first changes; the first step of each is not timed."""
    theirs = Theirs(recipe, game, folder)
    ours = Ours(recipe, theirs)
    make = greys_and_colours(recipe.data.crop)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    for step in range(rounds + 1):
        batch = make(step)
        players = [("ours", ours), ("theirs", theirs)]
        for name, player in players if step % 2 else players[::-1]:
            start = time.perf_counter()
            terms = player.step(batch, step)
            if step:
                seconds[name].append(time.perf_counter() - start)
            losses[name].append(float(terms[TERMS[game][name == "theirs"]]))
    return {"seconds": seconds, "losses": losses}


def greys_and_colours(side: int) -> Any:
    """step -> a photo without its colours, and the photo: (1, 3, side, side) in [0, 1] under `low` and `high`."""
    source = Source(
        DataConfig(high=str(PICTURES), crop=side), get_spec("cyclegan").traits(get_spec("cyclegan").config()), seed=0
    )
    made = batches_of(source, batch=1, rank=0, processes=1, turns=1)

    def make(step: int) -> Batch:
        high = made(step, 0)["high"]
        low = torch.tensordot(high, torch.tensor(LUMA), dims=([1], [0]))[:, None].expand_as(high)
        return {"low": low.contiguous(memory_format=torch.channels_last), "high": high}

    return make


class Ours:
    """restorer's step, as its loop plays it, from the original's first weights."""

    def __init__(self, recipe: Recipe, theirs: "Theirs") -> None:
        self.fabric = open_fabric(recipe, device="cpu")
        self.parts = build_parts(recipe, self.fabric.device)
        self.recipe = recipe
        self.rules = Rules(
            optimisers=self.parts.optimisers, order=recipe.train.order, autocast=self.fabric.autocast
        )  # fmt: skip
        self.traits = get_spec(recipe.network).traits(recipe.config)
        self.layout = layout_of(self.traits, self.fabric.device)
        theirs.lend(self.parts.objective)

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """-> terms."""
        laid = {name: in_layout(tensor, self.layout) for name, tensor in batch.items()}
        turn = [game_of(self.recipe.weights).pair(laid, self.recipe, self.traits)]
        return gan_step(self.parts.objective, Turns(d=[turn], g=turn), rules=self.rules, clock=Clock(seed=0, step=step))


class Theirs:
    """The original's model, from its own options."""

    def __init__(self, recipe: Recipe, game: str, folder: str) -> None:
        from models import cycle_gan_model, networks, pix2pix_model

        config, judge = recipe.config, recipe.discriminator
        paired = game == "pix2pix"
        name = "unet" if paired else f"resnet_{config.blocks}blocks"
        self.recipe, self.game = recipe, game
        options = Namespace(
            gpu_ids=[], isTrain=True, checkpoints_dir=folder, name="", preprocess="crop", input_nc=3, output_nc=3,
            ngf=config.features, ndf=judge.features, netG=name, netD="basic", n_layers_D=judge.layers,
            norm="batch" if paired else "instance", init_type="normal", init_gain=0.02, no_dropout=True,
            lr=recipe.train.g_rate, beta1=recipe.train.betas[0], direction="AtoB", lambda_L1=100.0, lambda_A=10.0,
            lambda_B=10.0, lambda_identity=0.5, pool_size=0 if paired else 50,
            gan_mode="vanilla" if paired else "lsgan",
        )  # fmt: skip
        define = networks.define_G
        if paired:  # its names stop at eight levels
            networks.define_G = lambda into, out, features, *_: networks.init_net(
                networks.UnetGenerator(into, out, config.levels, features, norm_layer=networks.get_norm_layer("batch"))
            )
        self.model = (pix2pix_model.Pix2PixModel if paired else cycle_gan_model.CycleGANModel)(options)
        networks.define_G = define

    def lend(self, objective: Any) -> None:
        """Give its first weights to our players."""
        rename, model = get_spec(self.recipe.network).rename, self.model
        if self.game == "pix2pix":
            pairs = [(objective.g, model.netG, True), (objective.d, model.netD, False)]
        else:
            pairs = [(objective.g["a2b"], model.netG_A, True), (objective.g["b2a"], model.netG_B, True),
                     (objective.d["b"], model.netD_A, False), (objective.d["a"], model.netD_B, False)]  # fmt: skip
        for ours, theirs, makes in pairs:
            weights = theirs.state_dict()
            ours.load_state_dict(
                dict(rename(weights, {}) if makes else rename_discriminator(weights, self.recipe.discriminator))
            )

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """-> losses."""
        a, b = (2 * batch[name].contiguous() - 1 for name in ("low", "high"))
        self.model.set_input({"A": a, "B": b, "A_paths": "", "B_paths": ""})
        self.model.optimize_parameters()
        return self.model.get_current_losses()


def network(precision: str, rounds: int, side: int) -> dict[str, Any]:
    """The ResNet of nine blocks alone, on the same picture in turn."""
    from models import networks

    torch.manual_seed(0)
    theirs = networks.define_G(3, 3, 64, "resnet_9blocks", norm="instance").eval()
    model = load_weights(get_spec("cyclegan").rename(theirs.state_dict(), {}))
    ours = EagerEngine(model, device="cpu", precision=precision, self_check=False)
    x = torch.from_numpy(photo((side, side))).permute(2, 0, 1)[None].float() / 255
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}

    def by_ours() -> Tensor:
        return ours.run({"image": x.contiguous(memory_format=torch.channels_last)})["image"]

    def by_theirs() -> Tensor:
        with torch.no_grad():
            return (theirs(2 * x - 1) + 1) / 2

    made = {}
    for step in range(rounds + 1):
        players = [("ours", by_ours), ("theirs", by_theirs)]
        for name, run in players if step % 2 else players[::-1]:
            start = time.perf_counter()
            made[name] = run()
            if step:
                seconds[name].append(time.perf_counter() - start)
    return {"seconds": seconds, "db": psnr(made["ours"], made["theirs"])}


def picture(name: str, precision: str, size: tuple[int, int], how: str) -> dict[str, Any]:
    """A whole picture through restorer's pipeline: how long, in how much memory above the process with torch.

    With `whole`, in one go and then in bands, and how near the second is to the first.
    """
    spec = get_spec(name)
    torch.manual_seed(0)
    base = own_peak()
    engine = EagerEngine(load_weights(spec.build(spec.config()).state_dict()), device="cpu", precision=precision)
    pixels = photo(size)
    told: dict[str, Any] = {}
    made: dict[str, NDArray[np.uint8]] = {}
    for way, tile in (("whole", 0), ("bands", 128)) if how == "whole" else (("bands", None),):
        work = Translation(Picture(pixels=pixels), engine, TranslateSettings(model=name, tile=tile))
        taker = ArrayTaker(size, 3, np.dtype(np.uint8))
        start = time.perf_counter()
        work.run(lambda taker=taker: taker)
        told[way] = {"seconds": time.perf_counter() - start, "rows": work.rows}
        made[way] = taker.array
    if how == "whole":
        error = np.mean((made["whole"].astype(np.float64) - made["bands"]) ** 2)
        told["db"] = 10 * np.log10(255**2 / max(error, 1e-9))
        told["worst"] = int(np.abs(made["whole"].astype(int) - made["bands"]).max())
    else:
        told["bands"]["peak"] = own_peak() - base
    return told


def photo(size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3): a photo of the tests, enlarged, or of one's own size repeated where that would be soft."""
    import restorer

    pixels = restorer.read_picture(PICTURES / "coffee.png").pixels
    wanted = resize(pixels, (min(size[0], 2 * pixels.shape[0]), min(size[1], 2 * pixels.shape[1])))
    whole = np.rint(wanted).clip(0, 255).astype(np.uint8)
    times = [-(-side // have) for side, have in zip(size, whole.shape[:2], strict=True)]
    return np.ascontiguousarray(np.tile(whole, (*times, 1))[: size[0], : size[1]])


if __name__ == "__main__":
    main()
