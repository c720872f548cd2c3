"""PSNR and SSIM in the field's convention, and scores that were published."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import pixels, save_tiny

from restorer.apps.cli import main
from restorer.errors import PictureError
from restorer.metrics.fidelity import psnr, ssim, to_luma
from restorer.pipeline.picture import Picture, write_picture
from restorer.resample import resize

pytest.importorskip("torchmetrics")
SHARED = Path(__file__).resolve().parents[2] / "shared"
A = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
B = np.clip(A.astype(int) + np.random.default_rng(1).integers(-20, 21, A.shape), 0, 255).astype(np.uint8)


def test_luma_is_matlab_s():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert to_luma(colours)[0, :, 0] == pytest.approx([16, 235, 81])


def test_psnr_equals_its_definition():
    inside = (A[4:-4, 4:-4].astype(float), B[4:-4, 4:-4].astype(float))
    error = ((inside[0] - inside[1]) ** 2).mean()
    assert psnr(A, B, border=4, luma=False) == pytest.approx(10 * math.log10(255**2 / error), abs=1e-4)
    luma = ((to_luma(A) - to_luma(B)) ** 2).mean()
    assert psnr(A, B) == pytest.approx(10 * math.log10(255**2 / luma), abs=1e-4)
    assert psnr(A, A) == math.inf


def windows(x: np.ndarray) -> np.ndarray:
    """Wang's window over whole windows only, by OpenCV."""
    kernel = cv2.getGaussianKernel(11, 1.5)
    return cv2.filter2D(x, -1, np.outer(kernel, kernel))[5:-5, 5:-5]


def ssim_by_definition(x: np.ndarray, y: np.ndarray) -> float:
    mean_x, mean_y = windows(x), windows(y)
    var_x, var_y, both = (
        windows(a * b) - m for a, b, m in ((x, x, mean_x**2), (y, y, mean_y**2), (x, y, mean_x * mean_y))
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(
        ((2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()
    )


def test_ssim_equals_its_definition():
    assert ssim(A, B) == pytest.approx(ssim_by_definition(to_luma(A)[..., 0], to_luma(B)[..., 0]), abs=1e-5)
    channels = [ssim_by_definition(A[..., c].astype(float), B[..., c].astype(float)) for c in range(3)]
    assert ssim(A, B, luma=False) == pytest.approx(np.mean(channels), abs=1e-5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(PictureError, match="cannot be compared"):
        psnr(A, B[1:])
    with pytest.raises(PictureError, match="leaves nothing"):
        psnr(A, B, border=20)
    with pytest.raises(PictureError, match="at least 11 pixels"):
        ssim(A, B, border=16)


@pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in ("data/Set5", "weights/srgan")),
    reason="Set5 is not beside the project",
)
@pytest.mark.slow
def test_set5_scores_are_the_published_ones(capsys):
    """MATLAB's bicubic has 28.42 dB and 0.8104 on Set5; the SRGAN by leftthomas 30.66 dB."""
    weights = SHARED / "weights" / "srgan" / "srgan_leftthomas_x4.safetensors"
    folder = SHARED / "data" / "Set5"
    command = ["evaluate", str(weights), "--data", str(folder / "HR"), "--low", str(folder / "LR_bicubic" / "X4")]
    assert main([*command, "--json", "--precision", "fp32"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 6
    assert lines[-1]["picture"] == "mean"
    assert lines[-1]["bicubic"]["psnr"] == pytest.approx(28.42, abs=0.01)
    assert lines[-1]["bicubic"]["ssim"] == pytest.approx(0.8104, abs=0.001)
    assert lines[-1]["model"]["psnr"] == pytest.approx(30.66, abs=0.05)


def test_wrong_words_are_told(capsys, tmp_path):
    assert main(["evaluate", "x", "--data", str(tmp_path / "no")]) == 2
    assert "takes a folder" in capsys.readouterr().err
    assert main(["evaluate", "x", "--data", str(tmp_path), "--metrics", "pnsr"]) == 1
    assert "did you mean 'psnr'" in capsys.readouterr().err


def judged(capsys, tmp_path, *words):
    """(status, the lines it told) of a tiny network over two pictures."""
    folder = tmp_path / "truth"
    folder.mkdir(exist_ok=True)
    for name, truth in (("a", A), ("b", B)):
        write_picture(Picture(pixels=truth), folder / f"{name}.png")
    weights = save_tiny(tmp_path / "tiny.safetensors")
    status = main(["evaluate", str(weights), "--data", str(folder), *words])
    return status, capsys.readouterr()


def test_scores_are_told_as_a_table_as_json_and_as_a_picture(capsys, tmp_path):
    status, told = judged(capsys, tmp_path, "--plot", str(tmp_path / "plots" / "scores.png"))
    assert status == 0, told.err
    assert [line.split()[0] for line in told.out.splitlines()] == ["picture", "a", "b", "mean"]
    assert pixels(tmp_path / "plots" / "scores.png").shape[1] > 500
    _, told = judged(capsys, tmp_path, "--json", "--border", "0", "--rgb")
    a, b, mean = (json.loads(line) for line in told.out.splitlines())
    assert mean["model"]["psnr"] == pytest.approx((a["model"]["psnr"] + b["model"]["psnr"]) / 2)
    small = np.rint(resize(A, (10, 13))).clip(0, 255).astype(np.uint8)
    plain = np.rint(resize(small, (40, 52))).clip(0, 255).astype(np.uint8)
    assert a["bicubic"]["psnr"] == pytest.approx(psnr(plain, A, luma=False))


def test_what_cannot_be_scored_is_one_line(capsys, tmp_path):
    status, told = judged(capsys, tmp_path, "--metrics", "psnr, ssim,psnr", "--border", "16")
    assert (status, len(told.err.splitlines())) == (1, 2)
    assert "a.png: no ssim: ssim needs at least 11 pixels" in told.err
    assert told.out.splitlines()[-1].split()[0] == "mean"
    status, told = judged(capsys, tmp_path, "--metrics", "niqe", "--niqe", str(tmp_path / "none.npz"))
    assert (status, len(told.err.splitlines())) == (1, 1)
    assert "is no file like" in told.err
    status, told = judged(capsys, tmp_path, "--plot", "scores.bmp")
    assert (status, "takes a .png or .svg" in told.err) == (2, True)
