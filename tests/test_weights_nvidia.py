"""NVIDIA's StyleGAN pickles: read exactly, run nothing, and make the pictures of the published definition."""

import os
import random
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pickle_bytes as pb
import pytest
import torch
from nvidia_snapshot import (
    LAYERS,
    STYLE,
    WIDTHS,
    Discriminator,
    EasyDict,
    Generator,
    Persistent,
    generator,
    install,
    published,
    snapshot,
)
from some_weights import refusal
from torch import Tensor

from restorer.errors import UnsafeWeightsError, WeightsError
from restorer.networks.spec import load_weights
from restorer.networks.stylegan2 import StyleGAN2Config
from restorer.weights.read import read_checkpoint


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    install(monkeypatch)


@pytest.mark.parametrize("truncation", [1.0, 0.7])
def test_picture_is_that_of_the_published_definition(tmp_path, truncation):
    checkpoint = read_checkpoint(snapshot(tmp_path / "a.pkl"))
    model = load_weights(checkpoint.weights, facts=checkpoint.facts)
    assert (model.spec.name, model.config) == ("stylegan2", StyleGAN2Config(widths=WIDTHS, style=STYLE, mapping=LAYERS))
    z = torch.randn(3, STYLE, generator=torch.Generator().manual_seed(5))
    ours = model.network.painted(model.network.styles(z, truncation=truncation))
    exact = published(generator().state_dict(), z, truncation=truncation)
    assert exact.std() > 0.3
    torch.testing.assert_close(ours.double(), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_generators_average_is_read_exactly(tmp_path, protocol):
    checkpoint = read_checkpoint(snapshot(tmp_path / "a.pkl", protocol=protocol))
    assert_same(checkpoint.weights, generator().state_dict())
    assert (checkpoint.wrapper, checkpoint.facts) == ("G_ema", {})


@pytest.mark.parametrize("average", [{"G_ema": None}, {"G_ema": "lost"}])
def test_generator_stands_in_for_its_average(tmp_path, average):
    checkpoint = read_checkpoint(snapshot(tmp_path / "a.pkl", **average))
    assert_same(checkpoint.weights, generator(1).state_dict())
    assert checkpoint.wrapper == "G"


def test_layers_of_pytorch_and_tied_weights_are_read(tmp_path):
    network = Discriminator()
    network.tied = network.body[0]
    assert_same(read_checkpoint(snapshot(tmp_path / "a.pkl", G_ema=network)).weights, network.state_dict())


def assert_same(read: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert list(read) == list(wanted)
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor), name


# What is refused.


def test_source_in_the_file_is_never_run(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    source = f"open({str(marker)!r}, 'w').close()"
    monkeypatch.setattr(Persistent, "source", source)
    assert_same(read_checkpoint(snapshot(tmp_path / "a.pkl")).weights, generator().state_dict())
    assert source.encode() in (tmp_path / "a.pkl").read_bytes()
    assert not marker.exists()
    exec(source)
    assert marker.exists()  # so it would have shown


class Evil:
    """Runs a command where a pickle is loaded as usual."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("place", ["state", "kwargs", "player", "modules"])
def test_code_in_any_place_is_refused(tmp_path, place):
    marker, network = tmp_path / "marker", generator()
    if place == "state":
        network.synthesis.b8.extra = Evil(marker)
    elif place == "kwargs":
        network._init_kwargs["more"] = EasyDict(evil=Evil(marker))
    elif place == "modules":
        network._modules["evil"] = Evil(marker)
    path = snapshot(tmp_path / "a.pkl", G_ema=Evil(marker) if place == "player" else network)
    with pytest.raises(UnsafeWeightsError, match=r"^a\.pkl: asks for '(posix|nt)\.system', which plain tensors do not"):
        read_checkpoint(path)
    assert not marker.exists()


def lump(data: bytes, claimed: int | None = None) -> bytes:
    return b"B" + struct.pack("<I", len(data) if claimed is None else claimed) + data


def row_of_numbers(body: bytes | None = None, *, count: int = 4) -> bytes:
    """What torch.save writes of a storage of four zeros; `count` is what it claims to hold."""
    body = pb.storage(count=count) if body is None else body
    head = pb.MAGIC + pb.VERSION + pb.MACHINE + pb.program(body) + pb.KEYS
    return head + struct.pack("<q", count) + bytes(16)


def crafted(path: Path, numbers: bytes, *, modules: bytes = b"}", before: bytes = b"", **meta: bytes) -> Path:
    """A snapshot of one layer with one tensor, whose storage is made of `numbers`."""
    tensor = pb.tensor(pb.call("torch.storage._load_from_bytes", numbers))
    state = pb.table(_parameters=pb.table(w=tensor), _buffers=b"}", _modules=modules)
    path.write_bytes(pb.program(before + pb.table(G_ema=layer(**{"state": state, **meta}))))
    return path


def layer(**meta: bytes) -> bytes:
    known = {"type": pb.text("class"), "version": pb.number(6), "class_name": pb.text("X")}
    return pb.call("torch_utils.persistence._reconstruct_persistent_obj", pb.table(**{**known, **meta}))


def test_crafted_files_are_live(tmp_path):
    """Without this, a slip below would pass as a refusal."""
    path = crafted(tmp_path / "a.pkl", lump(row_of_numbers()))
    assert_same(read_checkpoint(path).weights, {"w": torch.zeros(4)})


def endless(tmp_path: Path) -> Path:
    """A layer that is a layer of itself."""
    own = pb.name("torch.nn.modules.container.Sequential") + b")\x81q\x00"
    own += pb.table(_parameters=b"}", _buffers=b"}", _modules=pb.table(a=b"h\x00", b=b"h\x00")) + b"b"
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers()), modules=pb.table(a=own))


def doubling(tmp_path: Path) -> Path:
    """Each layer holds the one below it twice, sixty deep."""
    body = layer(state=pb.table(_parameters=b"}", _buffers=b"}", _modules=b"}")) + b"q\x000"
    twice = pb.table(_parameters=b"}", _buffers=b"}", _modules=pb.table(a=b"h\x00", b=b"h\x00"))
    body += (layer(state=twice) + b"q\x000") * 60
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers()), modules=pb.table(a=b"h\x00"), before=body)


def nested(tmp_path: Path) -> Path:
    """Layers in layers, three thousand deep."""
    begin, end = layer(state=b"@").split(b"@")
    begin += b"}(" + b"".join(pb.text(key) + b"}" for key in ("_parameters", "_buffers")) + pb.text("_modules")
    deep = (begin + b"}" + pb.text("a")) * 3000 + b"N" + (b"su" + end) * 3000
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers()), modules=pb.table(a=deep))


def many_rows(tmp_path: Path) -> Path:
    """Twenty thousand storages, each with as long a program as fits."""
    small = row_of_numbers(b"N0" * 130 + pb.storage())
    rows = b"".join(pb.call("torch.storage._load_from_bytes", lump(small)) + b"0" for _ in range(20_000))
    return crafted(tmp_path / "a.pkl", lump(small), before=rows)


def evil_in_a_row(tmp_path: Path) -> Path:
    evil = pb.call("os.system", pb.text(f"touch '{tmp_path / 'marker'}'"))
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers(evil)))


def row_in_a_row(tmp_path: Path) -> Path:
    inner = pb.call("torch.storage._load_from_bytes", lump(row_of_numbers()))
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers(inner)))


def unusual(tmp_path: Path, labels: bytes) -> Path:
    """A StyleGAN2, as far as names go, whose number of labels is none."""
    rows = {"_buffers": b"}", "_parameters": b"}"}
    const = pb.tensor(pb.call("torch.storage._load_from_bytes", lump(row_of_numbers())))
    block = layer(state=pb.table(**{**rows, "_parameters": pb.table(const=const)}, _modules=b"}"))
    synthesis = layer(state=pb.table(**rows, _modules=pb.table(b4=block)))
    mapping = layer(state=pb.table(**rows, _modules=b"}", c_dim=labels))
    return crafted(tmp_path / "a.pkl", lump(row_of_numbers()), modules=pb.table(mapping=mapping, synthesis=synthesis))


DOUBLED = b"]" + b"q\x000](h\x00h\x00e" * 60
"""A list that holds the one before it twice, sixty deep: to print it would take for ever."""

HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "endless": (endless, "without end"),
    "doubling": (doubling, "without end"),
    "nested": (nested, "without end"),
    "lists": (lambda p: crafted(p / "a.pkl", b"]" * 100_000 + b"a" * 99_999), "something else than bytes"),
    "rows": (many_rows, "more than 3,000 storages"),
    "huge count": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers(count=2**40))), "ends within its numbers"),
    "huge lump": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers(), 2**32 - 1)), "ends early"),
    "both": (
        lambda p: crafted(p / "a.pkl", lump(row_of_numbers(count=2**29), len(row_of_numbers()) - 16 + 2**31)),
        "ends early",
    ),
    "evil": (evil_in_a_row, "asks for 'os.system'"),
    "row in a row": (row_in_a_row, "asks for 'torch.storage._load_from_bytes'"),
    "no row": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers(pb.text("hello") + pb.storage() + b"0"))), "hold"),
    "storage": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), before=pb.storage() + b"0"), "not one of"),
    "version": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), version=pb.number(5)), "another version"),
    "kind": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), type=pb.text("module")), "no known way"),
    "state": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), state=b"]"), "no known way"),
    "class": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), class_name=DOUBLED), "no known way"),
    "setting": (lambda p: unusual(p, DOUBLED), "mapping.c_dim is something else"),
    "modules": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), modules=b"]"), "has no _modules"),
    "tensor": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), modules=pb.table(a=b"]")), "neither a layer nor"),
    "name": (lambda p: crafted(p / "a.pkl", lump(row_of_numbers()), modules=b"}" + pb.number(3) + b"Ns"), "doubtful"),
    "eval": (lambda p: crafted(p / "a.pkl", pb.call("builtins.eval", pb.text("1"))), "asks for 'builtins.eval'"),
    "layer": (lambda p: crafted(p / "a.pkl", pb.call("torch.nn.modules.x.y.Z")), "asks for 'torch.nn.modules.x.y.Z'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_in_one_line_and_quickly(tmp_path, name):
    build, reason = HOSTILE[name]
    path = build(tmp_path)
    start = time.monotonic()
    message = refusal(path)
    assert time.monotonic() - start < 5
    assert reason in message
    assert message.isprintable() and len(message) < 300 and message.startswith("a.pkl: ")
    assert not (tmp_path / "marker").exists()


def test_every_cut_is_refused_and_no_wrong_bit_makes_the_reader_crash(tmp_path):
    whole = snapshot(tmp_path / "a.pkl").read_bytes()
    rng, path = random.Random(0), tmp_path / "b.pkl"
    for length in rng.sample(range(len(whole)), 25):
        path.write_bytes(whole[:length])
        assert "\n" not in refusal(path)
    for place in rng.sample(range(len(whole)), 25):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        try:
            read_checkpoint(path)
        except WeightsError as error:
            assert "\n" not in str(error)


def test_missing_players_and_networks_of_tensorflow_are_refused(tmp_path):
    assert "holds no generator (G_ema or G)" in refusal(snapshot(tmp_path / "a.pkl", G=None, G_ema=None))
    assert "holds no tensors in G" in refusal(snapshot(tmp_path / "b.pkl", G_ema=Persistent()))
    (tmp_path / "c.pkl").write_bytes(pb.program(pb.name("dnnlib.tflib.network.Network") + b")\x81"))
    assert "c.pkl: holds networks of TensorFlow; convert it with" in refusal(tmp_path / "c.pkl")


def test_generator_that_lacks_a_tensor_is_refused(tmp_path):
    network = generator()
    del network.synthesis.b8.conv1.bias
    with pytest.raises(WeightsError, match=r"lack 1 of \d+ keys \(synthesis\.layers\.2\.bias\)"):
        load_weights(read_checkpoint(snapshot(tmp_path / "a.pkl", G_ema=network)).weights)


def test_what_tensors_do_not_tell_is_refused_where_it_is_unusual(tmp_path):
    assert "was trained with labels (mapping.c_dim is 10, known is 0)" in refused_of(tmp_path, generator(labels=10))
    assert "mapping.fc0.bias_gain is 0.1, known is 0.01" in refused_of(tmp_path, generator(rate=0.1))
    for place, attribute, value in (
        ("synthesis.b8", "architecture", "resnet"),
        ("synthesis.b16.conv0", "activation", "relu"),
        ("synthesis.b4.conv1", "use_noise", False),
        ("synthesis.b32.torgb", "conv_clamp", 1),
        ("mapping.fc1", "activation", np.float64(2)),
    ):
        network = generator()
        setattr(network.get_submodule(place), attribute, value)
        assert f"is an unusual StyleGAN2 ({place}.{attribute} is " in refused_of(tmp_path, network)
    network.get_submodule("mapping.fc1").activation = "lrelu"
    network.synthesis.b8.resample_filter.fill_(1 / 16)
    assert "(synthesis.b8.resample_filter is not [1, 3, 3, 1])" in refused_of(tmp_path, network)


def refused_of(folder: Path, network: Generator) -> str:
    return refusal(snapshot(folder / "a.pkl", G_ema=network))
