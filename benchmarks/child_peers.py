"""Upscale a picture with another way to run the same weights: spandrel in plain PyTorch, or ncnn on the processor.

Runs in the peers' environment and knows nothing of this project: float32, the whole picture at once, OpenCV to read and
write. The last line on stdout is JSON. Arguments: spandrel|ncnn WEIGHTS IN OUT
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Runner = Callable[[NDArray[np.uint8]], Floats]
"""(H, W, 3) RGB -> (3, s*H, s*W) in [0, 1]."""


def spandrel(weights: Path) -> Runner:
    """As its documentation shows: load, evaluate, call."""
    import torch
    from spandrel import ModelLoader

    model = ModelLoader(device="cpu").load_from_file(weights).eval()

    def run(pixels: NDArray[np.uint8]) -> Floats:
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return model(x)[0].numpy()

    return run


def ncnn(weights: Path) -> Runner:
    """Its own defaults, with as many threads as there are cores."""
    import ncnn as library

    net = library.Net()
    net.opt.num_threads = len(os.sched_getaffinity(0))
    net.load_param(str(weights))
    net.load_model(str(weights.with_suffix(".bin")))

    def run(pixels: NDArray[np.uint8]) -> Floats:
        height, width = pixels.shape[:2]
        mat = library.Mat.from_pixels(pixels, library.Mat.PixelType.PIXEL_RGB, width, height)
        mat.substract_mean_normalize([], [1 / 255] * 3)
        extractor = net.create_extractor()
        extractor.input("data", mat)
        _, out = extractor.extract("output")
        return np.array(out)

    return run


RUNNERS = {"spandrel": spandrel, "ncnn": ncnn}


def main() -> None:
    """Upscale IN to OUT."""
    who, weights, source, target = sys.argv[1:]
    run = RUNNERS[who](Path(weights))
    pixels = np.ascontiguousarray(cv2.imread(source, cv2.IMREAD_COLOR)[:, :, ::-1])
    start = time.perf_counter()
    made = run(pixels)
    seconds = time.perf_counter() - start
    done = (made.clip(0, 1) * 255).round().astype(np.uint8)
    cv2.imwrite(target, np.ascontiguousarray(done.transpose(1, 2, 0)[:, :, ::-1]))
    print(json.dumps({"network_seconds": seconds, "version": version(who)}))


if __name__ == "__main__":
    main()
