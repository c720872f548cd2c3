"""What is written down about weights for faces is well-formed, found by the field's names, and never fetched untold."""

import re
from urllib.parse import urlsplit

import pytest

from restorer.errors import DownloadError, WeightsError
from restorer.networks import NETWORKS
from restorer.networks.gfpgan import GFPGAN, GFPGANConfig
from restorer.networks.retinaface import RetinaFace, RetinaFaceConfig
from restorer.networks.spec import load_weights
from restorer.pipeline.detectors import DETECTORS
from restorer.weights.face_records import FACES
from restorer.weights.face_weights import PARTS, YUNET_SHA256
from restorer.weights.fetch import fetch
from restorer.weights.find import find_weights
from restorer.weights.record import Record
from restorer.weights.records import CHECKPOINTS, get_record

ELSEWHERE = {"yunet", "restoreformer"}
"""Networks that run outside: in OpenCV, and as spandrel builds them."""
each_record = pytest.mark.parametrize("record", FACES, ids=lambda record: record.name)


@each_record
def test_every_record_is_in_order(record: Record) -> None:
    assert CHECKPOINTS[record.name] is record
    assert re.fullmatch(r"[a-z]+[0-9]*(-[a-z0-9]+(\.[0-9]+)?)?", record.name)
    assert record.network in NETWORKS or record.network in ELSEWHERE
    assert record.scale == 1
    assert record.sha256 is None or re.fullmatch("[0-9a-f]{64}", record.sha256)
    assert record.url is not None
    assert urlsplit(record.url).scheme == urlsplit(record.source).scheme == "https"
    assert urlsplit(record.url).path.endswith("/" + record.file)
    assert record.licence
    assert record.summary
    assert not record.summary.endswith(".")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("GFPGANv1.4", "gfpgan-1.4"),
        ("GFPGANCleanv1-NoCE-C2", "gfpgan-1.2"),
        ("RestoreFormer", "restoreformer"),
        ("retinaface_resnet50", "retinaface-resnet50"),
        ("detection_Resnet50_Final", "retinaface-resnet50"),
        ("face_detection_yunet_2023mar", "yunet"),
        ("parsing_parsenet", "parsing-parsenet"),
        ("bisenet", "parsing-bisenet"),
    ],
)
def test_names_of_the_field_are_understood(alias: str, name: str) -> None:
    assert get_record(alias).name == name


def test_detectors_are_records_or_packed() -> None:
    assert {name for name in DETECTORS if name not in CHECKPOINTS} == {"mtcnn"}
    assert get_record("yunet").sha256 == YUNET_SHA256
    assert all(re.fullmatch("[0-9a-f]{64}", part.sha256) for part in PARTS)


def test_what_was_never_hashed_is_refused_before_any_request(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("RESTORER_OFFLINE", raising=False)
    unknown = [record for record in FACES if record.sha256 is None]
    assert {record.name for record in unknown} == {"gfpgan-1", "arcface-resnet18"}
    for record in unknown:
        with pytest.raises(DownloadError, match="--trust-first-use"):
            fetch(record, folder=tmp_path)


@each_record
def test_offline_says_how_to_get_it(record: Record, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RESTORER_OFFLINE", "1")
    monkeypatch.setenv("RESTORER_CACHE", str(tmp_path))
    monkeypatch.delenv("RESTORER_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=f"restorer models fetch {re.escape(record.name)}"):
        find_weights(record.name)


def test_facts_are_those_that_keys_do_not_say() -> None:
    """Of the two forms of RetinaFace, and of the first GFPGAN."""
    small = RetinaFaceConfig(backbone="mobilenet0.25", features=8, pyramid_features=16)
    for name in ("retinaface-mobilenet0.25", "retinaface-resnet50"):
        model = load_weights(RetinaFace(small).state_dict(), facts=get_record(name).facts)
        assert model.config.form == "original"
    first = GFPGANConfig(widths=(8, 8, 8, 8), style=8, resampling="fir")
    assert get_record("gfpgan-1").facts == {"resampling": first.resampling}
    assert load_weights(GFPGAN(first).state_dict(), facts=get_record("gfpgan-1").facts).config == first
