"""Hostile weights files, built when tests run.

Each function in `BUILDERS` writes one file into a folder. Where the attack is to run code, that code would make the
file `marker`. `LIVE` names those whose code really runs under Python's own unpickler, which a test shows first.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pickle_bytes import call, name, number, program, row, save_legacy, save_zip, storage, table, tensor, text

Builder = Callable[[Path, Path], Path]


def save_raw_safetensors(path: Path, header: str, data: bytes) -> Path:
    lead = header.encode()
    path.write_bytes(len(lead).to_bytes(8, "little") + lead + data)
    return path


def touch(marker: Path) -> bytes:
    return call("os.system", text(f"touch '{marker}'"))


# Code, hidden in every place that a pickle offers.


def zip_os_system(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "os.pth", table(weight=tensor(), evil=touch(marker)))


def legacy_os_system(folder: Path, marker: Path) -> Path:
    return save_legacy(folder / "os.pth", table(weight=tensor(), evil=touch(marker)))


def legacy_machine(folder: Path, marker: Path) -> Path:
    return save_legacy(folder / "a.pth", table(weight=tensor()), machine=program(touch(marker)))


def legacy_keys(folder: Path, marker: Path) -> Path:
    return save_legacy(folder / "a.pth", table(weight=tensor()), keys=program(touch(marker)))


def zip_eval(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", call("builtins.eval", text(f"open({str(marker)!r}, 'w').close()")))


def zip_exec_by_stack(folder: Path, marker: Path) -> Path:
    evil = text("builtins") + text("exec") + b"\x93" + row(text(f"open({str(marker)!r}, 'w').close()")) + b"R"
    return save_zip(folder / "a.pth", evil)


def zip_getattr_chain(folder: Path, marker: Path) -> Path:
    system = call("builtins.getattr", call("builtins.__import__", text("os")), text("system"))
    return save_zip(folder / "a.pth", call(system, text(f"touch '{marker}'")))


def zip_torch_hub(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", call("torch.hub.load", text(str(marker.parent)), text("evil"), text("local")))


def zip_in_rebuild_arguments(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=call("torch._utils._rebuild_parameter", touch(marker), b"\x89", b"}")))


def zip_function_as_storage(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(name("os.system"))))


def zip_function_as_kind(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(storage(name("os.system")))))


def zip_call_of_storage(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=call("torch.FloatStorage", number(10**9))))


def zip_nested_in_params(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(params=table(weight=tensor()), x=b"](" + row(touch(marker)) + b"e"))


def zip_in_optimizer(folder: Path, marker: Path) -> Path:
    state = table(state=b"}(" + number(0) + table(step=touch(marker)) + b"u")
    return save_zip(folder / "a.pth", table(state_dict=table(weight=tensor()), optimizer=state))


def zip_build(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor() + table(__class__=name("os.system")) + b"b"))


def zip_new_object(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", name("subprocess.Popen") + row(text(f"touch '{marker}'")) + b"\x81")


def zip_instance(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", b"(" + text(f"touch '{marker}'") + b"ios\nsystem\n")


def zip_extension(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", b"\x82\x01" + row() + b"R")


def zip_module(folder: Path, marker: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), folder / "a.pth")
    return folder / "a.pth"


def pickle_named_safetensors(folder: Path, marker: Path) -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(program(touch(marker)))
    return path


def text_pickle(folder: Path, marker: Path) -> Path:
    path = folder / "a.pth"
    path.write_bytes(f"cos\nsystem\n(S\"touch '{marker}'\"\ntR.".encode())
    return path


def torchscript(folder: Path, marker: Path) -> Path:
    path = save_zip(folder / "a.pt", table(weight=tensor()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x/constants.pkl", program(touch(marker)))
        file.writestr("x/code/__torch__.py", "def forward(self): ...")
    return path


def exported_program(folder: Path, marker: Path) -> Path:
    path = folder / "a.pt2"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data/weights/weight_0", program(touch(marker)))
        file.writestr("a/models/model.json", "{}")
        file.writestr("a/archive_format", "pt2")
    return path


def numpy_objects(folder: Path, marker: Path) -> Path:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            import os

            return os.system, (f"touch '{marker}'",)

    np.savez(folder / "a.npz", weight=np.array([Evil()], dtype=object))
    return folder / "a.npz"


def yaml_tag(folder: Path, marker: Path) -> Path:
    path = folder / "a.yaml"
    path.write_text(f"weight: !!python/object/apply:os.system [\"touch '{marker}'\"]\n")
    return path


def old_tar(folder: Path, marker: Path) -> Path:
    with tarfile.open(folder / "a.tar", "w", format=tarfile.USTAR_FORMAT) as file:
        info = tarfile.TarInfo("pickle")
        data = program(touch(marker))
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return folder / "a.tar"


# Sizes that would take memory or time.


def stride_zero_giant(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(shape=(2**15, 2**15), strides=(0, 0))))


def empty_giant(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(shape=(0, 2**62, 2**62), strides=(1, 1, 1))))


def storage_beyond_file(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(storage(count=2**30), shape=(2**30,))))


def legacy_storage_beyond_file(folder: Path, marker: Path) -> Path:
    return save_legacy(folder / "a.pth", table(w=tensor(storage(count=2**40), shape=(2**40,))), count=2**40)


def window_beyond_storage(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(offset=1)))


def negative_stride(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", table(w=tensor(offset=3, strides=(-1,))))


def deflated_bomb(folder: Path, marker: Path) -> Path:
    body = table(w=tensor(storage(count=2**24), shape=(2**24,)))
    return save_zip(folder / "a.pth", body, {"0": bytes(2**26)}, method=zipfile.ZIP_DEFLATED)


def member_inside_member(folder: Path, marker: Path) -> Path:
    inner = b"PK\3\4" + bytes(22) + struct.pack("<HH", 8, 0) + b"x/data/1" + bytes(16)
    path = save_zip(folder / "a.pth", table(w=tensor()), {"0": inner, "1": bytes(16)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"x/data/1") - 46
    data[at + 42 : at + 46] = struct.pack("<I", data.index(inner))
    path.write_bytes(data)
    return path


def endless_program(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", b"}" * 20_000_000)


def huge_texts(folder: Path, marker: Path) -> Path:
    wide = text("\U0001f600" + "a" * 2**20)
    return save_zip(folder / "a.pth", b"](" + wide * 60 + b"e")


def deep_nesting(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", b"]" * 400_000 + b"a" * 399_999)


def hash_bomb(folder: Path, marker: Path) -> Path:
    """A tuple of itself twice, sixty deep: its hash would take 2**60 steps."""
    return save_zip(folder / "a.pth", b"})" + b"q\x00h\x00\x86" * 60 + b"Ns")


def walk_bomb(folder: Path, marker: Path) -> Path:
    """A dictionary that holds the one before it under every wrapper's name, sixty deep."""
    keys = ("params_ema", "params", "g_ema", "G_ema", "state_dict", "generator", "model")
    deeper = b"q\x000" + table(**dict.fromkeys(keys, b"h\x00"))
    return save_zip(folder / "a.pth", b"}" + deeper * 60)


