"""What is written down about published weights is well-formed and free of clashes."""

import re
from urllib.parse import urlsplit

import pytest
from house import HOME
from loopback import record_of

from restorer.api import open_model
from restorer.errors import WeightsError
from restorer.networks import NETWORKS
from restorer.weights.face_records import FACES
from restorer.weights.fetch import sha256_of
from restorer.weights.find import find_weights
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS, get_record
from restorer.weights.translation_records import TRANSLATIONS

OTHERS = [record for record in CHECKPOINTS.values() if record.is_own and record.scale == 1]
UPSCALERS = [record for record in CHECKPOINTS.values() if record not in (*FACES, *TRANSLATIONS, *OTHERS)]


@pytest.mark.parametrize("record", [*UPSCALERS, *OTHERS], ids=lambda record: record.name)
def test_every_record_is_in_order(record: Record) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", record.name)
    assert (
        record in OTHERS
        or record.name.endswith(f"x{record.scale}")
        or f"-x{record.scale}" in record.name
        or "xsx" in record.name
    )
    assert record.network in NETWORKS
    assert record.sha256 is None or re.fullmatch("[0-9a-f]{64}", record.sha256)
    assert re.fullmatch("[0-9a-f]{8}|", record.sha256_prefix)
    assert record.url is None or urlsplit(record.url).scheme == "https"
    assert record.url is None or urlsplit(record.url).path.endswith("/" + record.file)
    assert urlsplit(record.source).scheme == "https" or (record.is_own and (HOME / record.source).is_file())
    assert record.licence
    assert record.summary
    assert not record.summary.endswith(".")


def test_names_aliases_and_files_are_unique() -> None:
    names = [name.lower() for record in CHECKPOINTS.values() for name in {record.name, *record.aliases}]
    files = [record.file for record in CHECKPOINTS.values()]
    assert len(set(names)) == len(names)
    assert len(set(files)) == len(files)


def test_partners_are_mutual_and_alike() -> None:
    pairs = [(record, CHECKPOINTS[record.partner]) for record in CHECKPOINTS.values() if record.partner]
    assert {one.name for one, _ in pairs} == {"realesr-general-x4v3", "realesr-general-wdn-x4v3"}
    for one, two in pairs:
        assert two.partner == one.name
        assert (one.network, one.scale) == (two.network, two.scale)
        assert {one.denoise, two.denoise} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("RealESRGAN_x4plus", "realesrgan-x4plus"),
        ("RealESRGAN_x4plus_anime_6B", "realesrgan-x4plus-anime-6b"),
        ("realesrgan-x4plus-anime", "realesrgan-x4plus-anime-6b"),
        ("realesr-animevideov3", "realesr-animevideov3-x4"),
        ("bsrgan", "bsrgan-x4"),
    ],
)
def test_names_of_the_field_are_understood(alias: str, name: str) -> None:
    assert get_record(alias).name == name


@pytest.mark.parametrize(("field", "value"), [("file", "../x.pth"), ("file", "a/b.pth"), ("sha256", "abc")])
def test_a_wrong_record_is_refused_early(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=field):
        record_of(None, **{field: value})


@pytest.mark.parametrize("record", [record for record in CHECKPOINTS.values() if record.is_own], ids=lambda r: r.name)
def test_our_own_models_are_here_whole_small_and_work_without_a_download(record: Record, monkeypatch, tmp_path) -> None:
    """Their files, their cards and the table of the folder name the same bytes."""
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))
    monkeypatch.delenv("RESTORER_WEIGHTS", raising=False)
    found = find_weights(record.name)
    assert (found.where, found.path.stat().st_size, sha256_of(found.path)) == ("package", record.size, record.sha256)
    assert record.size <= 4_000_000
    assert f"`{record.sha256}`" in (HOME / "weights" / "README.md").read_text(encoding="utf-8")
    model = open_model(record.name)
    assert (model.spec.name, model.traits.scale) == (record.network, record.scale)
    card = (HOME / record.source).read_text(encoding="utf-8")
    assert f"{sum(p.numel() for p in model.network.parameters()):,} parameters" in card


def test_a_damaged_file_of_our_own_is_not_used(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("restorer.weights.find._package_folders", lambda: (tmp_path,))
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "srresnet-photo-x4.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="install restorer again"):
        find_weights("srresnet-photo-x4")
