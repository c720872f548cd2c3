"""Two domains of pictures: where they are found, how pairs are cut, what is drawn, and every refusal in one line."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from restorer.errors import DataError
from restorer.networks.spec import Traits
from restorer.training.data import ReadAhead, batches_of
from restorer.training.translation_data import TranslationDataConfig, TranslationSource, resized, size_for

SIZE = (20, 24)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Every pixel tells its place: (row, column, number)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows, columns, np.full(size, number)], axis=2).astype(np.uint8)


def save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def beside(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A pair side by side: a is picture `number`, b is picture 100 + `number`."""
    return np.concatenate([picture(number, size), picture(100 + number, size)], axis=1)


def traits(inputs: int = 3, outputs: int = 3, **changed) -> Traits:
    fixed = {"radius": 1, "overlap": 1, "precisions": frozenset({"fp32"})}
    return Traits(in_channels=inputs, out_channels=outputs, **{**fixed, **changed})


def source(root, *, aligned: bool = True, facts: Traits | None = None, seed: int = 7, **changed) -> TranslationSource:
    config = TranslationDataConfig(root=str(root), **{"preprocess": "crop", "crop": 8, **changed})
    return TranslationSource(config, facts or traits(), seed=seed, aligned=aligned)


def drawn(data: TranslationSource, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [data.crops(position, rng) for position in range(count)]


@pytest.fixture
def facades(tmp_path):
    """Side by side, as in the published facades."""
    for number in range(4):
        save(tmp_path / "train" / f"{number}.png", beside(number))
    save(tmp_path / "test" / "0.png", beside(50))
    return tmp_path


@pytest.fixture
def horses(tmp_path):
    """Two folders that share nothing: 3 of a, 5 of b."""
    for number in range(3):
        save(tmp_path / "trainA" / f"n0238_{number}.png", picture(number))
    for number in range(5):
        save(tmp_path / "trainB" / f"n0239_{number}.png", picture(100 + number))
    return tmp_path


def test_the_left_half_is_a_and_the_right_half_is_b(facades):
    for truth, given in drawn(source(facades), 12):
        assert np.all(truth[..., 2] == given[..., 2].max() + 100)
        assert given[..., 2].max() < 4
        assert truth.shape == given.shape == (8, 8, 3)


def test_b2a_swaps_what_is_given_and_what_is_true(facades, horses):
    for folder, aligned in ((facades, True), (horses, False)):
        forth = drawn(source(folder, aligned=aligned, layout="auto"), 6)
        back = drawn(source(folder, aligned=aligned, layout="auto", direction="b2a"), 6)
        for (truth, given), (other_truth, other_given) in zip(forth, back, strict=True):
            assert np.array_equal(truth, other_given)
            assert np.array_equal(given, other_truth)


def test_channels_are_those_of_the_side_that_is_given_or_made(facades):
    truth, given = drawn(source(facades, facts=traits(1, 3)), 1)[0]
    assert (given.shape[2], truth.shape[2]) == (1, 3)
    truth, given = drawn(source(facades, facts=traits(1, 3), direction="b2a"), 1)[0]
    assert (given.shape[2], truth.shape[2]) == (1, 3)
    assert given.max() > 11  # the luma of b, whose third channel is 100 and more


def test_pairs_share_place_and_flip_and_both_vary(facades):
    seen = set()
    for truth, given in drawn(source(facades), 64):
        assert np.array_equal(truth[..., :2], given[..., :2])
        columns = given[0, :, 1].astype(int)
        seen.add((int(given[0, 0, 0]), int(columns.min()), bool(columns[0] > columns[-1])))
        assert abs(np.diff(columns)).tolist() == [1] * 7
    assert len({entry[:2] for entry in seen}) > 20
    assert {flipped for *_, flipped in seen} == {True, False}


def test_strangers_share_neither_place_nor_flip_nor_number(horses):
    pairs = drawn(source(horses, aligned=False), 60)
    places = [[(int(x[0, :, 1].min()), int(x[0, 0, 0])) for x in pair] for pair in pairs]
    flips = [[bool(x[0, 0, 1] > x[0, 1, 1]) for x in pair] for pair in pairs]
    assert sum(a == b for a, b in places) < 10
    assert 10 < sum(a == b for a, b in flips) < 50
    partners = {(int(given[0, 0, 2]), int(truth[0, 0, 2])) for truth, given in pairs}
    assert partners == {(a, 100 + b) for a in range(3) for b in range(5)}


def test_an_epoch_of_strangers_is_as_long_as_the_larger_folder(horses):
    data = source(horses, aligned=False)
    assert len(data) == 5
    given = [int(pair[1][0, 0, 2]) for pair in drawn(data, 15)]
    epochs = [sorted(given[start : start + 5]) for start in (0, 5, 10)]
    assert epochs == [[0, 0, 1, 1, 2]] * 3  # the numbers 0..4 modulo 3, each once
    turned = source(horses, aligned=False)
    turned.domains = replace(turned.domains, a=turned.domains.b, b=turned.domains.a)
    given = [int(pair[1][0, 0, 2]) for pair in drawn(turned, 5)]
    assert sorted(given) == [100, 101, 102, 103, 104]


def test_without_flip_nothing_is_mirrored(facades):
    for _, given in drawn(source(facades, flip=False), 24):
        assert given[0, 0, 1] < given[0, 1, 1]


@pytest.mark.parametrize("aligned", [True, False])
def test_a_batch_follows_from_seed_and_step_alone(facades, horses, aligned):
    def make(seed: int = 7):
        data = source(facades if aligned else horses, aligned=aligned, layout="aligned" if aligned else "unaligned")
        data.seed = seed
        return batches_of(data, batch=2, rank=0, processes=1, turns=1)

    expected = [make()(step, 0) for step in range(6)]
    assert {name: x.shape for name, x in expected[0].items() if name != "chance"} == {
        "high": (2, 3, 8, 8), "low": (2, 3, 8, 8),
    }  # fmt: skip
    with ReadAhead(make(), turns=lambda step: 1, start=2, stop=6, threads=4) as steps:
        for (again,), first in zip(steps, expected[2:], strict=True):
            assert all(torch.equal(again[name], first[name]) for name in ("low", "high", "chance"))
    assert not torch.equal(make(8)(0, 0)["low"], expected[0]["low"])
    data = source(facades if aligned else horses, aligned=aligned, layout="aligned" if aligned else "unaligned")
    halves = [batches_of(data, batch=2, rank=rank, processes=2, turns=1)(3, 0)["low"] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), expected[3]["low"])