def shared_flood(folder: Path, marker: Path) -> Path:
    """One window of a megabyte under 300,000 names."""
    body = tensor(storage(count=2**18), shape=(2**18,)) + b"q\x000}("
    names = b"".join(text(str(n)) + b"h\x00" for n in range(300_000))
    return save_zip(folder / "a.pth", body + names + b"u", {"0": bytes(2**20)})


def copied_flood(folder: Path, marker: Path) -> Path:
    """Twenty transposed windows of the same 4 MB: each would be copied."""
    window = tensor(storage(count=2**20), shape=(2**10, 2**10), strides=(1, 2**10))
    return save_zip(folder / "a.pth", table(**{f"w{n}": window for n in range(20)}), {"0": bytes(2**22)})


# Tensors that are no plain weights.


def sparse_tensor(folder: Path, marker: Path) -> Path:
    torch.save({"w": torch.eye(3).to_sparse()}, folder / "a.pth")
    return folder / "a.pth"


def quantized_tensor(folder: Path, marker: Path) -> Path:
    source = storage(name("torch.QInt8Storage"))
    return save_zip(folder / "a.pth", table(w=call("torch._utils._rebuild_qtensor", source, number(0), row(), row())))


def complex_tensor(folder: Path, marker: Path) -> Path:
    torch.save({"w": torch.zeros(3, dtype=torch.complex64)}, folder / "a.pth")
    return folder / "a.pth"


