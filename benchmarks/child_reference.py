"""Upscale pictures with the reference implementation, as its own inference script does on a processor.

Runs in the reference's environment (basicsr, realesrgan) and knows nothing of this project: float32, whole picture at
once, OpenCV to read and write. The last line on stdout is JSON. Arguments: MODEL WEIGHTS.pth IN OUT [IN OUT ...]
"""

import json
import sys
import time
import types
from importlib.metadata import version
from typing import Any

from torchvision.transforms import functional

# basicsr 1.4.2 imports a module that torchvision dropped in 0.17
_dropped = types.ModuleType("torchvision.transforms.functional_tensor")
_dropped.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
sys.modules[_dropped.__name__] = _dropped

import cv2  # noqa: E402
import torch  # noqa: E402
from basicsr.archs.rrdbnet_arch import RRDBNet  # noqa: E402
from realesrgan import RealESRGANer  # noqa: E402
from realesrgan.archs.srvgg_arch import SRVGGNetCompact  # noqa: E402


def network(model: str) -> torch.nn.Module:
    """The architecture of a published model, with random weights."""
    if model == "RealESRGAN_x4plus":
        return RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=23, num_grow_ch=32, scale=4)
    if model == "realesr-animevideov3":
        return SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4, act_type="prelu")
    sys.exit(f"no model named '{model}' here")


def main() -> None:
    """Upscale every IN to its OUT."""
    model, weights, *paths = sys.argv[1:]
    upsampler = RealESRGANer(
        scale=4,
        model_path=weights,
        model=network(model),
        tile=0,
        tile_pad=10,
        pre_pad=0,
        half=False,
        device=torch.device("cpu"),
    )
    seconds: list[float] = []
    process = upsampler.process

    def timed(*args: Any) -> None:
        start = time.perf_counter()
        process(*args)
        seconds.append(time.perf_counter() - start)

    upsampler.process = timed
    for source, target in zip(paths[::2], paths[1::2], strict=True):
        output, _ = upsampler.enhance(cv2.imread(source, cv2.IMREAD_UNCHANGED), outscale=4)
        cv2.imwrite(target, output)
    names = ("torch", "basicsr", "realesrgan")
    told = {"network_seconds": seconds, "threads": torch.get_num_threads(), "versions": {n: version(n) for n in names}}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