def test_a_file_that_is_known_to_be_broken_is_passed_over_as_when_it_was_found(horses):
    (horses / "trainB" / "n0239_2.png").write_bytes(b"no picture")
    knows = source(horses, aligned=False)
    drawn(knows, 40)
    assert knows.bad == 1
    met = 0
    for seed in range(20):
        finds = source(horses, aligned=False)
        pairs = [data.crops(seed, np.random.default_rng(seed)) for data in (knows, finds)]
        met += finds.bad
        assert all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True))
    assert met


# ---- where pictures are found


def test_pairs_are_found_side_by_side_in_two_folders_or_by_the_word_of_their_phase(tmp_path):
    for number in range(3):
        save(tmp_path / "flat" / f"{number}.png", beside(number))
        for style, ends in (("nested", ("A/val", "B/val")), ("twins", ("valA", "valB"))):
            save(tmp_path / style / ends[0] / f"{number}.png", picture(number))
            save(tmp_path / style / ends[1] / f"{number}.bmp", picture(100 + number))
    for folder, layout in (("flat", "aligned"), ("nested", "folders"), ("twins", "folders")):
        for chosen in ("auto", layout):
            data = source(tmp_path / folder, layout=chosen, phase="val")
            assert (data.domains.layout, len(data)) == (layout, 3)
            for truth, given in drawn(data, 6):
                assert np.all(truth[..., 2] == given[..., 2] + 100)
    strangers = source(tmp_path / "nested", phase="val", aligned=False)
    assert strangers.domains.layout == "unaligned"


def test_auto_takes_two_folders_for_pairs_only_where_the_game_needs_pairs(tmp_path, facades):
    for side in "AB":
        for number in range(2):
            save(tmp_path / f"train{side}" / f"{number}.png", picture(number))
    assert source(tmp_path, aligned=False).domains.layout == "unaligned"
    assert source(tmp_path).domains.layout == "aligned"  # which is there too, and comes first
    assert source(tmp_path, layout="folders").domains.layout == "folders"
    assert source(facades, phase="test").domains.layout == "aligned"
    assert len(source(facades, phase="test")) == 1


