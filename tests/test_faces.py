"""The way of a face: pasted back without a trace, and everything around it left alone."""

import json

import cv2
import numpy as np
import pytest
import torch
from engines import FakeEngine, FaultyEngine, FullEngine
from face_pictures import TEMPLATE, Finder, face_at, faces_of, smooth
from PIL import Image
from some_pictures import random_array

from restorer import Picture, UpscaleSettings
from restorer.api import Restorer
from restorer.errors import OutOfMemoryError, PictureError, UsageError
from restorer.pipeline.beside import Aside
from restorer.pipeline.faces import work
from restorer.pipeline.faces.align import OUTSIDE, SIDE, resized, then, to_template, undone
from restorer.pipeline.faces.beside import FaceKeeper
from restorer.pipeline.faces.mask import hull_mask
from restorer.pipeline.faces.paste import Paster, Patch, place
from restorer.pipeline.faces.work import with_colour_of
from restorer.pipeline.files import Job
from restorer.pipeline.kinds import worked

# The whole way


@pytest.mark.parametrize("side", [40, 120, 300])
@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_a_network_that_changes_nothing_leaves_no_trace(side, turn):
    """Aligned, given back, and pasted: what comes out is the plain resample."""
    picture = Picture(pixels=(smooth((300, 360)) * 255).astype(np.uint8))
    done = faces_of(face_at((180, 150), side, turn=turn))(picture).picture
    plain = faces_of()(picture).picture
    apart = done.pixels.astype(int) - plain.pixels
    assert np.abs(apart).max() <= 3
    brighter = faces_of(face_at((180, 150), side, turn=turn), engine=painted(), match_colour=False)(picture).picture
    assert (brighter.pixels != plain.pixels).any(axis=2).mean() > 0.5 * (side / 400) ** 2, "something was pasted"
    assert np.abs(apart).mean() < 0.1


def painted(value=1.0):
    """A network that paints every face in one colour."""

    class Painter(FakeEngine):
        def compute(self, x):
            y = torch.full_like(x, value)
            y[:, :, ::2] *= 0.98  # not one single value, which would be a fault
            return y

    return Painter(scale=1, fixed_size=(SIDE, SIDE))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_outside_of_all_masks_every_pixel_is_the_backgrounds(dtype, channels, alpha):
    peak = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    pixels = (smooth((120, 150), channels) * 0.5 * peak).astype(dtype)
    picture = Picture(pixels=pixels, alpha=pixels[:, :, 0].copy() if alpha else None, meta={"xmp": b"x"}, dpi=(72, 72))
    around, rest = FakeEngine(scale=4), UpscaleSettings(scale=3)
    model = faces_of(face_at((70, 60), 50), engine=painted(), around=around, background=rest, match_colour=False)
    done, plain = model(picture).picture, Restorer(around, rest)(picture)
    assert (done.size, done.pixels.dtype, done.channels) == (plain.size, plain.pixels.dtype, channels)
    assert (done.meta, done.dpi) == (picture.meta, picture.dpi)
    if alpha:
        assert np.array_equal(done.alpha, plain.alpha)
    matrix = then(undone(resized(3, 3)), to_template(face_at((70, 60), 50).landmarks))
    mask = cv2.warpAffine(hull_mask(TEMPLATE), matrix, (450, 360), flags=cv2.WARP_INVERSE_MAP)
    far = cv2.dilate(mask, np.ones((9, 9))) == 0  # the mask is shrunk before it is put there, which widens it a little
    assert np.array_equal(done.pixels[far], plain.pixels[far])
    bright = done.pixels[mask > 0.999].astype(np.float64) / peak
    assert bright.min() > 0.9
    assert 0.01 < (mask > 0.999).mean() < (~far).mean() < 0.3


def test_bands_of_any_height_give_the_same_picture():
    rows = (smooth((200, 180)) * 255).astype(np.uint8)
    patch = Patch(
        pixels=smooth((SIDE, SIDE), seed=5),
        mask=hull_mask(TEMPLATE),
        matrix=to_template(face_at((60, 70), 60).landmarks),
    )
    pictures = []
    for step in (200, 7, 64):
        taken = []
        faces = [place(patch, (100, 90), (200, 180))]
        paster = Paster(faces, lambda band, taken=taken: taken.append(band.copy()), channels=3)
        for start in range(0, 200, step):
            paster(rows[start : start + step].copy())
        pictures.append(np.concatenate(taken))
    assert np.abs(pictures[0].astype(int) - rows).max() > 20
    for other in pictures[1:]:
        assert np.abs(other.astype(int) - pictures[0]).max() <= 1