def negated_tensor(folder: Path, marker: Path) -> Path:
    torch.save({"w": torch.zeros(3, dtype=torch.complex64).conj().imag}, folder / "a.pth")
    return folder / "a.pth"


def nan_weights(folder: Path, marker: Path) -> Path:
    torch.save({"v": torch.ones(3), "w": torch.tensor([1.0, float("nan")])}, folder / "a.pth")
    return folder / "a.pth"


def infinite_weights(folder: Path, marker: Path) -> Path:
    torch.save({"w": torch.tensor([1.0, float("-inf")], dtype=torch.float16)}, folder / "a.pth")
    return folder / "a.pth"


def duplicate_keys(folder: Path, marker: Path) -> Path:
    return save_zip(folder / "a.pth", b"}(" + text("w") + tensor() + text("w") + tensor() + b"u")


def duplicate_members(folder: Path, marker: Path) -> Path:
    path = save_zip(folder / "a.pth", table(w=tensor()), {"0": bytes(16), "1": bytes(16)})
    path.write_bytes(path.read_bytes().replace(b"x/data/1", b"x/data/0"))
    return path


def big_endian(folder: Path, marker: Path) -> Path:
    path = folder / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", program(table(w=tensor())))
        file.writestr("x/byteorder", "big")
        file.writestr("x/data/0", bytes(16))
    return path


# Safetensors whose header lies.


def huge_header(folder: Path, marker: Path) -> Path:
    path = folder / "a.safetensors"
    with path.open("wb") as file:
        file.write((100 * 2**20).to_bytes(8, "little") + b"{")
        file.truncate(100 * 2**20 + 8)
    return path


def many_lists_header(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", '{"a":[' + "[]," * 1_390_000 + "[]]}", b"")


def deep_header(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", '{"a":' + "[" * 1_000_000, b"")


def _header(**rows: tuple[list[int], list[int]]) -> str:
    return json.dumps({key: {"dtype": "F32", "shape": s, "data_offsets": o} for key, (s, o) in rows.items()})


def overlapping_tensors(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", _header(a=([2], [0, 8]), b=([2], [4, 12])), bytes(12))


def hole_between_tensors(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", _header(a=([2], [0, 8]), b=([2], [12, 20])), bytes(20))


def offsets_beyond_file(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", _header(a=([2**40], [0, 2**42])), bytes(12))


def offsets_backwards(folder: Path, marker: Path) -> Path:
    return save_raw_safetensors(folder / "a.safetensors", _header(a=([2], [8, 0])), bytes(8))


def duplicate_names(folder: Path, marker: Path) -> Path:
    header = _header(a=([2], [0, 8]))
    return save_raw_safetensors(folder / "a.safetensors", header[:-1] + "," + header[1:], bytes(8))


BUILDERS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (
        *(zip_os_system, legacy_os_system, legacy_machine, legacy_keys, zip_eval, zip_exec_by_stack, zip_getattr_chain),
        *(zip_torch_hub, zip_in_rebuild_arguments, zip_function_as_storage, zip_function_as_kind, zip_call_of_storage),
        *(zip_nested_in_params, zip_in_optimizer, zip_build, zip_new_object, zip_instance, zip_extension, zip_module),
        *(pickle_named_safetensors, text_pickle, torchscript, exported_program, numpy_objects, yaml_tag, old_tar),
        *(stride_zero_giant, empty_giant, storage_beyond_file, legacy_storage_beyond_file, window_beyond_storage),
        *(negative_stride, deflated_bomb, member_inside_member, endless_program, huge_texts),
        *(deep_nesting, hash_bomb, walk_bomb, shared_flood, copied_flood, sparse_tensor, quantized_tensor),
        *(complex_tensor, negated_tensor, nan_weights, infinite_weights, duplicate_keys, duplicate_members),
        *(big_endian, huge_header, many_lists_header, deep_header, overlapping_tensors, hole_between_tensors),
        *(offsets_beyond_file, offsets_backwards, duplicate_names),
    )
}

LIVE = ("zip_eval", "zip_exec_by_stack", "zip_getattr_chain", "zip_instance", "pickle_named_safetensors")


def run_unsafely(path: Path) -> None:
    """Do what no reader should: run the file's pickle. Only for showing that the attack is live."""
    data = zipfile.ZipFile(path).read("x/data.pkl") if zipfile.is_zipfile(path) else path.read_bytes()
    pickle.loads(data)
