"""Damaged and hostile weights files: refused in one line, quickly, with nothing run and little memory taken."""

import os
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import hostile
import pickle_bytes as pb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_weights import refusal, saved, some_weights
from torch import Tensor

from restorer.errors import UnsafeWeightsError, WeightsError
from restorer.weights.read import read_checkpoint, write_safetensors


def spoilt(data: bytes, count: int, *, start: int = 0, stop: int | None = None) -> list[bytes]:
    """Copies of `data`, each with one bit turned between `start` and `stop`."""
    rng = random.Random(0)
    copies = []
    for place in (rng.randrange(start, len(data) if stop is None else stop) for _ in range(count)):
        copy = bytearray(data)
        copy[place] ^= 1 << rng.randrange(8)
        copies.append(bytes(copy))
    return copies


def outcome(path: Path, data: bytes, wanted: Mapping[str, Tensor]) -> str:
    """Read `data`: "refused", "same" or "other"; anything else than a WeightsError is a failure of the test."""
    path.write_bytes(data)
    try:
        read = read_checkpoint(path).weights
    except WeightsError as error:
        assert "\n" not in str(error)
        return "refused"
    same = read.keys() == wanted.keys() and all(torch.equal(read[name], wanted[name]) for name in wanted)
    return "same" if same else "other"


def test_one_wrong_bit_anywhere_in_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, some_weights(), {"activation": "prelu"})
    whole = path.read_bytes()
    outcomes = [outcome(path, data, some_weights()) for data in spoilt(whole, 400)]
    assert set(outcomes) == {"refused"}
    assert outcome(path, whole, some_weights()) == "same"


def test_one_wrong_bit_in_the_numbers_of_a_zip_checkpoint_is_refused(tmp_path: Path) -> None:
    weights = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(1))}
    path = saved(tmp_path / "a.pth", weights)
    whole = path.read_bytes()
    start = whole.index(weights["w"].numpy().tobytes())
    assert {outcome(path, data, weights) for data in spoilt(whole, 120, start=start, stop=start + 4000)} == {"refused"}


