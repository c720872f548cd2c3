"""How true are the pictures? Four questions, real weights, real photos, on a processor.

Does fp32 equal the reference implementation? What does the automatic precision cost against fp32, and what do tiles
cost against the whole picture? Does a published set give its published score?
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, SHARED, Result, described, machine_facts, needed, publish, run_child, table_lines
from restorer import Picture, Restorer, UpscaleSettings, read_picture

CHILD = ROOT / "benchmarks" / "child.py"
REFERENCE = ROOT / "benchmarks" / "child_reference.py"
X4PLUS = "RealESRGAN_x4plus"
MODELS = (X4PLUS, "RealESRGAN_x4plus_anime_6B", "realesr-animevideov3", "realesr-general-x4v3")
SRGAN = "srgan/srgan_leftthomas_x4.safetensors"
BESIDE_REFERENCE = ("RealESRGAN_inputs/0014.jpg", "RealESRGAN_inputs/ADE_val_00000114.jpg", "RealSRSet/butterfly.png")
SETS = ("RealSRSet", "RealESRGAN_inputs")
TILED = (X4PLUS, "realesr-animevideov3", "realesr-general-x4v3")
TILED_PHOTOS = ("skimage/astronaut.png", "skimage/hubble_deep_field.jpg", "Urban100/HR/img_009.png")
SET5 = ("baby", "bird", "butterfly", "head", "woman")
SET5_GOAL = 30.66
BORDER = 4
"""Output pixels left out on every side of Set5, as is usual for a scale of 4."""
SEAM_REACH = 16
"""Input pixels on each side of a seam that count as near it."""
PRECISION = UpscaleSettings(device="cpu")
FP32 = replace(PRECISION, precision="fp32")
EQUAL = 200.0
"""Decibels that stand for no difference at all."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for."""

    data: Path
    weights: Path
    reference_python: Path | None
    smoke: bool
    bf16_of: str | None

    @property
    def most(self) -> int | None:
        """How many pictures of each set; None is all."""
        return 1 if self.smoke else None

    @property
    def reference_size(self) -> tuple[int, int]:
        """Pictures are cut to their middle, of at most this (height, width): beside the reference,"""
        return (48, 48) if self.smoke else (256, 256)

    @property
    def precision_size(self) -> tuple[int, int]:
        """between precisions,"""
        return (48, 48) if self.smoke else (160, 160)

    @property
    def tiled_size(self) -> tuple[int, int]:
        """and between tiles and the whole."""
        return (48, 144) if self.smoke else (512, 512)

    @property
    def tile(self) -> int:
        """Side of a tile's core; the picture is so large that no window holds the whole of it."""
        return 72 if self.smoke else 256

    def model(self, name: str) -> Path:
        """Where its weights are."""
        return needed(self.weights, f"realesrgan/{name}.safetensors")[0]


def main() -> None:
    """Ask every question and publish."""
    options = parsed()
    if options.bf16_of:
        precision(options.bf16_of, options)
        return
    result: Result = {
        "machine": machine_facts(),
        "reference": beside_reference(options) if options.reference_python else None,
        "precision": {model: precision(model, options) for model in MODELS},
        "tiling": {model: tiling(model, options) for model in TILED},
        "set5": set5(options),
    }
    publish("fidelity", result, report(result), keep=not options.smoke)


def parsed() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of RealSRSet, Set5, skimage, ...")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of realesrgan and srgan")
    parser.add_argument("--reference-python", type=Path, help="python of the reference's environment; none: ours only")
    parser.add_argument("--smoke", action="store_true", help="a few tiny pictures; nothing is written")
    parser.add_argument(
        "--bf16-of",
        choices=MODELS,
        help="only what bf16 costs this model, slowly on most processors; writes nothing",
    )
    return Options(**vars(parser.parse_args()))


def beside_reference(options: Options) -> Result:
    """Our fp32 and the reference's untiled fp32, as 8-bit pictures."""
    names = BESIDE_REFERENCE[: options.most]
    pictures = [cut(path, options.reference_size) for path in needed(options.data, *names)]
    weights = options.model(X4PLUS)
    with tempfile.TemporaryDirectory() as folder:
        repacked = Path(folder) / "weights.pth"
        run_child([sys.executable, CHILD, "repack", weights, repacked])
        pairs = [(Path(folder) / f"{i}.png", Path(folder) / f"{i}-out.png") for i in range(len(pictures))]
        for (source, _), picture in zip(pairs, pictures, strict=True):
            cv2.imwrite(str(source), np.rint(picture.pixels[:, :, ::-1] * 255).astype(np.uint8))
        assert options.reference_python is not None
        told = run_child([options.reference_python, REFERENCE, X4PLUS, repacked, *sum(pairs, ())], ours=False).told
        theirs = [cv2.imread(str(out))[:, :, ::-1].astype(np.float32) / 255 for _, out in pairs]
    opened = Restorer.open(weights, settings=FP32)
    rows = []
    for name, picture, their in zip(names, pictures, theirs, strict=True):
        our = np.rint(opened.restore(picture).pixels * 255) / np.float32(255)
        rows.append({"picture": name, "size": list(picture.size), **difference(our, their)})
        say(f"reference, {name}: {rows[-1]['within_1']:.4%} within 1 level")
    return {"model": X4PLUS, "versions": told["versions"], "pictures": rows}


