"""restorer translate: any size, nothing cropped, one colour from edge to edge, and what cannot be done in one line."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import Case, random_network
from engines import FullEngine
from PIL import Image
from tiny import save_tiny

import restorer
from restorer.apps.cli import main
from restorer.engines.eager import EagerEngine
from restorer.errors import PictureError, UsageError
from restorer.networks.bands import PictureRows
from restorer.networks.cyclegan import CycleGANConfig
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.networks.spec import load_weights
from restorer.pipeline.picture import Picture
from restorer.pipeline.settings import TranslateSettings
from restorer.pipeline.source import ArrayTaker
from restorer.pipeline.translate import Translation, one_of_pair
from restorer.weights.directions import model_for
from restorer.weights.safe import write_safetensors

SHAPE = (1, 3, 16, 16)
CASES = {
    "pix2pix": Case("pix2pix", Pix2PixConfig(features=8, levels=3), SHAPE, SHAPE),
    "cyclegan": Case("cyclegan", CycleGANConfig(features=8, blocks=2), SHAPE, SHAPE),
    "grey": Case("pix2pix", Pix2PixConfig(features=8, levels=3, in_channels=1), SHAPE, SHAPE),
}
MULTIPLE = {"pix2pix": 8, "cyclegan": 4, "grey": 8}


def photo(height, width, channels=3, dtype=np.uint8, seed=0):
    """Waves with a bright corner: tiles of it have statistics of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [0.4 + 0.2 * np.sin(x / (3 + c)) * np.cos(y / 5) + 0.3 * (y > height / 2) for c in range(channels)]
    values = (np.stack(planes, 2) + 0.05 * rng.random((height, width, channels))).clip(0, 1)
    return values.astype(np.float32) if dtype == np.float32 else np.rint(values * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of each of CASES, as files."""
    where = tmp_path_factory.mktemp("weights")
    for name, case in CASES.items():
        write_safetensors(where / f"{name}.safetensors", dict(random_network(case).state_dict()), {})
    return where


def engine_of(name, **options):
    model = load_weights(dict(random_network(CASES[name]).state_dict()))
    return EagerEngine(model, device="cpu", precision="fp32", **options)


def run(pixels, engine, *, alpha=None, **wanted):
    work = Translation(Picture(pixels=pixels, alpha=alpha), engine, TranslateSettings(model="x", **wanted))
    takers = []

    def open_rows():
        takers.append(ArrayTaker(work.info.size, work.info.samples, work.info.dtype))
        return takers[-1]

    work.run(open_rows)
    return takers[-1].array


def expected(name, pixels):
    """What the network makes of the mirrored and cut picture, in [0, 1]."""
    height, width = pixels.shape[:2]
    multiple = MULTIPLE[name]
    pad = [(0, -side % multiple) for side in (height, width)]
    peak = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    x = np.pad(pixels.astype(np.float64) / peak, [*pad, (0, 0)], mode="reflect")
    with torch.no_grad():
        y = random_network(CASES[name])(torch.from_numpy(x).permute(2, 0, 1)[None].float() * 2 - 1)
    return (y[0].permute(1, 2, 0).numpy()[:height, :width] + 1) / 2


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
@pytest.mark.parametrize("tile", [None, 0, 32], ids=["auto", "whole", "bands"])
@pytest.mark.parametrize("size", [(61, 45), (200, 37), (64, 64)], ids=str)
def test_a_picture_of_any_size_keeps_it_and_is_what_the_network_makes_of_all_of_it(name, tile, size):
    pixels = photo(*size, dtype=np.float32)
    made = run(pixels, engine_of(name), tile=tile)
    assert made.shape == (*size, 3)
    assert np.abs(made - expected(name, pixels)).max() < 2e-5


def test_tiles_by_themselves_would_differ_in_colour():
    """What the bands are for: each half translated by itself is far from the whole."""
    pixels = photo(128, 64, dtype=np.float32)
    halves = np.concatenate([expected("cyclegan", pixels[:64]), expected("cyclegan", pixels[64:])])
    assert np.abs(halves - expected("cyclegan", pixels)).max() > 0.05


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_and_alpha_stay_and_no_network_sees_alpha(dtype):
    pixels, peak = photo(40, 52, dtype=dtype), np.iinfo(dtype).max
    alpha = np.full((40, 52), peak, dtype)
    alpha[:, 26:] = peak // 3
    for tile in (0, 32):
        made = run(pixels, engine_of("cyclegan"), alpha=alpha, tile=tile)
        assert made.dtype == dtype
        assert np.array_equal(made[:, :, 3], alpha)
        error = np.abs(made[:, :, :3] / peak - expected("cyclegan", pixels)).max()
        assert error <= 0.5 / peak + 1e-5


def test_colour_hidden_under_alpha_does_not_count():
    pixels = photo(40, 52)
    alpha = np.full((40, 52), 255, np.uint8)
    alpha[10:20, 10:20] = 0
    other = pixels.copy()
    other[10:20, 10:20] = 255 - other[10:20, 10:20]
    assert np.array_equal(
        run(pixels, engine_of("cyclegan"), alpha=alpha), run(other, engine_of("cyclegan"), alpha=alpha)
    )


def test_grey_goes_in_as_three_channels_and_comes_out_in_colour():
    grey = photo(40, 52, channels=1)
    made = run(grey, engine_of("cyclegan"))
    assert made.shape == (40, 52, 3)
    assert np.array_equal(made, run(grey.repeat(3, axis=2), engine_of("cyclegan")))
    assert np.abs(made.astype(int) - made[:, :, :1]).max() > 10, "it has colours"


def test_a_network_of_one_channel_sees_luma():
    pixels = photo(40, 48)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    truth = expected("grey", (np.rint(luma) / 255).astype(np.float32)[:, :, None])
    for tile in (0, 32):
        assert np.abs(run(pixels, engine_of("grey"), tile=tile) / 255 - truth).max() < 0.003, "in colour, either way"
    assert np.array_equal(
        run(pixels, engine_of("grey")), run(np.rint(luma).astype(np.uint8)[:, :, None], engine_of("grey"))
    )


def test_strength_goes_from_the_input_to_the_network():
    pixels = photo(40, 52)
    full, none = (run(pixels, engine_of("pix2pix"), strength=s).astype(float) for s in (1.0, 0.0))
    half = run(pixels, engine_of("pix2pix"), strength=0.5)
    assert np.array_equal(none, pixels)
    assert np.abs(half - (full + none) / 2).max() <= 1


def test_keeping_colour_keeps_the_mean_of_cells():
    pixels = photo(64, 64)
    plain, kept = (run(pixels, engine_of("pix2pix"), keep_colour=keep) for keep in (False, True))
    inside = slice(16, 48)

    def apart(made):
        return np.abs(made[inside, inside].mean((0, 1)) - pixels[inside, inside].mean((0, 1))).max()

    assert apart(kept) < 3 < apart(plain)


def test_a_pair_is_split_by_direction():
    pixels = photo(16, 32)
    picture = Picture(pixels=pixels, alpha=pixels[:, :, 0])
    left, right = one_of_pair(picture, "a2b"), one_of_pair(picture, "b2a")
    assert np.array_equal(left.pixels, pixels[:, :16])
    assert np.array_equal(right.pixels, pixels[:, 16:])
    assert np.array_equal(right.alpha, pixels[:, 16:, 0])
    assert np.array_equal(run(pixels, engine_of("cyclegan"), pair=True), run(pixels[:, :16], engine_of("cyclegan")))
    with pytest.raises(PictureError, match="is 31 pixels wide"):
        one_of_pair(Picture(pixels=pixels[:, :31]), "a2b")


class Full(EagerEngine):
    """Has no room for one go, nor for bands that read more than `most` rows of the picture."""

    most = 40

    def run(self, inputs):
        self._refuse(inputs["image"].shape[2])
        return super().run(inputs)

    def _walked(self, picture, bands, *, exact=False):
        def read(top, bottom):
            self._refuse(bottom - top)
            return picture.read(top, bottom)

        return super()._walked(PictureRows(picture.height, read), bands, exact=exact)

    def _refuse(self, rows):
        if rows > self.most:
            raise restorer.errors.OutOfMemoryError("no room")


def test_where_memory_does_not_suffice_it_begins_again_in_bands(caplog):
    model = load_weights(dict(random_network(CASES["cyclegan"]).state_dict()))
    engine = Full(model, device="cpu", precision="fp32", self_check=False)
    pixels = photo(80, 40)
    assert np.array_equal(run(pixels, engine), run(pixels, engine_of("cyclegan"), tile=32))
    assert "not enough memory" in caplog.text
    with pytest.raises(restorer.errors.OutOfMemoryError, match="whole picture at once"):
        run(pixels, engine, tile=0)
    engine.most = 0
    with pytest.raises(restorer.errors.OutOfMemoryError, match="this picture's maps"):
        run(pixels, engine)


def test_an_engine_that_cannot_walk_says_so_and_does_not_tile():
    engine = engine_of("cyclegan")
    engine.walk = None
    with pytest.raises(UsageError, match="--tile 0"):
        run(photo(80, 40), engine, tile=32)
    small = run(photo(40, 40), engine)
    assert small.shape == (40, 40, 3)


def test_numbers_that_are_not_finite_are_done_again_in_float32_or_refused(caplog):
    engine = engine_of("cyclegan")
    honest = engine.walk

    def broken(picture, bands, *, exact=False):
        for top, y in honest(picture, bands):
            yield top, y if exact else y * float("nan")

    engine.walk, engine.run_again = broken, engine._run_float
    pixels = photo(80, 40)
    assert np.array_equal(run(pixels, engine, tile=32), run(pixels, engine_of("cyclegan"), tile=32))
    assert "again in float32" in caplog.text
    engine.run_again = None
    with pytest.raises(restorer.errors.NumericalError, match="not finite"):
        run(pixels, engine, tile=32)


def test_progress_goes_up_to_all_pixels():
    work = Translation(Picture(pixels=photo(128, 40)), engine_of("cyclegan"), TranslateSettings(model="x", tile=32))
    told = []
    taker = ArrayTaker((128, 40), 3, np.dtype(np.uint8))
    work.run(lambda: taker, progress=lambda done, total: told.append((done, total)))
    done = [each for each, _ in told]
    assert done == sorted(done)
    assert told[-1] == (128 * 40, 128 * 40)
    assert len(set(done)) > 20


# the command


def test_a_folder_is_translated_once_and_keeps_what_files_hold(folder, tmp_path, capsys):
    inside = tmp_path / "in"
    inside.mkdir()
    exif = Image.Exif()
    exif[271] = "Maker"
    Image.fromarray(photo(30, 41)).save(inside / "a.jpg", exif=exif, dpi=(200, 200), icc_profile=b"")
    Image.fromarray(photo(30, 42, channels=1)[:, :, 0]).save(inside / "b.png")
    words = ["translate", str(inside), "-o", str(tmp_path / "out"), "--model", str(folder / "pix2pix.safetensors")]
    assert main([*words, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] == "result"] == ["result"] * 2
    with Image.open(tmp_path / "out" / "a.jpg") as made:
        assert made.size == (41, 30)
        assert made.getexif()[271] == "Maker"
        assert made.info["dpi"] == (200, 200)
    with Image.open(tmp_path / "out" / "b.png") as made:
        assert (made.size, made.mode) == ((42, 30), "RGB")
    assert main([*words, "--json"]) == 0
    assert '"skipped": 2' in capsys.readouterr().out
    assert main([*words, "--json", "--strength", "0.5"]) == 0
    assert '"done": 2' in capsys.readouterr().out


def test_a_grey_profile_does_not_follow_into_colour(folder):
    before = Picture(pixels=photo(16, 16, channels=1), icc=b"grey profile", meta={"png:sBIT": b"x", "exif": b"y"})
    settings = TranslateSettings(model=str(folder / "cyclegan.safetensors"))
    after = restorer.Translator.open(settings=settings).restore(before)
    assert after.icc is None
    assert after.channels == 3
    assert after.meta == {"exif": b"y"}
    colour = Picture(pixels=photo(16, 16), icc=b"profile")
    assert restorer.Translator.open(settings=settings).restore(colour).icc == b"profile", "of colours it stays"


def test_a_label_map_is_translated_by_its_colours(folder, tmp_path, capsys):
    palette = tmp_path / "palette.txt"
    palette.write_text("0 0 0\n128 0 0\n", encoding="utf-8")
    numbers = (photo(24, 24, channels=1)[:, :, 0] > 120).astype(np.uint8)
    Image.fromarray(numbers).save(tmp_path / "labels.png")
    coloured = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)[numbers]
    Image.fromarray(coloured).save(tmp_path / "coloured.png")
    common = ["--model", str(folder / "pix2pix.safetensors"), "--quiet", "--palette", str(palette)]
    for name in ("labels", "coloured"):
        assert main(["translate", str(tmp_path / f"{name}.png"), "-o", str(tmp_path / f"{name}-out.png"), *common]) == 0
    one, other = (np.array(Image.open(tmp_path / f"{name}-out.png")) for name in ("labels", "coloured"))
    assert np.array_equal(one, other)
    Image.fromarray(numbers + 5).save(tmp_path / "wrong.png")
    assert main(["translate", str(tmp_path / "wrong.png"), "-o", str(tmp_path / "no.png"), *common]) == 1
    assert "outside the palette" in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()


REFUSED = {
    "--direction up": (2, "up"),
    "--direction b2a": (2, "no opposite"),
    "--noise -1": (2, "noise"),
    "--noise 1": (1, "leave noise out"),
    "--strength 2": (2, "strength"),
    "--palette nothing.txt": (2, "nothing.txt"),
    "--pair": (1, "even width"),
    "--engine onnx --tile 32": (1, "--tile 0"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_one_line(folder, tmp_path, capsys, words):
    if "onnx" in words:
        pytest.importorskip("onnxruntime")
    status, told = REFUSED[words]
    Image.fromarray(photo(80, 41)).save(tmp_path / "a.png")
    base = ["translate", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--quiet"]
    assert main([*base, "--model", str(folder / "cyclegan.safetensors"), *words.split()]) == status
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
    assert not (tmp_path / "b.png").exists()


def test_a_network_of_another_task_is_sent_to_its_command(folder, tmp_path, capsys):
    Image.fromarray(photo(16, 16)).save(tmp_path / "a.png")
    out = ["-o", str(tmp_path / "b.png"), "--quiet"]
    assert main(["translate", str(tmp_path / "a.png"), *out, "--model", save_tiny(tmp_path / "x4.safetensors")]) == 2
    assert "restorer upscale" in capsys.readouterr().err
    translating = str(folder / "cyclegan.safetensors")
    assert main(["upscale", str(tmp_path / "a.png"), *out, "--model", translating]) == 2
    assert "restorer translate" in capsys.readouterr().err


def test_the_opposite_of_a_file_is_its_sibling(tmp_path):
    for one, other in (("generator-a2b.safetensors", "generator-b2a.safetensors"), ("9_net_G_A.pth", "9_net_G_B.pth")):
        for name in (one, other):
            (tmp_path / name).touch()
        assert model_for(str(tmp_path / one), "a2b", pair=False) == str(tmp_path / one)
        assert model_for(str(tmp_path / one), "b2a", pair=False) == str(tmp_path / other)
        assert model_for(str(tmp_path / other), "b2a", pair=False) == str(tmp_path / one)
        assert model_for(str(tmp_path / one), "b2a", pair=True) == str(tmp_path / one)
    with pytest.raises(UsageError, match="no opposite"):
        model_for(str(tmp_path / "alone.pth"), "b2a", pair=False)


def test_pictures_of_any_kind_come_back_as_what_they_were(folder):
    model = str(folder / "cyclegan.safetensors")
    pixels = photo(20, 28)
    made = restorer.translate(pixels, model=model)
    assert made.shape == pixels.shape
    image = restorer.translate(Image.fromarray(pixels), model=model)
    assert np.array_equal(np.array(image), made)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(restorer.translate(buffer.getvalue(), model=model).pixels, made)
    grey = restorer.translate(pixels[:, :, 0], model=model)
    assert grey.shape == (20, 28, 3)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    tensor = restorer.translate(batch, model=model)
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), made)
    half = restorer.translate(batch.to(torch.bfloat16) / 255, model=model)
    assert half.dtype == torch.bfloat16
    assert (half[0].float() - tensor[0].float() / 255).abs().max() < 0.05
    with pytest.raises(PictureError, match="cannot make a picture of int"):
        restorer.translate(5, model=model)


def test_no_room_for_a_fixed_size_is_told_at_once(tmp_path):
    engine = FullEngine(most=0, scale=1, radius=2, fixed_size=(16, 16))
    engine.walk = None
    work = Translation(Picture(pixels=photo(40, 48)), engine, TranslateSettings(model="x"))
    with pytest.raises(restorer.errors.OutOfMemoryError, match="fixed size"):
        work.run(lambda: ArrayTaker((40, 48), 3, np.dtype(np.uint8)))


def test_room_is_that_of_padded_sides():
    model = load_weights(dict(random_network(CASES["pix2pix"]).state_dict()))
    engine = EagerEngine(model, device="cpu", precision="fp32", self_check=False)
    engine.traits = replace(engine.traits, multiple_of=256, min_side=256)
    narrow = Picture(pixels=np.zeros((1, 60_000, 3), np.uint8))
    assert Translation(narrow, engine, TranslateSettings(model="x")).rows, "256 rows of it do not go in one go"
