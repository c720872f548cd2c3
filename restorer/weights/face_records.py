"""Published weights for faces: what restores them, finds them, outlines them, and tells whose they are."""

from functools import partial

from restorer.weights.record import Record

_GFPGAN = "https://github.com/TencentARC/GFPGAN"
_FACEXLIB = "https://github.com/xinntao/facexlib"
_ZOO = "https://github.com/opencv/opencv_zoo/raw/82b38c8f98e7b52aa171400f3e4c722352d0669f/models"

_gfpgan = partial(
    Record,
    network="gfpgan",
    scale=1,
    licence="Apache-2.0 (parts under NVIDIA's StyleGAN2 licence and CC-BY-NC-SA-4.0: not for commercial use)",
    source=_GFPGAN,
)
_facexlib = partial(Record, scale=1, source=_FACEXLIB)

FACES: tuple[Record, ...] = (
    _gfpgan(
        name="gfpgan-1.4",
        file="GFPGANv1.4.pth",
        url=f"{_GFPGAN}/releases/download/v1.3.0/GFPGANv1.4.pth",
        sha256="e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        size=348_632_874,
        summary="faces; a little more detail than 1.3, and closer to the person; the usual choice",
        aliases=("GFPGANv1.4",),
    ),
    _gfpgan(
        name="gfpgan-1.3",
        file="GFPGANv1.3.pth",
        url=f"{_GFPGAN}/releases/download/v1.3.0/GFPGANv1.3.pth",
        sha256="c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
        summary="faces; more natural than 1.2, also of strongly damaged ones",
        aliases=("GFPGANv1.3",),
    ),
    _gfpgan(
        name="gfpgan-1.2",
        file="GFPGANv1.2.pth",
        url=f"{_GFPGAN}/releases/download/v1.3.0/GFPGANv1.2.pth",
        sha256="29e25ee90c170f4231163f4c83df6b59c968b73f3ce00cb884015ae005db083c",
        summary="faces; sharper than 1.3, and beautified",
        aliases=("GFPGANv1.2", "GFPGANCleanv1-NoCE-C2"),
    ),
    _gfpgan(
        name="gfpgan-1",
        file="GFPGANv1.pth",
        url=f"{_GFPGAN}/releases/download/v0.1.0/GFPGANv1.pth",
        summary="faces; the paper's weights, which also give grey faces colour",
        facts={"resampling": "fir"},
        aliases=("GFPGANv1",),
    ),
    Record(
        name="restoreformer",
        network="restoreformer",
        scale=1,
        file="RestoreFormer.pth",
        url=f"{_GFPGAN}/releases/download/v1.3.4/RestoreFormer.pth",
        sha256="07404d446d62ca3d5ed38b1de09a947a1e77d46dbccec961a74d713a8f24ace0",
        licence="Apache-2.0 (the repository that hosts it; its authors state none)",
        source="https://github.com/wzhouxiff/RestoreFormer",
        summary="faces, from a dictionary of good ones; run by the package spandrel",
    ),
    _facexlib(
        name="retinaface-resnet50",
        network="retinaface",
        file="detection_Resnet50_Final.pth",
        url=f"{_FACEXLIB}/releases/download/v0.1.0/detection_Resnet50_Final.pth",
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        size=109_497_761,
        licence="MIT",
        summary="finds faces; the surest",
        facts={"form": "original"},
        aliases=("retinaface_resnet50", "detection_Resnet50_Final"),
    ),
    _facexlib(
        name="retinaface-mobilenet0.25",
        network="retinaface",
        file="detection_mobilenet0.25_Final.pth",
        url=f"{_FACEXLIB}/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        licence="MIT",
        summary="finds faces; small and quick",
        facts={"form": "original"},
        aliases=("retinaface_mobile0.25", "detection_mobilenet0.25_Final"),
    ),
    Record(
        name="yunet",
        network="yunet",
        scale=1,
        file="face_detection_yunet_2023mar.onnx",
        url=f"{_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        size=232_589,
        licence="MIT",
        source="https://github.com/opencv/opencv_zoo",
        summary="finds faces; a small graph that OpenCV runs, the quickest",
        aliases=("face_detection_yunet_2023mar",),
    ),
    _facexlib(
        name="parsing-parsenet",
        network="parsenet",
        file="parsing_parsenet.pth",
        url=f"{_FACEXLIB}/releases/download/v0.2.2/parsing_parsenet.pth",
        sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        size=85_331_193,
        licence="CC-BY-NC-SA-4.0 (PSFRGAN, whose network it is; facexlib, which hosts it, is MIT)",
        summary="outlines the parts of a face",
        aliases=("parsing_parsenet", "parsenet"),
    ),
    _facexlib(
        name="parsing-bisenet",
        network="bisenet",
        file="parsing_bisenet.pth",
        url=f"{_FACEXLIB}/releases/download/v0.2.0/parsing_bisenet.pth",
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        licence="MIT",
        summary="outlines the parts of a face; from face-parsing.PyTorch",
        aliases=("parsing_bisenet", "bisenet"),
    ),
    Record(
        name="arcface-resnet18",
        network="arcface",
        scale=1,
        file="arcface_resnet18.pth",
        url=f"{_GFPGAN}/releases/download/v0.1.0/arcface_resnet18.pth",
        licence="Apache-2.0 (the repository that hosts it)",
        source=_GFPGAN,
        summary="tells whose face it is; GFPGAN learns identity from it",
        aliases=("arcface_resnet18",),
    ),
)
