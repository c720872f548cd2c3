"""One process that restores the faces of a photo by restorer and by GFPGAN's own code, or by restorer alone.

    python child_faces.py photo ROUNDS PRECISION    both, in turn; needs gfpgan and facexlib beside restorer
    python child_faces.py memory MEGAPIXELS FACES   restorer alone, and how much memory it took

Weights are random and the same for both; landmarks and parsings are given, so that neither looks for a face.
"""

import json
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
import torchvision

from benchmarks.common import own_peak
from restorer.engines.eager import EagerEngine
from restorer.engines.shared import relative_psnr
from restorer.networks.gfpgan import GFPGANConfig
from restorer.networks.spec import Model, get_spec, load_weights
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.faces import align
from restorer.pipeline.faces.mask import mask_of_classes
from restorer.pipeline.faces.paste import Paster, Patch, place
from restorer.pipeline.faces.work import FaceWork, Tools
from restorer.pipeline.kinds import worked
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.plain import Plain
from restorer.pipeline.settings import FaceSettings, UpscaleSettings
from restorer.resample import resize

PHOTO = Path(__file__).resolve().parents[1] / "tests" / "pictures" / "coffee.png"
PLACES = ((300, 300, 250), (700, 400, 180), (1000, 250, 120))
"""Centre and side of the faces that are claimed to be there."""
SCALE = 2


def main() -> None:
    """Run, and print JSON."""
    mode, first, second = sys.argv[1:4]
    told = memory(float(first), int(second)) if mode == "memory" else photo(int(first), second)
    print(json.dumps(told))


def photo(rounds: int, precision: str) -> dict[str, Any]:
    """Seconds of each round: the whole way of three faces, the network alone, pasting alone."""
    small = read_picture(PHOTO).pixels
    pixels = np.rint(resize(small, (small.shape[0] * 2, small.shape[1] * 2)).clip(0, 255)).astype(np.uint8)
    theirs = Theirs(pixels)
    ours = Ours(Picture(pixels=pixels), load_weights(theirs.network.state_dict()), precision, PLACES)
    seconds: dict[str, dict[str, list[float]]] = {"ours": {}, "theirs": {}}
    for number in range(rounds + 1):
        players: list[tuple[str, Any]] = [("ours", ours), ("theirs", theirs)]
        for name, player in players if number % 2 else players[::-1]:
            for part, took in player.round().items():
                if number:
                    seconds[name].setdefault(part, []).append(took)
    x = torch.rand(1, 3, align.SIDE, align.SIDE)
    with torch.no_grad():
        exact = theirs.network(x * 2 - 1, return_rgb=False, randomize_noise=False)[0]
    y = ours.tools.engine.run({"image": x})["image"] * 2 - 1
    near = relative_psnr(y, exact)
    versions = {name: version(name) for name in ("gfpgan", "facexlib")}
    return {"seconds": seconds, "faces": len(PLACES), "size": list(pixels.shape[:2]), "db": near, **versions}