@pytest.mark.parametrize("stripes", ["across", "down"])
@pytest.mark.parametrize("size", [(SIDE, 64), (64, SIDE)])
def test_a_face_is_averaged_along_the_side_that_is_squeezed_and_only_there(size, stripes):
    """Stripes of one pixel: where they are squeezed eight times they are grey, where they are not they stay."""
    pixels = np.zeros((SIDE, SIDE, 3), np.float32)
    pixels[:: 2 if stripes == "across" else 1, :: 2 if stripes == "down" else 1] = 1
    patch = Patch(pixels=pixels, mask=np.ones((SIDE, SIDE), np.float32), matrix=resized(1, 1))
    rows = np.zeros((*size, 3), np.uint8)
    Paster([place(patch, (SIDE, SIDE), size)], lambda band: None, channels=3)(rows)
    if (stripes == "across") == (size[0] == SIDE):
        assert np.array_equal(rows, 255 * pixels[: size[0], : size[1]])
    else:
        assert np.abs(rows.astype(int) - 127.5).max() <= 1


def test_no_step_is_seen_at_the_border_of_the_mask():
    """On a face that the network makes lighter, sharper and of another colour."""

    class Changed(FakeEngine):
        def compute(self, x):
            return (x * 0.8 + 0.15 + 0.05 * torch.linspace(-1, 1, x.shape[-1])).clamp(0, 1)

    picture = Picture(pixels=(smooth((300, 300)) * 255).astype(np.uint8))
    found = face_at((150, 150), 140, turn=0.2)
    done = faces_of(found, engine=Changed(scale=1, fixed_size=(SIDE, SIDE)))(picture).picture
    plain = faces_of()(picture).picture
    matrix = then(undone(resized(2, 2)), to_template(found.landmarks))
    mask = cv2.warpAffine(hull_mask(TEMPLATE), matrix, (600, 600), flags=cv2.WARP_INVERSE_MAP)
    border = (mask[1:] > 0) != (mask[:-1] > 0)

    def step(pixels):
        return np.abs(np.diff(pixels.astype(float), axis=0))[border].mean()

    assert border.sum() > 100
    assert step(done.pixels) <= step(plain.pixels) + 1e-9
    assert (
        np.abs(np.diff(done.pixels.astype(int), axis=0)).max()
        <= np.abs(np.diff(plain.pixels.astype(int), axis=0)).max() + 3
    )


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_network_that_enlarges_is_given_faces_whose_enlargement_fills_the_template(scale):
    engine = FakeEngine(scale=scale)
    picture = Picture(pixels=(smooth((200, 200)) * 255).astype(np.uint8))
    done = faces_of(face_at((100, 100), 90), engine=engine)(picture).picture
    assert engine.calls == [(1, 3, SIDE // scale, SIDE // scale)]
    assert np.abs(done.pixels.astype(int) - faces_of()(picture).picture.pixels).mean() < 1


def test_strength_is_of_a_run_and_of_single_faces():
    picture = Picture(pixels=np.full((200, 400, 3), 50, np.uint8))
    places = (100, 100), (300, 100)
    found = [face_at(places[0], 120), face_at(places[1], 100)]

    def middles(**settings):
        done = faces_of(*found, engine=painted(), match_colour=False, **settings)(picture)
        return [int(done.picture.pixels[2 * y, 2 * x, 0]) for x, y in places], [face.strength for face in done.faces]

    full, _ = middles()
    assert min(full) > 200
    assert middles(strength=0.0) == ([50, 50], [0.0, 0.0])
    half, _ = middles(strength=0.5)
    assert half[0] == pytest.approx((full[0] + 50) / 2, abs=1)
    assert middles(strengths={2: 0.0}) == ([full[0], 50], [1.0, 0.0])


def test_no_face_is_said_and_the_picture_is_enlarged_all_the_same():
    model = faces_of(around=FakeEngine(scale=2), background=UpscaleSettings(scale=2))
    picture = Picture(pixels=random_array((30, 40, 3)))
    assert model.plan(picture).notices == ["no face found"]
    assert np.array_equal(model(picture).picture.pixels, model.background(picture).pixels)


@pytest.mark.parametrize("wrong", ["nan", "inf", "flat"])
def test_a_face_that_fails_is_done_again_in_float32_or_left_and_named(wrong, caplog):
    picture = Picture(pixels=(smooth((200, 400)) * 255).astype(np.uint8))
    found = face_at((100, 100), 120), face_at((300, 100), 100)
    size = {"scale": 1, "fixed_size": (SIDE, SIDE)}
    mended = faces_of(*found, engine=FaultyEngine(at=1, wrong=wrong, **size))
    assert [face.skipped for face in mended(picture).faces] == ["", ""]
    assert "face 2 came back with" in caplog.text
    lost = faces_of(*found, engine=FaultyEngine(at=1, wrong=wrong, hopeless=True, **size))
    plan = lost.plan(picture)
    worked(plan)
    assert len(plan.notices) == 1
    assert "face 2 came back with" in plan.notices[0]
    lost = faces_of(*found, engine=FaultyEngine(at=1, wrong=wrong, hopeless=True, **size))
    done = lost(picture)
    assert [bool(face.skipped) for face in done.faces] == [False, True]
    plain = faces_of()(picture).picture.pixels
    assert np.array_equal(done.picture.pixels[:, 480:], plain[:, 480:])


def test_faces_go_in_batches_that_shrink_where_memory_ends(monkeypatch):
    monkeypatch.setattr(work, "BATCHES", {True: 8, False: 8})
    found = [face_at((60 + 80 * x, 60 + 80 * y), 60) for x in range(4) for y in range(3)]
    engine = FullEngine(most=3 * SIDE**2, scale=1, fixed_size=(SIDE, SIDE))
    picture = Picture(pixels=(smooth((320, 400)) * 255).astype(np.uint8))
    done = faces_of(*found, engine=engine)(picture)
    assert not any(face.skipped for face in done.faces)
    assert [call[0] for call in engine.calls] == [8, 4, 2, 2, 2, 2, 2, 2]
    with pytest.raises(OutOfMemoryError):
        faces_of(*found, engine=FullEngine(most=9, scale=1, fixed_size=(SIDE, SIDE)))(picture)


@pytest.mark.slow
def test_hundreds_of_faces_and_one_larger_than_the_picture():
    many = [face_at((20 + 16 * x, 20 + 16 * y), 20) for x in range(25) for y in range(20)]
    picture = Picture(pixels=(smooth((350, 440)) * 255).astype(np.uint8))
    engine = FakeEngine(scale=16)
    assert len(faces_of(*many, engine=engine, min_face=0)(picture).faces) == 500
    assert len(engine.calls) == 500
    huge = faces_of(face_at((100, 100), 3000))(picture)
    assert huge.faces[0].skipped == ""
    assert huge.picture.size == (700, 880)


def test_detectors_see_eight_bits_of_colour_and_places_are_the_pictures():
    found = face_at((30, 20), 24)
    for pixels in (
        random_array((50, 70, 3), np.uint16),
        random_array((50, 70, 1)),
        np.linspace(-1, 3, 3500, dtype=np.float32).reshape(50, 70, 1),
    ):
        finder = Finder(found)
        (same,) = work.found_in(pixels, finder, None)
        assert np.allclose(same.landmarks, found.landmarks)
        assert (finder.seen[0].dtype, finder.seen[0].shape) == (np.uint8, (50, 70, 3))
    wide = Finder(found)
    (far,) = work.found_in(np.zeros((10, 8192, 1), np.uint8), wide, 0.5)
    assert wide.seen[0].shape == (5, 4096, 3)
    assert np.allclose(far.landmarks, 2 * found.landmarks)
    assert work.found_in(np.zeros((9, 9, 3), np.uint8), Finder(found), 0.95) == []


def test_colour_is_held_and_detail_is_not():
    x = torch.rand(1, 3, 64, 64) * 0.2 + 0.4
    y = (x.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.1).clamp(0, 1)
    y[:, :, ::2] += 0.05
    held = with_colour_of(y, x, torch.ones(1, 1, 64, 64))
    cells = torch.nn.functional.adaptive_avg_pool2d
    assert (cells(held, 8) - cells(x, 8)).abs().max() < 0.01
    assert (held[:, :, ::2] - held[:, :, 1::2]).mean() == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("edge", [5, 42, 63])
def test_what_lies_outside_the_picture_has_no_say_in_colours(edge):
    """A face 0.1 too light inside and white outside: what must be taken off inside is 0.1, up to the last column."""
    x, inside = torch.full((2, 3, 64, 64), 0.4), torch.ones(2, 1, 64, 64)
    x[:, :, :, edge:], inside[:, :, :, edge:] = 0.52, 0
    y = torch.full((2, 3, 128, 128), 0.5)
    y[:, :, :, 2 * edge :] = 1
    held = with_colour_of(y, x, inside)
    assert (held[:, :, :, : 2 * edge] - 0.4).abs().max() < 1e-5


@pytest.mark.parametrize("side", [120, 900])
def test_a_face_at_the_border_keeps_its_colours_whatever_the_network_paints_beyond(side):
    class Whitens(FakeEngine):
        def compute(self, x):
            grey = torch.tensor(OUTSIDE)[:, None, None]
            return torch.where((x - grey).abs().amax(1, keepdim=True) < 1e-5, 1.0, x)

    picture = Picture(pixels=(smooth((300, 360)) * 255).astype(np.uint8))
    found = face_at((10, 150), side)
    done = faces_of(found, engine=Whitens(scale=1, fixed_size=(SIDE, SIDE)))(picture).picture
    apart = np.abs(done.pixels.astype(int) - faces_of(found)(picture).picture.pixels)
    reach = 2 + 2 * 2 * -(-side // SIDE)  # of interpolation over the border, which is another matter
    assert apart[reach:-reach, reach:-reach].max() <= 1


# Cut faces, and what is kept


@pytest.mark.parametrize("side", [100, 256, 512, 900])
def test_a_cut_face_keeps_its_colour_up_to_its_edge(side):
    picture = Picture(pixels=np.full((side, side, 3), 20, np.uint8))
    assert np.abs(faces_of(aligned=True)(picture).picture.pixels.astype(int) - 20).max() <= 1


def test_a_cut_face_comes_out_at_the_networks_size():
    picture = Picture(pixels=(smooth((300, 300)) * 255).astype(np.uint8), meta={"xmp": b"x"})
    done = faces_of(aligned=True)(picture)
    assert done.picture.size == (SIDE, SIDE)
    assert done.picture.meta == {"xmp": b"x"}
    assert len(done.faces) == 1
    wide = Picture(pixels=random_array((30, 40, 3)))
    with pytest.raises(PictureError, match="is 40x30, and an aligned face is a square"):
        faces_of(aligned=True)(wide)
    with pytest.raises(UsageError, match="there is no face 7, the picture has 1"):
        faces_of(aligned=True, only="1,7").plan(picture)
    assert faces_of(aligned=True, only="1", strengths={1: 0.3, 2: 0.5}).plan(picture).lacking == [
        "no face has the number 2, whose strength was set"
    ]
    half = faces_of(aligned=True, engine=painted(), strength=0.5, match_colour=False)(
        Picture(pixels=np.zeros((SIDE, SIDE, 3), np.uint8))
    )
    assert 120 < half.picture.pixels.mean() < 130


def test_crops_a_sheet_and_a_list_are_kept_beside(tmp_path):
    picture = Picture(pixels=(smooth((200, 400)) * 255).astype(np.uint8))
    model = faces_of(face_at((100, 100), 120), face_at((300, 100), 8))
    plan = model.plan(picture)
    worked(plan)
    job = Job(source=tmp_path / "a.jpg", output=tmp_path / "out" / "a.png", name="a.png")
    (tmp_path / "out").mkdir()
    keeper, aside = FaceKeeper(crops=str(tmp_path / "crops"), compare=True, sidecar=True), Aside()
    keeper.keep(job, plan, aside)
    assert [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == []
    aside.end(whole=True)
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == ["a.png-1-after.png", "a.png-1-before.png"]
    told = json.loads((tmp_path / "out" / "a.png.faces.json").read_text())
    assert [face["face"] for face in told["faces"]] == [1, 2]
    assert told["faces"][0]["strength"] == 1.0
    assert "less than 16" in told["faces"][1]["skipped"]
    sheet = cv2.imread(str(tmp_path / "out" / "a.png.faces.png"))
    assert sheet.shape == (SIDE + 16, 2 * SIDE + 24, 3)
    kept = sorted(path for folder in ("crops", "out") for path in (tmp_path / folder).iterdir())
    assert kept == sorted(each.path for each in aside.files) == sorted(keeper.paths(job, plan))
    assert [path.name for path in keeper.paths(job)] == ["a.png.faces.png", "a.png.faces.json"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("space", [b"RGB ", b"GRAY"])
def test_crops_and_sheet_say_what_their_colours_are(tmp_path, channels, space):
    """They are RGB: a profile of such colours goes with them, one of grey does not."""
    profile = bytes(16) + space + bytes(16) + b"acsp" + bytes(88)
    pixels = (smooth((200, 200), channels) * 255).astype(np.uint8)
    picture = Picture(pixels=pixels, icc=profile, meta={"png:gAMA": (100000).to_bytes(4, "big"), "xmp": b"x"})
    plan = faces_of(face_at((100, 100), 120)).plan(picture)
    worked(plan)
    job = Job(source=None, output=tmp_path / "a.jpg", name="a.jpg")
    aside = Aside()
    FaceKeeper(crops=str(tmp_path), compare=True).keep(job, plan, aside)
    aside.end(whole=True)
    for name in ("a.jpg-1-before.png", "a.jpg-1-after.png", "a.jpg.faces.png"):
        with Image.open(tmp_path / name) as image:
            assert image.info.get("icc_profile") == (profile if space == b"RGB " else None)
            assert (image.mode, image.info["gamma"], "xmp" in image.info) == ("RGB", 1.0, False)


def test_a_picture_is_not_written_into_and_can_be_done_twice():
    """At its own size too, where the background's rows are the picture's."""
    pixels = np.full((200, 200, 3), 50, np.uint8)
    picture = Picture(pixels=pixels)
    rest = UpscaleSettings(model="none", scale=1)
    plan = faces_of(face_at((100, 100), 120), engine=painted(), match_colour=False, background=rest).plan(picture)
    first, second = worked(plan), worked(plan)
    assert (pixels == 50).all()
    assert (first.pixels > 200).any()
    assert np.array_equal(first.pixels, second.pixels)


def test_what_floats_hold_above_white_stays():
    pixels = np.full((200, 200, 3), 0.5, np.float32)
    pixels[100, 100] = 3
    rest = UpscaleSettings(model="none", scale=1)
    done = faces_of(face_at((100, 100), 120), engine=painted(0.8), match_colour=False, background=rest)(
        Picture(pixels=pixels)
    )
    assert done.picture.pixels[100, 100].max() == pytest.approx(0.8 + 2, abs=0.02)


def test_what_alpha_hides_is_not_looked_at():
    pixels = np.full((200, 200, 3), 90, np.uint8)
    pixels[:, 100:] = (255, 0, 255)
    alpha = np.full((200, 200), 255, np.uint8)
    alpha[:, 100:] = 0
    plan = faces_of(face_at((80, 100), 120)).plan(Picture(pixels=pixels, alpha=alpha))
    worked(plan)
    assert np.abs(plan.restored[0].before.astype(int) - 90).max() <= 1


def test_faces_that_are_too_large_or_have_no_outline_are_told():
    picture = Picture(pixels=(smooth((700, 700)) * 255).astype(np.uint8))
    plan = faces_of(face_at((350, 350), 600), engine=FakeEngine(scale=4), strengths={2: 0.5}).plan(picture)
    assert "is larger than the network takes" in plan.notices[0]
    assert len(plan.notices) == 1, "of a strength without a face the run speaks"
    assert plan.lacking == ["no face has the number 2, whose strength was set"]
    none = faces_of(face_at((350, 350), 200), masks=lambda y: np.zeros((len(y), SIDE, SIDE), np.float32))
    assert none(picture).faces[0].skipped == "has no outline that the parser sees"
