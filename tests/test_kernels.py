"""Kernels without a GPU: which twin runs, that Triton is not needed, and references beside answers by hand."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from house import HOME, PACKAGE, imports, place
from kernel_case import drawn

from restorer.errors import MissingPackageError, UnknownNameError, UnsupportedError
from restorer.kernels import choice
from restorer.kernels.blend_tiles import blend_tiles, plan_seams
from restorer.kernels.choice import uses_triton
from restorer.kernels.gather_tiles import PEAKS, gather_tiles
from restorer.kernels.to_bytes import to_bytes
from restorer.pipeline.plan import plan_spans

KERNELS = PACKAGE / "kernels"
CPU = torch.device("cpu")


@pytest.fixture
def triton_is_there(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def on_gpu(*, requires_grad: bool = False) -> SimpleNamespace:
    return SimpleNamespace(is_cuda=True, requires_grad=requires_grad)


def test_auto_takes_proven_kernels_only_on_a_gpu_and_without_gradients(monkeypatch):
    monkeypatch.setattr(choice, "PROVEN", frozenset({"proven"}))
    assert uses_triton("proven", "auto", on_gpu(), on_gpu())
    assert not uses_triton("hoped", "auto", on_gpu())
    assert not uses_triton("proven", "auto", on_gpu(), torch.zeros(1))
    assert not uses_triton("proven", "auto", on_gpu(), on_gpu(requires_grad=True))
    with torch.no_grad():
        assert uses_triton("proven", "auto", on_gpu(requires_grad=True))


def test_auto_leaves_graphs_to_compilers(monkeypatch):
    monkeypatch.setattr(choice, "PROVEN", frozenset({"proven"}))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not uses_triton("proven", "auto", on_gpu())


def test_choosing_leaves_no_trace_in_a_graph():
    def work(x: torch.Tensor) -> torch.Tensor:
        return to_bytes(x)

    x = drawn(1, 3, 4, 5)
    assert torch.equal(torch.compile(work, backend="eager", fullgraph=True)(x), to_bytes(x))


def test_the_reference_is_taken_when_asked_for(monkeypatch):
    monkeypatch.setattr(choice, "PROVEN", frozenset({"proven"}))
    assert not uses_triton("proven", "reference", on_gpu())


@pytest.mark.usefixtures("triton_is_there")
def test_triton_is_taken_when_asked_for_whatever_is_proven():
    assert uses_triton("hoped", "triton", on_gpu())


def test_an_unknown_twin_is_refused():
    with pytest.raises(UnknownNameError, match="no impl named 'tritn'; did you mean 'triton'"):
        uses_triton("to_bytes", "tritn", torch.zeros(1))


@pytest.mark.usefixtures("triton_is_there")
def test_triton_on_a_processor_is_refused_but_for_the_interpreter(monkeypatch):
    with pytest.raises(UnsupportedError, match="to_bytes runs on CUDA, and these tensors are on cpu; use impl="):
        to_bytes(torch.zeros(1, 3, 2, 2), impl="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert uses_triton("to_bytes", "triton", torch.zeros(1))


def test_triton_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install triton"):
        to_bytes(torch.zeros(1, 3, 2, 2), impl="triton")


@pytest.mark.usefixtures("triton_is_there")
def test_triton_refuses_to_lose_a_gradient():
    with pytest.raises(UnsupportedError, match="has no gradient"):
        uses_triton("to_bytes", "triton", on_gpu(requires_grad=True))


def test_what_is_proven_was_measured_on_a_device():
    path = HOME / "benchmarks" / "results" / "kernels.json"
    timed = json.loads(path.read_text(encoding="utf-8"))["timed"] if path.is_file() else []
    assert {row["kernel"] for row in timed if row["times_faster"]["median"] > 1} >= choice.PROVEN


def test_only_device_code_imports_triton():
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != KERNELS / "device")
    found = [place(path, node) for path in paths for node, name in imports(path) if name.split(".")[0] == "triton"]
    assert not found, found


def test_kernels_import_torch_and_errors_only():
    own = ("torch", "triton", "restorer.errors", "restorer.kernels")
    found = [
        f"{place(path, node)}: {name}"
        for path in sorted(KERNELS.rglob("*.py"))
        for node, name in imports(path)
        if not any(name == known or name.startswith(f"{known}.") for known in own)
        and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not found, found


def test_every_kernel_runs_without_triton():
    words = (
        "import importlib, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(HOME / 'tests')!r})\n"
        f"for path in Path({str(KERNELS)!r}).glob('*.py'):\n"
        "    importlib.import_module(f'restorer.kernels.{path.stem}')\n"
        "from kernels_interpreted import CASES\n"
        "for case in CASES:\n"
        "    case.answer('auto')\n"
        "assert len(CASES) > 50\n"
        "assert 'triton' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bytes_round_halves_to_even_after_the_product_is_rounded():
    """In float32 0.3 is a little more, yet 255 times it rounds to 76.5; in one fused step it would become 77."""
    x = torch.tensor([-0.3, 0.0, 0.25, 0.3, 0.5, 1.0, 1.2]).reshape(1, 1, 1, 7)
    assert to_bytes(x).flatten().tolist() == [0, 0, 64, 76, 128, 255, 255]


def test_bytes_are_cut_and_channels_come_last():
    x = torch.arange(12.0).reshape(1, 2, 2, 3) / 255
    assert to_bytes(x, (1, 0, 2, 2)).tolist() == [[[[3, 9], [4, 10]]]]


@pytest.mark.parametrize(
    ("wrap", "rows"),
    [
        (False, [[4, 3, 4, 5], [1, 0, 1, 2], [4, 3, 4, 5], [1, 0, 1, 2]]),
        (True, [[5, 3, 4, 5], [2, 0, 1, 2], [5, 3, 4, 5], [2, 0, 1, 2]]),
    ],
)
def test_windows_are_mirrored_at_borders_or_wrap_around(wrap, rows):
    pixels = torch.arange(6, dtype=torch.uint8).reshape(2, 3, 1) * 51
    tiles = gather_tiles(pixels, torch.tensor([[-1, -1]]), (4, 4), channels=1, wrap=wrap)
    assert torch.equal(tiles[0, 0], torch.tensor(rows).float() / 5)


@pytest.mark.parametrize("dtype", PEAKS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_inside_a_picture_are_its_numbers_over_white(dtype, channels):
    pixels = drawn(9, 11, channels, dtype=dtype, high=PEAKS[dtype])
    blocks = [pixels[1:6, 2:9].numpy(), pixels[4:9, 0:7].numpy()]
    levels = np.stack(blocks).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(PEAKS[dtype])
    expected = torch.from_numpy(levels).clamp(0, 1).expand(-1, 3, -1, -1)
    tiles = gather_tiles(pixels, torch.tensor([[1, 2], [4, 0]]), (5, 7), channels=3)
    assert torch.equal(tiles, expected)
    assert tiles.is_contiguous(memory_format=torch.channels_last)


def test_the_share_of_tiles_changes_evenly_over_a_seam():
    one = plan_seams([0, 1], [0], 1, feather=2, device=CPU)
    seam = plan_seams([0, 4, 8], [0, 2], 6, feather=2, device=CPU)
    tiles = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 1, 6)
    levels = [0, 0, 255 / 8, 255 * 3 / 8, 255 * 5 / 8, 255 * 7 / 8, 255, 255]
    assert blend_tiles(tiles, one, seam).flatten().tolist() == [round(level) for level in levels]


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "feather"), [((37, 53), 16, 6, 5), ((8, 70), 24, 8, 8), ((5, 3), 0, 4, 4)]
)
def test_tiles_cut_from_one_picture_blend_to_that_picture(size, tile, overlap, feather):
    picture = drawn(3, *size)
    spans = [plan_spans(side, tile=tile, overlap=overlap) for side in size]
    seams = []
    for axis in spans:
        edges = [0, *(span.keep[1] for span in axis)]
        length = axis[0].read[1] - axis[0].read[0]
        seams.append(plan_seams(edges, [span.read[0] for span in axis], length, feather=feather, device=CPU))
    tiles = [picture[:, slice(*row.read), slice(*column.read)] for row in spans[0] for column in spans[1]]
    apart = blend_tiles(torch.stack(tiles), *seams).int() - to_bytes(picture[None])[0].int()
    exact = picture.permute(1, 2, 0).double() * 255
    near_a_half = (exact - exact.floor() - 0.5).abs() < 1e-3
    assert not apart[~near_a_half].any()
    assert apart.abs().max() <= 1


@pytest.mark.parametrize(
    ("edges", "starts", "length", "why"),
    [
        ([0, 3, 6, 12], [0, 0, 3], 9, "too small for a feather"),
        ([0, 6, 12], [0, 5], 9, "no room for a feather of 2 before 6"),
        ([0, 6, 12], [0, 4], 7, "ends before 6 and a feather"),
        ([0, 6, 12], [0], 12, "do not fit"),
    ],
)
def test_a_feather_needs_room(edges, starts, length, why):
    with pytest.raises(AssertionError, match=why):
        plan_seams(edges, starts, length, feather=2, device=CPU)


def test_bytes_equal_numpy_s_rounding():
    x = drawn(2, 3, 40, 50, low=-0.1, high=1.1)
    expected = np.rint(np.clip(x.numpy(), 0, 1) * np.float32(255)).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.array_equal(to_bytes(x).numpy(), expected)