def test_a_folder_named_like_a_pattern_is_taken_as_it_is(tmp_path):
    save(tmp_path / "pairs [1]*" / "x.png", beside(3))
    save(tmp_path / "pairs 1x" / "y.png", beside(4))
    assert len(source(tmp_path / "pairs [1]*")) == 1


# ---- sizes


@pytest.mark.parametrize(
    ("settings", "size", "multiple", "expected"),
    [
        ({}, (600, 480), 1, (286, 286)),
        ({"load_size": 300, "crop": 200}, (600, 480), 1, (300, 300)),
        ({"preprocess": "crop"}, (600, 480), 1, (600, 480)),
        ({"preprocess": "scale_width", "load_size": 480}, (600, 480), 1, (600, 480)),
        ({"preprocess": "scale_width", "load_size": 100, "crop": 50}, (601, 480), 1, (125, 100)),  # 125.2
        ({"preprocess": "scale_width_and_crop", "load_size": 300}, (100, 400), 1, (256, 300)),  # 75 is lower than crop
        ({"preprocess": "none"}, (601, 482), 1, (600, 480)),  # 150.25 and 120.5, which rounds to even
        ({"preprocess": "none"}, (601, 482), 256, (512, 512)),
    ],
)
def test_pictures_are_brought_to_the_original_s_sizes(settings, size, multiple, expected):
    assert size_for(TranslationDataConfig(**settings), size, multiple=multiple) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillow_s_bicubic(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (31, 45, channels), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    expected = np.asarray(image.resize((20, 50), Image.Resampling.BICUBIC)).reshape(50, 20, channels)
    assert np.array_equal(resized(pixels, (50, 20)), expected)
    deep = resized(pixels.astype(np.uint16) * 257, (50, 20))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() < 2  # 8 bits are rounded after each direction
    real = resized(pixels.astype(np.float32) / 255, (50, 20))
    assert real.dtype == np.float32
    assert np.abs(real.clip(0, 1) * 255 - expected).max() < 2


def test_jittered_crops_are_cut_from_the_square_that_pillow_makes(facades):
    data = source(facades, preprocess="resize_and_crop", load_size=12, crop=10, flip=False)
    whole = {
        side: np.asarray(Image.fromarray(picture(number)).resize((12, 12), Image.Resampling.BICUBIC))
        for side, number in (("given", 2), ("truth", 102))
    }
    places = set()
    for position in range(60):
        truth, given = data.crops(position, np.random.default_rng(position))
        if given[..., 2].max() != 2:
            continue
        at = [(y, x) for y in range(3) for x in range(3) if np.array_equal(whole["given"][y:, x:][:10, :10], given)]
        assert len(at) == 1
        assert np.array_equal(whole["truth"][at[0][0] :, at[0][1] :][:10, :10], truth)
        places.add(at[0])
    assert len(places) > 4


def test_pictures_that_keep_their_shape_are_batches_of_one(tmp_path):
    for number, size in enumerate([(12, 16), (16, 16)]):
        save(tmp_path / f"{number}.png", beside(number, size))
    data = source(tmp_path, preprocess="none", facts=traits(multiple_of=4))
    assert {pair[0].shape for pair in drawn(data, 2)} == {(12, 16, 3), (16, 16, 3)}
    with pytest.raises(DataError, match=r"several sizes \(16x12, 16x16\); set train.batch=1"):
        batches_of(data, batch=2, rank=0, processes=1, turns=1)(0, 0)


# ---- kinds of pictures


def test_grey_is_repeated_and_alpha_left_out(tmp_path):
    grey, pixels = picture(5)[..., 0], picture(9)
    save(tmp_path / "trainA" / "x.png", grey)
    save(tmp_path / "trainB" / "x.png", np.dstack([pixels, np.full(SIZE, 3, np.uint8)]))
    truth, given = source(tmp_path, flip=False).crops(0, np.random.default_rng(0))
    assert truth.shape == given.shape == (8, 8, 3)
    assert np.array_equal(given[..., 0], given[..., 2])
    assert np.all(truth[..., 2] == 9)
    luma, _ = source(tmp_path, direction="b2a", facts=traits(3, 1)).crops(0, np.random.default_rng(0))
    assert luma.shape == (8, 8, 1)


def test_what_is_kept_has_its_final_size_and_stops_at_its_room(facades):
    data = source(facades, preprocess="resize_and_crop", load_size=12, crop=8)
    drawn(data, 8)
    assert len(data._kept) == 4
    assert {each.shape for pair in data._kept._kept.values() for each in pair} == {(12, 12, 3)}
    none = source(facades, cache=0.0)
    drawn(none, 4)
    assert len(none._kept) == 0


# ---- refusals


def told(root, **changed) -> str:
    with pytest.raises(DataError) as error:
        source(root, **changed).crops(0, np.random.default_rng(0))
    line = str(error.value)
    assert "\n" not in line
    return line


def test_missing_folders_say_what_was_looked_for_and_what_is_there(tmp_path, horses):
    assert "is no folder; give the one" in told(tmp_path / "nowhere")
    assert "name the folder of pictures" in told("")
    line = told(horses, phase="test", layout="unaligned", aligned=False)
    assert "looked for testA/ with testB/ or A/test/ with B/test/; found trainA/, trainB/;" in line
    assert "layout aligned: looked for train/ or pictures in the folder itself; found" in told(horses, layout="aligned")
    assert "itself, then for devA/ with devB/" in told(horses, phase="dev")
    (tmp_path / "empty").mkdir()
    assert "found nothing;" in told(tmp_path / "empty")
    (tmp_path / "half" / "trainA").mkdir(parents=True)
    assert "found trainA/;" in told(tmp_path / "half", aligned=False)
    (tmp_path / "half" / "trainB").mkdir()
    assert "no pictures in" in told(tmp_path / "half", aligned=False)


@pytest.mark.parametrize("alone", ["A", "B"])
def test_a_picture_without_a_partner_is_named(tmp_path, alone):
    for side in "AB":
        save(tmp_path / f"train{side}" / "both.png", picture(1))
    save(tmp_path / f"train{alone}" / "alone.png", picture(1))
    assert "1 of 2 pictures of" in told(tmp_path)
    assert "(alone)" in told(tmp_path)


def test_pairs_that_cannot_be_cut_are_named_with_the_cure(tmp_path):
    save(tmp_path / "odd" / "x.png", beside(1)[:, :-1])
    assert "x: is 47 wide, which has no two halves; put two pictures" in told(tmp_path / "odd")
    save(tmp_path / "sizes" / "trainA" / "x.png", picture(1))
    save(tmp_path / "sizes" / "trainB" / "x.png", picture(1, (20, 22)))
    line = told(tmp_path / "sizes")
    assert "x: is 24x20 in" in line
    assert "and 22x20 in" in line
    save(tmp_path / "small" / "x.png", beside(1))
    assert "x: 24x20 is smaller than data.crop, 22; lower it, or set" in told(tmp_path / "small", crop=22)
    line = told(tmp_path / "small", preprocess="scale_width", load_size=30, facts=traits(multiple_of=4))
    assert "x: would be 30x25, and this network takes multiples of 4 from 1; choose" in line


def test_bad_files_of_both_domains_are_named_counted_and_passed_over(horses, caplog):
    (horses / "trainA" / "a.png").write_bytes(b"no picture")
    save(horses / "trainB" / "b.png", picture(9, (5, 5)))
    data = source(horses, aligned=False)
    with caplog.at_level(logging.WARNING):
        assert len(drawn(data, 40)) == 40
    assert data.bad == 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert any("b: 5x5 is smaller than data.crop, 8" in line for line in lines)


def test_networks_that_no_picture_fits_are_refused(facades):
    assert "data.crop must be a multiple of 16 for this network" in told(facades, facts=traits(multiple_of=16))
    assert "1 or 3 channels, and this network has 2" in told(facades, facts=traits(3, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 300}, "load_size must be at least crop, 300"),
        ({"crop": 0}, "at least 1"),
        ({"cache": 1.0}, "cache must be in"),
        ({"phase": "../train"}, "phase must be a word"),
        ({"phase": ""}, "phase must be a word"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TranslationDataConfig(**settings)