def test_one_wrong_bit_anywhere_in_a_zip_checkpoint_never_changes_a_weight(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", some_weights())
    outcomes = {outcome(path, data, some_weights()) for data in spoilt(path.read_bytes(), 400)}
    assert outcomes <= {"refused", "same"}


def test_one_wrong_bit_in_a_legacy_checkpoint_never_crashes(tmp_path: Path) -> None:
    """That form has no checksums: other numbers cannot be seen, unless they are not finite."""
    path = saved(tmp_path / "a.pth", some_weights(), zipped=False)
    outcomes = [outcome(path, data, some_weights()) for data in spoilt(path.read_bytes(), 400)]
    assert "refused" in outcomes


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_cut_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    if form == "safetensors":
        write_safetensors(path, some_weights(), {})
    else:
        saved(path, some_weights(), zipped=form == "zip")
    whole = path.read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 200):
        assert outcome(path, whole[:length], some_weights()) == "refused", length


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=60))
def test_no_garbage_program_makes_the_reader_crash(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.pth"
    assert outcome(pb.save_zip(path, garbage), path.read_bytes(), {}) == "refused"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_mutilated_program_makes_the_reader_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    body = pb.table(params=pb.table(w=pb.tensor(), v=pb.tensor(pb.storage())), step=pb.number(3))
    at, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    path = tmp_path_factory.getbasetemp() / "mutilated.pth"
    pb.save_zip(path, body[:at] + data.draw(st.binary(max_size=8)) + body[stop:])
    outcome(path, path.read_bytes(), {})


@pytest.mark.parametrize("name", hostile.BUILDERS)
def test_hostile_file_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = hostile.BUILDERS[name](tmp_path, marker)
    start = time.monotonic()
    message = refusal(path)
    assert time.monotonic() - start < 5
    assert not marker.exists()
    assert message.startswith(f"{path.name}: ")
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("name", hostile.LIVE)
def test_attacks_are_live(tmp_path: Path, name: str) -> None:
    """Without this, a builder with a slip would pass as a refusal."""
    marker = tmp_path / "marker"
    path = hostile.BUILDERS[name](tmp_path, marker)
    hostile.run_unsafely(path)
    assert marker.exists()


@pytest.mark.slow
def test_no_hostile_file_takes_much_memory(tmp_path: Path) -> None:
    """Every hostile file in one fresh process: its peak may rise by 500 MB at most."""
    code = f"""
import pathlib, resource, tempfile
import hostile
from restorer.errors import WeightsError
from restorer.weights.read import read_checkpoint
folder = pathlib.Path({str(tmp_path)!r})
paths = [build(pathlib.Path(tempfile.mkdtemp(dir=folder)), folder / "marker") for build in hostile.BUILDERS.values()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    try:
        read_checkpoint(path)
    except WeightsError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert int(run.stdout) < 500_000


def test_foreign_names_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    evil = pb.text("a\x1b[31m") + pb.text("b\nrestorer: all is well\u202e") + b"\x93"
    message = refusal(pb.save_zip(tmp_path / "a.pth", evil))
    assert "asks for 'a\\x1b[31m.b\\nrestorer: all is well\\u202e'" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"just some text\n" * 50, "is no weights file that is known here"),
        (b"<!DOCTYPE html><title>Not found</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00v\x00", "is a NumPy array"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"PK\x05\x06" + bytes(18), "is a zip file, but not a PyTorch checkpoint"),
        (b"PK\x03\x04 and then nothing", "is cut short or damaged"),
        (pb.program(pb.table(w=pb.number(1))), "is a pickle, but not one of PyTorch's"),
        (b"\x47\x6b\x30\x01" + bytes(20), "put its .param beside it"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(torch.ones(2), "no named tensors"), ([1, 2], "no named tensors"), ({"epoch": 3}, "no named tensors")],
)
def test_pytorch_files_without_named_tensors_are_refused(tmp_path: Path, content: object, reason: str) -> None:
    assert reason in refusal(saved(tmp_path / "a.pth", content))


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: is no regular file" in refusal(tmp_path / "pipe")
    assert "is a folder" in refusal(tmp_path)
    assert "no-such: cannot be read (No such file or directory)" in refusal(tmp_path / "no-such")


def test_file_above_four_gigabytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(4 * 2**30 + 1)
    assert "is larger than 4 GB" in refusal(tmp_path / "a.pth")


def test_refusal_names_what_was_asked_for_and_the_cure(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"w": torch.ones(2), "args": torch.Size([1])})
    with pytest.raises(UnsafeWeightsError) as caught:
        read_checkpoint(path)
    wanted = (
        "a.pth: asks for 'torch.Size', which plain tensors do not need; convert it to safetensors with a tool you trust"
    )
    assert str(caught.value) == wanted


def test_zip_that_holds_more_than_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = pb.save_zip(tmp_path / "a.pth", pb.table(w=pb.tensor()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x/../../evil.py", "")
    assert "has a member '../../evil.py'" in refusal(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ('{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}', "is of kind F8_E4M3"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}', "does not fit its bytes"),
        ('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "no row of whole numbers"),
        ('{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', "no row of whole numbers"),
        ('{"a":{"dtype":"F32","shape":[2]}}', "is no tensor"),
        ('{"a":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}}', "is of kind"),
        ('{"a":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}', "neither 0 nor 1"),
        ('{"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "metadata are not texts"),
        ('{"__metadata__":{"restorer.facts":"{}"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}', "missing"),
        ("{}", "8 bytes follow its header where 0 are announced"),
        ("{nonsense}", "its header is not JSON"),
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path: Path, header: str, reason: str) -> None:
    path = hostile.save_raw_safetensors(tmp_path / "a.safetensors", header, struct.pack("<d", 2.0))
    assert reason in refusal(path)
