"""A network so small that a run costs nothing, and pictures to go with it."""

import io
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from cases import Case, random_network
from PIL import Image

from restorer.networks.compact import CompactConfig
from restorer.weights.read import write_safetensors

HOME = Path(__file__).resolve().parents[1]
CASE = Case("compact", CompactConfig(features=8, convs=2), (1, 3, 4, 4), (1, 3, 16, 16))


@cache
def network():
    """The random network of CASE, x4."""
    return random_network(CASE)


def save_tiny(path):
    """Write its weights, and give the path as a word for the command line."""
    write_safetensors(path, dict(network().state_dict()), {})
    return str(path)


def noise(height=24, width=32, channels=3, seed=0):
    """(H, W, C) uint8"""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save_picture(path, *, height=24, width=32, channels=3, seed=0, **options):
    """Write noise as a picture of the kind that the path's suffix says."""
    array = noise(height, width, channels, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[:, :, 0] if channels == 1 else array).save(path, **options)
    return path


def png(array):
    """(H, W, C) -> a file's bytes."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="png")
    return file.getvalue()


def pixels(path):
    """(H, W[, C]): what Pillow sees in a file, colours instead of their numbers in a palette."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB") if image.mode == "P" else image)


def files_in(folder):
    """Every file below a folder, but for the journal; hidden ones too."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in names if name != "restorer-journal.jsonl")


def start(*words, **options):
    """The command in a process of its own, its pipes open; `words` follow `restorer`."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite begun in the background ignores it
    try:
        return subprocess.Popen([sys.executable, "-m", "restorer", *map(str, words)], cwd=HOME, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)
