"""What is written down about published weights that translate: well-formed, in pairs, and never fetched untold."""

import re
from dataclasses import replace
from urllib.parse import urlsplit

import loopback
import pytest
from loopback import CONTENT, get, left_in, refusal

from restorer.errors import DownloadError, WeightsError
from restorer.networks import NETWORKS
from restorer.pipeline.events import quicker
from restorer.weights import fetch as fetching
from restorer.weights.fetch import fetch
from restorer.weights.find import find_weights
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS, get_record
from restorer.weights.translation_records import TRANSLATIONS, opposite

CYCLEGAN = """apple2orange orange2apple summer2winter_yosemite winter2summer_yosemite horse2zebra zebra2horse
monet2photo style_monet style_cezanne style_ukiyoe style_vangogh sat2map map2sat cityscapes_photo2label
cityscapes_label2photo facades_photo2label facades_label2photo iphone2dslr_flower"""
PIX2PIX = "edges2shoes sat2map map2sat facades_label2photo day2night"
"""The names that the published download scripts offer."""
each_record = pytest.mark.parametrize("record", TRANSLATIONS, ids=lambda record: record.name)


def test_every_published_model_has_its_record_and_its_address() -> None:
    server = "http://efrosgans.eecs.berkeley.edu"
    expected = [f"{server}/cyclegan/pretrained_models/{name}.pth" for name in CYCLEGAN.split()]
    expected += [f"{server}/pix2pix/models-pytorch/{name}.pth" for name in PIX2PIX.split()]
    assert sorted(str(record.url) for record in TRANSLATIONS) == sorted(expected)
    assert len(TRANSLATIONS) == 18 + 5


@each_record
def test_every_record_is_in_order(record: Record) -> None:
    assert CHECKPOINTS[record.name] is record
    assert re.fullmatch(r"(cyclegan|pix2pix)(-[a-z0-9]+)+", record.name)
    assert record.network in NETWORKS
    assert record.name.startswith(f"{record.network}-")
    assert f"/{record.network}/" in str(record.url)
    assert record.name.split("-")[1:] == str(record.url).rpartition("/")[2].removesuffix(".pth").split("_")
    assert (record.scale, record.sha256, record.sha256_prefix, record.size) == (1, None, "", None)
    assert record.file == f"{record.name}.pth"
    assert urlsplit(record.source).scheme == "https"
    assert "unknown" in record.licence
    assert record.summary
    assert not record.summary.endswith(".")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("horse2zebra", "cyclegan-horse2zebra"),
        ("style_vangogh", "cyclegan-style-vangogh"),
        ("edges2shoes", "pix2pix-edges2shoes"),
        ("facades_photo2label", "cyclegan-facades-photo2label"),
    ],
)
def test_names_of_the_field_are_understood_where_they_mean_one(alias: str, name: str) -> None:
    assert get_record(alias).name == name


@pytest.mark.parametrize("name", ["sat2map", "map2sat", "facades_label2photo"])
def test_names_that_two_families_have_mean_neither(name: str) -> None:
    assert name in CYCLEGAN.split()
    assert name in PIX2PIX.split()
    assert all(name not in record.aliases for record in CHECKPOINTS.values())


# Opposites


def test_opposites_are_mutual_and_of_one_family() -> None:
    pairs = {(record.name, record.opposite) for record in TRANSLATIONS if record.opposite}
    assert pairs == {(two, one) for one, two in pairs}
    assert len(pairs) == 2 * 7
    for one, two in pairs:
        assert one != two
        assert CHECKPOINTS[one].network == CHECKPOINTS[two].network


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cyclegan-horse2zebra", "cyclegan-zebra2horse"),
        ("apple2orange", "cyclegan-orange2apple"),
        ("cyclegan-summer2winter-yosemite", "cyclegan-winter2summer-yosemite"),
        ("cyclegan-sat2map", "cyclegan-map2sat"),
        ("pix2pix-sat2map", "pix2pix-map2sat"),
        ("cyclegan-cityscapes-label2photo", "cyclegan-cityscapes-photo2label"),
        ("Cyclegan-Facades-Photo2Label", "cyclegan-facades-label2photo"),
        ("pix2pix-facades-label2photo", None),
        ("cyclegan-style-monet", None),
        ("realesrgan-x4plus", None),
        ("mine.pth", None),
    ],
)
def test_the_other_way_is_known_by_any_name(name: str, other: str | None) -> None:
    assert opposite(name) == other


def test_no_model_for_another_task_is_called_quicker() -> None:
    names = {record.name for record in TRANSLATIONS}
    assert all(quicker(record.name) == "" for record in TRANSLATIONS)
    assert names.isdisjoint(record.quicker[0] for record in CHECKPOINTS.values() if record.quicker)


# Plain http without a hash


@pytest.fixture
def asked(monkeypatch):
    """Addresses that would have been asked; the network is online as far as anyone can tell."""
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)
    urls: list[str] = []

    def receive(job: fetching.Transfer) -> bool:
        urls.append(job.url)
        job.part.write_bytes(CONTENT)
        return True

    monkeypatch.setattr(fetching, "receive", receive)
    return urls


def test_nothing_is_asked_of_plain_http_until_first_use_is_trusted(asked, tmp_path) -> None:
    for record in TRANSLATIONS:
        with pytest.raises(DownloadError, match=r"is not https.*--trust-first-use") as caught:
            fetch(record, folder=tmp_path)
        assert "\n" not in str(caught.value)
    assert asked == []
    record = get_record("cyclegan-sat2map")
    assert fetch(record, folder=tmp_path, trust_first_use=True).name == "cyclegan-sat2map.pth"
    assert asked == [record.url]


def test_what_was_trusted_is_held_to_its_bytes(asked, tmp_path) -> None:
    record = get_record("pix2pix-sat2map")
    path = fetch(record, folder=tmp_path, trust_first_use=True)
    assert fetch(record, folder=tmp_path) == path
    path.write_bytes(b"other")
    with pytest.raises(DownloadError, match="is not https"):
        fetch(record, folder=tmp_path)
    assert left_in(tmp_path) == {fetching.PINS}
    assert len(asked) == 1


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"sha256_prefix": "01234567"}])
def test_trust_opens_plain_http_to_no_record_with_a_hash(asked, tmp_path, known) -> None:
    record = replace(get_record("cyclegan-horse2zebra"), **known)
    line = refusal(lambda: fetch(record, folder=tmp_path, trust_first_use=True))
    assert "is not https" in line
    assert "--trust-first-use" not in line
    assert asked == []


@pytest.mark.parametrize("url", ["ftp://example.org/x.pth", "file:///x.pth"])
def test_trust_opens_no_other_kind_of_address(asked, tmp_path, url: str) -> None:
    record = replace(get_record("cyclegan-horse2zebra"), url=url)
    assert "is not https" in refusal(lambda: fetch(record, folder=tmp_path, trust_first_use=True))
    assert asked == []


def test_a_plain_address_still_leads_to_no_other_plain_one(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)
    with loopback.serve(CONTENT) as server:
        server.answers = [loopback.redirect("http://example.org/x.pth")]
        record = replace(get_record("cyclegan-horse2zebra"), url=server.url)
        assert "which is not https" in refusal(lambda: get(record, tmp_path, trust_first_use=True))


@each_record
def test_offline_says_how_to_get_it(record: Record, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))
    monkeypatch.delenv("RESTORER_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=f"restorer models fetch {re.escape(record.name)} --trust-first-use"):
        find_weights(record.name)
