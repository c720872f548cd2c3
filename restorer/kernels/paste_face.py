"""A restored face back into its place in the picture: turned, masked, blended at the picture's depth, in one pass.

`pipeline.faces.paste` does the same on a processor, where OpenCV turns faces faster than the reference here.
Letters: h w sides of the region, C its colours, s t sides of the face.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.kernels.choice import Impl, uses_triton

Affine = tuple[float, float, float, float, float, float]
"""xx, xy, x0, yx, yy, y0: the pixel (x, y) of the region shows (xx*x + xy*y + x0, yx*x + yy*y + y0) of the face."""
LUMA = (0.299, 0.587, 0.114)
"""What a grey picture takes of red, green and blue."""
PEAKS = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}
"""White, in each depth of a picture."""


def paste_face(rows: Tensor, face: Tensor, mask: Tensor, matrix: Affine, *, impl: Impl = "auto") -> None:
    """(h, w, C) of any depth, (3, s, t), (s, t) in [0, 1] -> mask * face + (1 - mask) * rows, written into `rows`.

    Between its pixels the face is bicubic (of -0.75) and goes on beyond its edge, the mask is bilinear and ends there.
    What no mask covers stays as it was, and so does what floats hold beyond black and white. C is 1 or 3.
    """
    assert rows.ndim == 3 and rows.shape[2] in (1, 3) and rows.dtype in PEAKS, f"{rows.dtype} {tuple(rows.shape)}"
    assert face.shape == (3, *mask.shape), f"a face of shape {tuple(face.shape)}, a mask of {tuple(mask.shape)}"
    if not uses_triton("paste_face", impl, rows, face, mask):
        _reference(rows, face, mask, matrix)
        return
    from restorer.kernels.device import paste_face as device

    device.paste_face(rows, face, mask, matrix, luma=LUMA, peak=PEAKS[rows.dtype])


def _reference(rows: Tensor, face: Tensor, mask: Tensor, matrix: Affine) -> None:
    peak, places = PEAKS[rows.dtype], _places(rows, mask, matrix)
    covers = F.grid_sample(mask.float()[None, None], places, mode="bilinear", align_corners=False)[0, 0, :, :, None]
    turned = F.grid_sample(face.float()[None], places, mode="bicubic", padding_mode="border", align_corners=False)
    shown = turned[0].permute(1, 2, 0)  # (h, w, 3)
    if rows.shape[2] == 1:
        shown = (shown @ torch.tensor(LUMA, device=shown.device))[:, :, None]
    before = rows.float()
    after = before + covers * (shown.clamp(0, 1) * peak - before.clamp(0, peak))
    if rows.dtype != torch.float32:
        after = after.clamp(0, peak).round()
    rows.copy_(torch.where(covers > 0, after, before))


def _places(rows: Tensor, mask: Tensor, matrix: Affine) -> Tensor:
    """(h, w, C), (s, t) -> (1, h, w, 2): where in the face each pixel looks, -1 and 1 at the face's outer edges."""
    xx, xy, x0, yx, yy, y0 = matrix
    down = torch.arange(rows.shape[0], dtype=torch.float32, device=rows.device)[:, None]
    across = torch.arange(rows.shape[1], dtype=torch.float32, device=rows.device)[None, :]
    height, width = mask.shape
    x = (2 * (xx * across + xy * down + x0) + 1) / width - 1
    y = (2 * (yx * across + yy * down + y0) + 1) / height - 1
    return torch.stack([x, y], dim=-1)[None]
