"""Pasting a face: against hand, float64 and OpenCV, with which the pipeline does the same on a processor."""

import cv2
import numpy as np
import pytest
import torch
from kernel_cases_networks import cases_of, check_reference

from restorer.kernels.paste_face import PEAKS, paste_face
from restorer.pipeline import picture
from restorer.pipeline.faces.paste import Paster, Placed, _blend, where_it_pays
from restorer.pipeline.finish import LUMA

MATRIX = np.array([[0.8, 0.1, -3.3], [-0.1, 0.8, 5.2]])
SAME = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("case", cases_of("paste_face"), ids=lambda case: case.name.replace(" ", "-"))
def test_references_are_near_the_truth(case):
    check_reference(case, least=1.5 / 65535)  # a place is a float32, and noise changes steeply from pixel to pixel


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Like a photograph: little changes from a pixel to the next, and black and white are both there."""
    values = cv2.GaussianBlur(rng.random(shape, np.float32), (0, 0), 3).reshape(shape)
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [1, 3])
def test_it_is_what_the_pipeline_does_on_a_processor(depth, colours):
    """Within a hundredth of a level of 255; in 8 bits a level, where both lie almost on a half."""
    rng = np.random.default_rng(0)
    peak = picture.PEAKS[depth]
    face, mask = smooth(rng, 96, 96, 3), smooth(rng, 96, 96)
    mask[:8], mask[:, :8] = 0, 0
    rows = (smooth(rng, 120, 130, colours) * peak).astype(depth)
    theirs, ours = rows.copy(), torch.from_numpy(rows.copy())
    _blend(theirs, Placed(pixels=face, mask=mask, matrix=MATRIX, top=0, left=0, bottom=120, right=130), 0)
    paste_face(ours, torch.from_numpy(face).permute(2, 0, 1), torch.from_numpy(mask), tuple(MATRIX.flatten().tolist()))
    assert (theirs != rows).mean() > 0.5
    apart = np.abs(theirs.astype(np.float64) - ours.numpy()) * (255 / peak)
    assert apart.max() <= (1 if depth == "uint8" else 0.01)
    assert (apart > 0.01).mean() < 1e-3


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [1, 3])
def test_faces_are_pasted_on_a_device_as_here(depth, colours):
    """Two of them, over each other and over a border of bands, beside alpha, which stays."""
    rng = np.random.default_rng(0)
    rows = (smooth(rng, 600, 130, colours + 1) * picture.PEAKS[depth]).astype(depth)
    faces = [
        Placed(
            pixels=smooth(rng, 96, 96, 3), mask=smooth(rng, 96, 96), matrix=MATRIX - [[0, 0, 0], [0, 0, 0.8 * top]],
            top=top, left=5, bottom=top + 110, right=120,
        )
        for top in (180, 220)
    ]  # fmt: skip
    made = []
    for device in (None, torch.device("cpu")):
        taken = []
        paster = Paster(faces, taken.append, channels=colours, device=device)
        for part in (rows[:250], rows[250:]):
            paster(part.copy())
        made.append(np.concatenate(taken).astype(np.float64))
    here, there = made
    apart = np.abs(here - there) * (255 / picture.PEAKS[depth])
    assert apart.max() <= (1 if depth == "uint8" else 0.02)
    assert (apart > 0.02).mean() < 1e-3
    assert np.array_equal(there[:, :, -1], rows[:, :, -1])
    assert (here[:, :, 0] != rows[:, :, 0]).mean() > 0.1


def test_on_a_processor_faces_are_pasted_here():
    assert where_it_pays(torch.device("cpu")) is None


def test_depths_and_grey_are_the_pipelines():
    assert {str(dtype).removeprefix("torch."): peak for dtype, peak in PEAKS.items()} == picture.PEAKS
    white = torch.zeros(1, 3, 1)
    paste_face(white, torch.eye(3)[:, None], torch.ones(1, 3), SAME)
    torch.testing.assert_close(white.flatten(), torch.tensor(LUMA))


def test_half_of_white_on_black_is_rounded_to_even():
    rows = torch.tensor([[[0], [1], [2], [255]]], dtype=torch.uint8)
    paste_face(rows, torch.ones(3, 1, 4), torch.full((1, 4), 0.5), SAME)
    assert rows.flatten().tolist() == [128, 128, 128, 255]


def test_what_no_mask_covers_stays_and_so_does_what_lies_beyond_white():
    rows = torch.tensor([[[-2.0], [1.5], [1.5], [0.5]]])
    paste_face(rows, torch.zeros(3, 1, 4), torch.tensor([[0.0, 0.0, 1.0, 0.0]]), SAME)
    assert rows.flatten().tolist() == [-2, 1.5, 0.5, 0.5]


def test_masks_end_and_faces_go_on_between_pixels():
    """Half a pixel before the face's first, half of the mask is there, and all of the face's edge."""
    rows = torch.zeros(1, 1, 3)
    paste_face(rows, torch.ones(3, 1, 1), torch.ones(1, 1), (1.0, 0.0, -0.5, 0.0, 1.0, 0.0))
    assert rows.flatten().tolist() == [0.5, 0.5, 0.5]


def test_a_region_is_written_where_it_lies():
    whole = torch.zeros(4, 5, 4, dtype=torch.uint16)
    paste_face(whole[1:3, 2:4, :3], torch.ones(3, 2, 2), torch.ones(2, 2), SAME)
    assert whole[1:3, 2:4, :3].to(torch.int32).unique().tolist() == [65535]
    assert whole.to(torch.int64).sum().item() == 65535 * 12
