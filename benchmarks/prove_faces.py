"""Does adversarial training learn faces? 400 small grey ones of 40 persons, a generator that makes more of them, and a restorer.

    python -m benchmarks.prove_faces prepare --npz olivetti_faces.npz --out DIR
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from restorer.pipeline.picture import Picture, write_picture

TRAINED = 34
"""Persons that are trained on; those after them are held out."""


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("prepare", help="faces of an .npz file -> folders of PNGs")
    made.add_argument("--npz", type=Path, required=True, help="`faces` (N, H, W) uint8 and `identity` (N,), from 0 on")
    made.add_argument("--out", type=Path, required=True, help="an empty folder; gets all/, train/ and held/")
    made.set_defaults(run=prepare)
    options = parser.parse_args()
    options.run(options)


def prepare(options: argparse.Namespace) -> None:
    """Write every face to all/, and to train/ or held/ by its person: a person is never in both."""
    with np.load(options.npz, allow_pickle=False) as file:
        faces, persons = file["faces"], file["identity"]
    if faces.dtype != np.uint8 or faces.ndim != 3 or persons.shape != faces.shape[:1]:
        sys.exit(f"{options.npz}: holds {faces.dtype} {faces.shape} and {persons.shape}; give (N, H, W) uint8 and (N,)")
    folders = {name: options.out / name for name in ("all", "train", "held")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"{folder}: is not empty; name another folder")
    counts: dict[int, int] = {}
    for face, person in zip(faces, persons.tolist(), strict=True):
        number = counts.get(person, 0)
        counts[person] = number + 1
        picture = Picture(pixels=np.repeat(face[:, :, None], 3, axis=2))
        for name in ("all", "train" if person < TRAINED else "held"):
            write_picture(picture, folders[name] / f"s{person:02d}_{number:02d}.png")
    print(*(f"{name}: {len(list(folder.iterdir()))} faces" for name, folder in folders.items()), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
