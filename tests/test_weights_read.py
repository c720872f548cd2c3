"""Good weights files: every form is read exactly, and what we write is read by others."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pickle_bytes as pb
import pytest
import safetensors.torch
import torch
from some_weights import saved, some_weights
from torch import Tensor

from restorer.errors import AmbiguousWeightsError, WeightsError, WriteError
from restorer.weights.read import read_checkpoint, write_safetensors

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
SHARED = Path(__file__).resolve().parents[2] / "shared"


def assert_same(read: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert list(read) == list(wanted)
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor), name
        assert read[name].is_contiguous(), name


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_tensor_is_read_exactly(tmp_path: Path, zipped: bool, protocol: int) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a.pth", some_weights(), zipped=zipped, protocol=protocol))
    assert_same(checkpoint.weights, some_weights())
    assert (checkpoint.wrapper, checkpoint.facts, checkpoint.path) == ("", {}, tmp_path / "a.pth")


@FORMS
def test_windows_parameters_and_shared_storages_come_out_dense(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    tied = torch.nn.Parameter(torch.arange(3.0))
    content = {
        "transposed": base.permute(2, 0, 1),
        "slice": base[1, :, 1:3],
        "tail": base[1],
        "first": tied,
        "second": tied,
        "channels_last": torch.arange(16.0).reshape(1, 2, 2, 4).contiguous(memory_format=torch.channels_last),
    }
    weights = read_checkpoint(saved(tmp_path / "a.pth", content, zipped=zipped)).weights
    assert_same(weights, {name: tensor.detach().contiguous() for name, tensor in content.items()})
    assert not any(tensor.requires_grad or isinstance(tensor, torch.nn.Parameter) for tensor in weights.values())


@FORMS
def test_state_dict_of_a_real_module_is_read(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert_same(
        read_checkpoint(saved(tmp_path / "a.pth", module.state_dict(), zipped=zipped)).weights, module.state_dict()
    )


@FORMS
def test_training_checkpoint_with_optimizer_and_schedule_is_read(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters(), betas=(0.9, 0.99))
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3, 7])
    content = {
        "epoch": 12,
        "best": -0.25,
        "note": "näh",
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {k: v for k, v in schedule.state_dict().items() if not k.startswith("_")},
        "rng": torch.get_rng_state(),
    }
    checkpoint = read_checkpoint(saved(tmp_path / "a.pth.tar", content, zipped=zipped))
    assert checkpoint.wrapper == "state_dict"
    assert_same(checkpoint.weights, module.state_dict())


def test_checkpoint_of_python_2_and_pytorch_0_3_is_read(tmp_path: Path) -> None:
    tensor = pb.call("torch._utils._rebuild_tensor", pb.storage(), pb.number(0), pb.row(b"K\4"), pb.row(b"K\1"))
    pair = b"](U\x01w" + tensor + b"e"
    path = pb.save_legacy(tmp_path / "a.pth", pb.call("collections.OrderedDict", b"](" + pair + b"e"))
    assert_same(read_checkpoint(path).weights, {"w": torch.zeros(4)})


def test_average_is_preferred_and_its_wrapper_named(tmp_path: Path) -> None:
    content = {"params": {"w": torch.zeros(2)}, "params_ema": {"w": torch.ones(2)}}
    checkpoint = read_checkpoint(saved(tmp_path / "a.pth", content))
    assert (checkpoint.wrapper, checkpoint.weights["w"].tolist()) == ("params_ema", [1.0, 1.0])


@pytest.mark.parametrize(
    ("content", "wrapper"),
    [
        ({"model": {"state_dict": {"w": torch.ones(2)}}}, "model.state_dict"),
        ({"netG": {"w": torch.ones(2)}, "epoch": 3}, "netG"),
        ({"model": {"scale": 4}, "w": torch.ones(2), "epoch": 3}, ""),
        ({"generator": {"w": torch.ones(2)}, "discriminator": {"w": torch.zeros(2)}}, "generator"),
        ({"ema_state_dict": OrderedDict({"n_averaged": torch.tensor(5), "module._orig_mod.w": torch.ones(2)})}, None),
        ({"module.module.w": torch.ones(2)}, ""),
        ({"generator_ema.w": torch.ones(2), "generator.w": torch.zeros(2), "step_counter": torch.tensor(1)}, ""),
        ({"netG.w": torch.ones(2), "netD.w": torch.zeros(2)}, ""),
    ],
)
def test_wrappers_are_opened_and_prefixes_taken_off(tmp_path: Path, content: object, wrapper: str | None) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a.pth", content))
    assert checkpoint.wrapper == ("ema_state_dict" if wrapper is None else wrapper)
    assert_same(checkpoint.weights, {"w": torch.ones(2)})


@pytest.mark.parametrize("names", [("generator.a", "embeddings.b"), ("module.a", "b"), ("model.0.a", "model.1.b")])
def test_prefixes_that_belong_to_the_network_stay(tmp_path: Path, names: tuple[str, str]) -> None:
    path = saved(tmp_path / "a.pth", {name: torch.ones(2) for name in names})
    assert tuple(read_checkpoint(path).weights) == names


def test_several_unnamed_sets_of_weights_are_ambiguous(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(2)}})
    with pytest.raises(AmbiguousWeightsError, match=r"a\.pth: holds several sets of weights \(a, b\)"):
        read_checkpoint(path)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    zipped = saved(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "b.pth")
    assert_same(read_checkpoint(zipped).weights, read_checkpoint(tmp_path / "b.pth").weights)


def test_header_length_that_looks_like_a_pickle_is_still_safetensors(tmp_path: Path) -> None:
    """A length whose low byte is 0x80 begins as pickles do."""
    write_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"pad": ""})
    short = int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")
    write_safetensors(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"pad": "x" * ((0x80 - short) % 256)})
    assert (tmp_path / "a.safetensors").read_bytes()[0] == 0x80
    assert_same(read_checkpoint(tmp_path / "a.safetensors").weights, {"w": torch.ones(2)})


def test_checkpoint_without_checksums_is_read_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = pb.save_zip(tmp_path / "a.pth", pb.table(w=pb.tensor()))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    while at >= 0:
        data[at + 16 : at + 20] = bytes(4)
        at = data.find(b"PK\1\2", at + 1)
    path.write_bytes(data)
    assert_same(read_checkpoint(path).weights, {"w": torch.zeros(4)})
    assert "without checksums" in caplog.text


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder of real weights is absent")
def test_published_weights_equal_what_the_safetensors_library_reads() -> None:
    for path in sorted((SHARED / "weights").rglob("*.safetensors")):
        if path.stat().st_size < 8e6:
            wanted, read = safetensors.torch.load_file(path), read_checkpoint(path).weights
            assert {name.removeprefix("module.") for name in wanted} == set(read)
            assert all(torch.equal(read[name], tensor) for name, tensor in wanted.items())


def test_written_weights_and_facts_come_back(tmp_path: Path) -> None:
    facts = {"activation": "prelu", "resize_after": 0.5, "sizes": [1, 2], "ü": None}
    integers = {str(kind): torch.tensor([-5, 7], dtype=kind) for kind in (torch.int8, torch.int16, torch.int32)}
    weights = some_weights() | integers
    write_safetensors(tmp_path / "a.safetensors", weights, facts)
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.facts == facts
    by_library = safetensors.torch.load_file(tmp_path / "a.safetensors")
    for read in (checkpoint.weights, by_library):
        assert read.keys() == weights.keys()
        assert all(read[name].dtype == t.dtype and torch.equal(read[name], t) for name, t in weights.items())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_same_weights_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / name, some_weights(), {"x": 1, "y": 2} if name == "a" else {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_is_left_behind_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"what was there")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        write_safetensors(tmp_path / "a.safetensors", some_weights(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == b"what was there"


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({}, "no tensors"),
        ({"w": torch.tensor([1.0, torch.nan])}, "'w' holds values that are not finite"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "complex64"),
    ],
)
def test_bad_weights_are_not_written(tmp_path: Path, weights: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        write_safetensors(tmp_path / "a.safetensors", weights, {})
    assert not list(tmp_path.iterdir())
