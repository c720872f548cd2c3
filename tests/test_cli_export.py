"""restorer export, and what an exported file is to the other commands."""

import numpy as np
import pytest
from tiny import pixels, save_picture, save_tiny

from restorer.apps.cli import main

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))


def run(capsys, *words):
    """(status, stdout, lines of stderr)"""
    status = main([str(word) for word in words])
    told = capsys.readouterr()
    return status, told.out, told.err.splitlines()


@pytest.mark.slow
def test_a_model_becomes_a_file_that_upscales_as_it_does(capsys, tmp_path):
    weights = save_tiny(tmp_path / "tiny.safetensors")
    status, out, err = run(capsys, "export", weights, "-o", "a.onnx")
    assert (status, err) == (0, [])
    assert out.startswith("a.onnx: compact, fp32, any size, ")
    assert "equals PyTorch at 1x3x11x16, 3x3x24x9, 2x3x5x31 (worst difference " in out
    save_picture(tmp_path / "in.png")
    for model, name in ((weights, "plain.png"), ("a.onnx", "graph.png")):
        status, out, err = run(capsys, "upscale", "in.png", "-o", name, "--model", model, "--precision", "fp32")
        assert status == 0, err
    assert err[-1].endswith("MP/s")
    assert "by a.onnx in fp32 (onnx engine, ONNX Runtime's CPUExecutionProvider), " in err[-1]
    apart = pixels(tmp_path / "plain.png").astype(int) - pixels(tmp_path / "graph.png")
    assert np.abs(apart).max() <= 1


def test_an_engine_is_chosen_by_name(capsys, tmp_path):
    weights = save_tiny(tmp_path / "tiny.safetensors")
    save_picture(tmp_path / "in.png")
    status, _, err = run(capsys, "upscale", "in.png", "-o", "out.png", "--model", weights, "--engine", "onnx")
    assert status == 0
    assert "(onnx engine, ONNX Runtime's CPUExecutionProvider)" in err[-1]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("tiny.safetensors -o a.pt", 2, "written as .onnx"),
        ("tiny.safetensors -o a.onnx --static 12", 2, "static takes HxW, such as 512x512; got '12'"),
        ("tiny.safetensors -o a.onnx --static 0x12", 2, "static takes HxW"),
        ("tiny.safetensors -o a.onnx --precision bf16", 2, "precision takes fp32 or fp16, got 'bf16'"),
        ("tiny.safetensors -o there.onnx", 2, "there.onnx: exists; give --overwrite"),
        ("tiny.safetensors -o no/a.onnx", 1, "is no folder; make it first"),
        ("nosuch -o a.onnx", 1, "no model named 'nosuch'"),
        ("nosuch.onnx -o a.onnx", 1, "no file 'nosuch.onnx'"),
    ],
)
def test_mistakes_are_one_line(words, status, told, capsys, tmp_path):
    save_tiny(tmp_path / "tiny.safetensors")
    (tmp_path / "there.onnx").write_bytes(b"what was there")
    got, out, err = run(capsys, "export", *words.split())
    assert (got, out, len(err)) == (status, "", 1)
    assert told in err[0]
    assert (tmp_path / "there.onnx").read_bytes() == b"what was there"
    assert not (tmp_path / "a.onnx").exists()
