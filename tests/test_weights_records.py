"""What is written down about published weights is well-formed and free of clashes."""

import re
from urllib.parse import urlsplit

import pytest
from loopback import record_of

from restorer.networks import NETWORKS
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS, get_record


@pytest.mark.parametrize("record", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_every_record_is_in_order(record: Record) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", record.name)
    assert record.name.endswith(f"x{record.scale}") or f"-x{record.scale}" in record.name or "xsx" in record.name
    assert record.network in NETWORKS
    assert record.sha256 is None or re.fullmatch("[0-9a-f]{64}", record.sha256)
    assert re.fullmatch("[0-9a-f]{8}|", record.sha256_prefix)
    assert record.url is None or urlsplit(record.url).scheme == "https"
    assert record.url is None or urlsplit(record.url).path.endswith("/" + record.file)
    assert urlsplit(record.source).scheme == "https"
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