def memory(megapixels: float, faces: int) -> dict[str, Any]:
    """Peak above this process before a photo was made."""
    torch.manual_seed(0)
    spec = get_spec("gfpgan")
    model = load_weights(spec.build(GFPGANConfig()).state_dict())
    base = own_peak()
    width = round((megapixels * 1.5e6) ** 0.5)
    pixels = np.zeros((round(width / 1.5), width, 3), np.uint8)
    side = width // 12
    places = [(side * (1 + 2 * (n % 5)), side * (1 + 1.2 * (n // 5)), side) for n in range(faces)]
    start = time.perf_counter()
    Ours(Picture(pixels=pixels), model, "fp32", places, scale=1).round()
    return {"peak": own_peak() - base, "photo": pixels.nbytes, "seconds": time.perf_counter() - start, "faces": faces}


class Ours:
    """restorer's way, with faces that are told."""

    name = "told"

    def __init__(self, picture: Picture, model: Model, precision: str, places: Any, *, scale: float = SCALE) -> None:
        self.picture, self.places = picture, places
        engine = EagerEngine(model, device="cpu", precision=precision, self_check=False)
        self.tools = Tools(
            engine=engine, detector=self, masks=lambda y: mask_of_classes(parsing().expand(len(y), -1, -1, -1))
        )
        self.settings = FaceSettings(background=UpscaleSettings(model="none", scale=scale))

    def __call__(self, pixels: Any, *, least_score: float = 0.5) -> list[Detection]:
        """Claim the faces."""
        return [
            Detection(box=(x - s / 2, y - s / 2, x + s / 2, y + s / 2), landmarks=landmarks(x, y, s), score=1)
            for x, y, s in self.places
        ]

    def round(self) -> dict[str, float]:
        """-> seconds of the whole, the network, pasting."""
        work = FaceWork(self.picture, Plain(self.picture, self.settings.background), self.tools, self.settings)
        start = time.perf_counter()
        done = worked(work)
        whole = time.perf_counter() - start
        x = torch.rand(1, 3, align.SIDE, align.SIDE)
        start = time.perf_counter()
        self.tools.engine.run({"image": x})
        network = time.perf_counter() - start
        rows = done.pixels.copy()
        patches = [
            Patch(
                pixels=each.after.astype(np.float32) / 255, mask=np.empty((1, 1), np.float32), matrix=each.face.matrix
            )
            for each in work.restored
        ]
        start = time.perf_counter()
        masks = [self.tools.masks(torch.empty(1))[0] for _ in patches]
        there = [
            place(replace(p, mask=mask), work.size_in, work.size_out) for p, mask in zip(patches, masks, strict=True)
        ]
        Paster([each for each in there if each], lambda band: None, channels=3)(rows)
        return {"whole": whole, "network": network, "paste": time.perf_counter() - start}


class Theirs:
    """GFPGANer.enhance without its search for faces: align, the network face by face, paste with a parsing."""

    def __init__(self, pixels: Any) -> None:
        lend_what_is_gone()
        from facexlib.utils.face_restoration_helper import FaceRestoreHelper
        from gfpgan.archs.gfpganv1_clean_arch import GFPGANv1Clean

        torch.manual_seed(0)
        self.network = GFPGANv1Clean(
            out_size=512, num_style_feat=512, channel_multiplier=2, decoder_load_path=None, fix_decoder=False,
            num_mlp=8, input_is_latent=True, different_w=True, narrow=1, sft_half=True,
        ).eval()  # fmt: skip
        self.helper = object.__new__(FaceRestoreHelper)
        self.helper.template_3points, self.helper.pad_blur, self.helper.save_ext = False, False, "png"
        self.helper.face_template, self.helper.face_size = np.array(align.TEMPLATE), (align.SIDE, align.SIDE)
        self.helper.upscale_factor, self.helper.use_parse, self.helper.device = SCALE, True, torch.device("cpu")
        self.helper.face_parse = lambda x: (parsing(), None)
        self.bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        self.large = cv2.resize(self.bgr, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)

    def round(self) -> dict[str, float]:
        """-> seconds of the whole, the network, pasting."""
        from basicsr.utils import img2tensor, tensor2img
        from torchvision.transforms.functional import normalize

        helper = self.helper
        helper.input_img, helper.all_landmarks_5 = self.bgr, [landmarks(*place) for place in PLACES]
        helper.affine_matrices, helper.inverse_affine_matrices = [], []
        helper.cropped_faces, helper.restored_faces = [], []
        start = time.perf_counter()
        helper.align_warp_face()
        network = 0.0
        for crop in helper.cropped_faces:
            x = img2tensor(crop / 255.0, bgr2rgb=True, float32=True)
            normalize(x, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), inplace=True)
            begun = time.perf_counter()
            with torch.no_grad():
                y = self.network(x[None], return_rgb=False, randomize_noise=False)[0]
            network += time.perf_counter() - begun
            helper.add_restored_face(tensor2img(y.squeeze(0), rgb2bgr=True, min_max=(-1, 1)).astype("uint8"))
        helper.get_inverse_affine(None)
        begun = time.perf_counter()
        helper.paste_faces_to_input_image(upsample_img=self.large)
        end = time.perf_counter()
        return {"whole": end - start, "network": network / len(PLACES), "paste": end - begun}


def landmarks(x: float, y: float, side: float) -> Any:
    """(5, 2): the template's, around a place."""
    return (np.array(align.TEMPLATE) - align.SIDE / 2) * side / align.SIDE + (x, y)


def parsing() -> torch.Tensor:
    """(1, 19, 512, 512): skin inside a circle, background outside."""
    rows, columns = torch.meshgrid(torch.arange(align.SIDE), torch.arange(align.SIDE), indexing="ij")
    skin = ((rows - 256) ** 2 + (columns - 256) ** 2 < 180**2).float()
    logits = torch.zeros(1, 19, align.SIDE, align.SIDE)
    logits[:, 0], logits[:, 1] = 1 - skin, skin
    return logits


def lend_what_is_gone() -> None:
    """A name that basicsr 1.4.2 imports from torchvision."""
    gone = ModuleType("torchvision.transforms.functional_tensor")
    gone.rgb_to_grayscale = torchvision.transforms.functional.rgb_to_grayscale
    sys.modules[gone.__name__] = gone


if __name__ == "__main__":
    main()