def precision(model: str, options: Options) -> Result:
    """The automatic precision against fp32, on the middle of every picture of two sets."""
    ours = replace(PRECISION, precision="bf16") if options.bf16_of else PRECISION
    auto, fp32 = (Restorer.open(options.model(model), settings=settings) for settings in (ours, FP32))
    rows = []
    for folder in SETS:
        for path in pictures_of(options.data / folder)[: options.most]:
            picture = cut(path, options.precision_size)
            both = [opened.restore(picture).pixels for opened in (auto, fp32)]
            rows.append({"picture": f"{folder}/{path.name}", "size": list(picture.size), **difference(*both)})
    dtype = str(auto.engine.dtype).removeprefix("torch.")
    found = {"dtype": dtype, "notes": list(auto.engine.notes), **summed(rows), "pictures": rows}
    say(f"precision, {model}: median {found['median_psnr']:.1f} dB, worst {found['worst_psnr']:.1f} dB")
    return found


def tiling(model: str, options: Options) -> Result:
    """Tiles against the whole picture, both in fp32, with the network's own overlap."""
    rows = []
    whole = Restorer.open(options.model(model), settings=replace(FP32, tile=0))
    tiled = Restorer(whole.engine, replace(FP32, tile=options.tile))
    for name in TILED_PHOTOS[: options.most]:
        picture = cut(*needed(options.data, name), options.tiled_size)
        plan = tiled.plan(picture).plans()[0]
        a, b = (opened.restore(picture).pixels for opened in (tiled, whole))
        apart = {**difference(a, b), **beside_seams(a, b, plan, whole.engine.traits.scale)}
        rows.append({"picture": name, "size": list(picture.size), "tiles": plan.count, **apart})
        say(f"tiles, {model}, {name}: {rows[-1]['psnr']:.1f} dB, worst {rows[-1]['worst_value']:.2g}")
    return {"tile": options.tile, "overlap": whole.engine.traits.overlap, **summed(rows), "pictures": rows}


def set5(options: Options) -> Result:
    """SRGAN's published x4 weights on Set5: PSNR of the Y channel."""
    opened = Restorer.open(*needed(options.weights, SRGAN), settings=FP32)
    scores = {}
    for name in SET5[: options.most]:
        low, high = needed(options.data, f"Set5/LR_bicubic/X4/{name}x4.png", f"Set5/HR/{name}.png")
        ours = opened.restore(read_picture(low)).pixels
        cropped = (luma(x)[BORDER:-BORDER, BORDER:-BORDER] for x in (ours, read_picture(high).pixels))
        scores[name] = round(psnr(*cropped, peak=255), 3)
    mean = round(statistics.mean(scores.values()), 3)
    say(f"Set5: {mean:.2f} dB")
    return {"weights": SRGAN, "psnr_y": scores, "mean": mean, "goal": SET5_GOAL}


