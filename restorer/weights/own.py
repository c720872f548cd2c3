"""The models that this project trained itself, on pictures that anyone may use; their files are in the package."""

from functools import partial

from restorer.weights.record import Record

_photo = partial(Record, network="srgan", scale=4, licence="Apache-2.0", is_own=True)
OWN: tuple[Record, ...] = (
    _photo(
        name="srresnet-photo-x4",
        file="srresnet-photo-x4.safetensors",
        sha256="dbf18ea1ac8f09bd40d3f9a8af6d3ffb327b9ceb1fe0fa393ec656a0696b7dea",
        size=939_484,
        source="weights/srresnet-photo-x4.md",
        summary="clean photos, small and quick; trained without a discriminator: smooth, invents nothing",
    ),
    _photo(
        name="srgan-photo-x4",
        file="srgan-photo-x4.safetensors",
        sha256="5160b6d7f8cfd0c33d32895dbd22f5c8ddfb8eb54b3babeee74084df9cee0513",
        size=939_484,
        source="weights/srgan-photo-x4.md",
        summary="clean photos, small and quick; srresnet-photo-x4 trained on as a GAN: a little sharper",
    ),
    Record(
        name="pix2pix-unfade",
        network="pix2pix",
        scale=1,
        licence="Apache-2.0",
        is_own=True,
        file="pix2pix-unfade.safetensors",
        sha256="77b6ac417c08c454431fc722fa1e7907c3f8c148586f48e2c994c9eb27a2a506",
        size=3_490_388,
        source="weights/pix2pix-unfade.md",
        summary="faded colour prints get their colours back",
    ),
)