def cut(path: Path, most: tuple[int, int]) -> Picture:
    """The middle of a picture, at most (height, width), as float32 in [0, 1] without alpha; grey stays grey."""
    read = read_picture(path)
    top, left = (max(0, have - side) // 2 for have, side in zip(read.size, most, strict=True))
    pixels = read.pixels[top : top + most[0], left : left + most[1]]
    return Picture(pixels=pixels.astype(np.float32) / np.float32(read.peak))


def pictures_of(folder: Path) -> list[Path]:
    """Every file of a folder, by name."""
    if not folder.is_dir():
        sys.exit(f"{folder}: not found; give the folder that holds it with --data")
    return sorted(path for path in folder.iterdir() if path.is_file())


def difference(a: Floats, b: Floats) -> Result:
    """Two pictures in [0, 1]: apart as floats, and as the 8-bit files they would become."""
    levels = eight_bit_steps(a, b)
    return {
        "psnr": round(psnr(a, b, peak=1), 2),
        "psnr_8bit": round(psnr(levels, np.zeros_like(levels), peak=255), 2),
        "mean_levels": round(float(levels.mean()), 4),
        "worst_levels": int(levels.max()),
        "within_1": float((levels <= 1).mean()),
        "worst_value": float(np.abs(a - b).max()),
    }


def beside_seams(a: Floats, b: Floats, plan: Any, scale: int) -> Result:
    """The worst 8-bit difference near the seams of a plan, and away from them."""
    levels = eight_bit_steps(a, b).max(axis=2)
    near = np.zeros(levels.shape, bool)
    reach = SEAM_REACH * scale
    for row in (span.keep[0] * scale for span in plan.rows[1:]):
        near[max(0, row - reach) : row + reach] = True
    for column in (span.keep[0] * scale for span in plan.columns[1:]):
        near[:, max(0, column - reach) : column + reach] = True
    worst = {"worst_levels_near_seams": near, "worst_levels_elsewhere": ~near}
    return {name: int(levels[where].max(initial=0)) for name, where in worst.items()}


def eight_bit_steps(a: Floats, b: Floats) -> NDArray[np.int16]:
    """Absolute differences after both are rounded to 0..255."""
    x, y = (np.rint(np.clip(one, 0, 1) * 255).astype(np.int16) for one in (a, b))
    return np.abs(x - y)


def psnr(a: NDArray[Any], b: NDArray[Any], *, peak: float) -> float:
    """Decibels."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return 10 * float(np.log10(peak**2 / error)) if error else EQUAL


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) of 0..255 -> (H, W): ITU-R BT.601's Y in 16..235, not rounded."""
    return 16 + pixels.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def summed(rows: Sequence[Mapping[str, Any]]) -> Result:
    """Median and worst over pictures."""
    return {
        "median_psnr": round(statistics.median(row["psnr"] for row in rows), 2),
        "worst_psnr": min(row["psnr"] for row in rows),
        "median_psnr_8bit": round(statistics.median(row["psnr_8bit"] for row in rows), 2),
        "worst_psnr_8bit": min(row["psnr_8bit"] for row in rows),
        "worst_levels": max(row["worst_levels"] for row in rows),
        "worst_value": max(row["worst_value"] for row in rows),
    }


def say(message: str) -> None:
    """Where we are, on stderr."""
    print(message, file=sys.stderr, flush=True)


def report(result: Mapping[str, Any]) -> list[str]:
    """The README's section."""
    lines = [described(result["machine"]), ""]
    if result["reference"]:
        lines += [*reference_lines(result["reference"]), ""]
    lines += [*precision_lines(result["precision"]), "", *tiling_lines(result["tiling"]), ""]
    scores = result["set5"]
    each = ", ".join(f"{name} {value:.2f}" for name, value in scores["psnr_y"].items())
    lines.append(
        f"**Set5**, `{SRGAN}`, x4, Y channel, border {BORDER}: {scores['mean']:.2f} dB ({each}); "
        f"goal: within 0.05 of {scores['goal']}."
    )
    return lines


def reference_lines(found: Mapping[str, Any]) -> list[str]:
    """fp32 beside the reference."""
    rows: list[Sequence[object]] = [("picture", "size", "8-bit values within 1 level", "worst", "PSNR, dB")]
    for one in found["pictures"]:
        size, within = shape(one), f"{one['within_1']:.4%}"
        rows.append((one["picture"], size, within, one["worst_levels"], f"{one['psnr_8bit']:.1f}"))
    head = f"**fp32 against realesrgan {found['versions']['realesrgan']}**, untiled, {found['model']}; goal: 99.9 %."
    return [head, "", *table_lines(rows)]


def precision_lines(found: Mapping[str, Any]) -> list[str]:
    """Automatic precision beside fp32."""
    rows: list[Sequence[object]] = [
        (
            "model",
            "auto is",
            "pictures",
            "median, dB",
            "worst, dB",
            "on",
            "as 8-bit files: median, worst",
            "worst level",
        )
    ]
    for model, one in found.items():
        worst = min(one["pictures"], key=lambda row: row["psnr"])["picture"]
        rounded = f"{one['median_psnr_8bit']:.1f}, {one['worst_psnr_8bit']:.1f}"
        psnrs = f"{one['median_psnr']:.1f}", f"{one['worst_psnr']:.1f}"
        rows.append((model, one["dtype"], len(one["pictures"]), *psnrs, worst, rounded, one["worst_levels"]))
    side = max(max(row["size"]) for one in found.values() for row in one["pictures"])
    head = (
        f"**Automatic precision against fp32**, the middle {side}x{side} of every picture of {' and '.join(SETS)}, "
        "without alpha, compared as floats; goal: median at least 50, worst at least 47."
    )
    return [head, "", *table_lines(rows)]


def tiling_lines(found: Mapping[str, Any]) -> list[str]:
    """Tiles beside whole pictures."""
    heading = ("model", "overlap", "picture", "size", "tiles", "PSNR, dB", "worst level, near seams", "worst value")
    rows: list[Sequence[object]] = [heading]
    for model, summary in found.items():
        for one in summary["pictures"]:
            worst = f"{one['worst_levels']}, {one['worst_levels_near_seams']}"
            cells = one["picture"], shape(one), one["tiles"], f"{one['psnr']:.1f}", worst, f"{one['worst_value']:.1e}"
            rows.append((model, summary["overlap"], *cells))
    deep = found[X4PLUS]
    head = (
        f"**Tiles of {deep['tile']} against the whole picture**, fp32, default overlap: {X4PLUS} median "
        f"{deep['median_psnr']:.1f} dB; goal: at least 50. The others: exact; goal: worst value at most 1e-4. "
        f"Near a seam is within {SEAM_REACH} input pixels."
    )
    return [head, "", *table_lines(rows)]


def shape(one: Mapping[str, Any]) -> str:
    """Width x height."""
    return f"{one['size'][1]}x{one['size'][0]}"


if __name__ == "__main__":
    main()
