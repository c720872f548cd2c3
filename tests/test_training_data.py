"""Pictures for training: where they come from, that a batch follows from (seed, step), and what bad files do."""

import io
import logging
import tarfile

import numpy as np
import pytest
import torch

from restorer.errors import DataError
from restorer.networks.spec import Traits
from restorer.pipeline.picture import Picture, write_picture
from restorer.training.data import DataConfig, ReadAhead, Source, batches_of
from restorer.training.pictures import open_pictures, paired


def picture(number: int, size: tuple[int, int] = (40, 48), channels: int = 3) -> np.ndarray:
    """Every value tells its picture and its place."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (*size, channels), dtype=np.uint8)


def save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture(pixels=pixels), path)


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        save(tmp_path / "high" / ("sub" if number > 2 else "") / f"{number:03d}.png", picture(number))
    return tmp_path / "high"


def traits(scale: int, *, channels: int = 3) -> Traits:
    return Traits(
        scale=scale, in_channels=channels, out_channels=channels, radius=1, overlap=1, precisions=frozenset({"fp32"})
    )


def source(where, **changed) -> Source:
    return Source(DataConfig(high=str(where), **{"crop": 16, **changed}), traits(4), seed=7)


def encoded(pixels) -> bytes:
    buffer = io.BytesIO()
    write_picture(Picture(pixels=pixels), buffer, format="png")
    return buffer.getvalue()


def test_a_folder_a_glob_and_a_list_give_the_same_pictures(folder, tmp_path):
    (tmp_path / "list.txt").write_text("# chosen\nhigh/000.png\n\nhigh/sub/003.png\n", encoding="utf-8")
    assert open_pictures(str(folder)).names == ["000", "001", "002", "sub/003", "sub/004"]
    assert open_pictures(str(folder / "**" / "*.png")).names == ["000", "001", "002", "003", "004"]
    listed = open_pictures(str(tmp_path / "list.txt"))
    assert listed.names == ["000", "003"]
    assert np.array_equal(listed.read(1), picture(3))


def test_tar_shards_and_lmdb_are_read_where_they_lie(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:06d}.tar", "w") as tar:
            for number in range(2):
                data = encoded(picture(2 * shard + number))
                for name, content in ((f"{number}.png", data), (f"{number}.json", b"{}")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    shards = open_pictures(str(tmp_path / "*.tar"))
    assert shards.names == ["000000/0", "000000/1", "000001/0", "000001/1"]
    assert np.array_equal(shards.read(3), picture(3))
    environment = lmdb.open(str(tmp_path / "db"), map_size=2**20)
    with environment.begin(write=True) as transaction:
        transaction.put(b"0001", encoded(picture(1)))
    environment.close()
    assert np.array_equal(open_pictures(str(tmp_path / "db")).read(0), picture(1))


def test_pairs_find_each_other_by_name_whatever_the_order(folder, tmp_path):
    for number in range(5):
        place = "sub/" if number > 2 else ""
        save(tmp_path / "low" / f"{place}{number:03d}x4.png", picture(100 + number, (10, 12)))
    low = paired(open_pictures(str(folder)), open_pictures(str(tmp_path / "low")), 4)
    assert np.array_equal(low.read(3), picture(103, (10, 12)))
    (tmp_path / "low" / "001x4.png").unlink()
    with pytest.raises(DataError, match=r"1 of 5 pictures .* no partner .* \(001\)"):
        paired(open_pictures(str(folder)), open_pictures(str(tmp_path / "low")), 4)


def test_partners_are_cut_at_the_same_place_and_moved_alike(tmp_path):
    for number in range(3):
        small = picture(number, (12, 10))
        save(tmp_path / "low" / f"{number}.png", small)
        save(tmp_path / "high" / f"{number}.png", small.repeat(4, axis=0).repeat(4, axis=1))
    make = batches_of(source(tmp_path / "high", low=str(tmp_path / "low")), batch=8, rank=0, processes=1, turns=1)
    for step in range(4):
        batch = make(step, 0)
        assert batch["low"].shape == (8, 3, 4, 4)
        assert torch.equal(batch["high"], batch["low"].repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_a_batch_follows_from_seed_and_step_alone(folder):
    make = batches_of(source(folder), batch=4, rank=0, processes=1, turns=1)
    expected = [make(step, 0)["high"] for step in range(6)]
    assert not torch.equal(expected[0], expected[1])
    for threads in (1, 4):
        again = batches_of(source(folder), batch=4, rank=0, processes=1, turns=1)
        with ReadAhead(again, turns=lambda step: 1, start=2, stop=6, threads=threads) as steps:
            seen = [batches[0]["high"] for batches in steps]
        assert all(torch.equal(a, b) for a, b in zip(seen, expected[2:], strict=True))


def test_processes_share_the_batch_of_one(folder):
    whole = batches_of(source(folder), batch=4, rank=0, processes=1, turns=1)(3, 0)["high"]
    parts = [batches_of(source(folder), batch=4, rank=rank, processes=2, turns=1)(3, 0)["high"] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_every_picture_is_seen_once_before_any_is_seen_again(tmp_path):
    for number in range(5):
        save(tmp_path / f"{number}.png", np.full((16, 16, 3), number, np.uint8))
    data, rng = source(tmp_path), np.random.default_rng(0)
    seen = [int(data.crops(position, rng)[0][0, 0, 0]) for position in range(15)]
    assert [sorted(seen[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:]


def test_crops_are_of_their_picture_in_all_eight_positions(folder):
    data = source(folder, crop=16)
    rng, kinds = np.random.default_rng(1), set()
    originals = [data.high.read(n) for n in range(5)]
    for position in range(80):
        crop, _ = data.crops(position, rng)
        for kind in range(8):
            back = crop.transpose(1, 0, 2) if kind & 4 else crop
            back = back[::-1] if kind & 2 else back
            back = back[:, ::-1] if kind & 1 else back
            if any(_contains(original, back) for original in originals):
                kinds.add(kind)
    assert kinds == set(range(8))


def _contains(whole: np.ndarray, part: np.ndarray) -> bool:
    places = np.argwhere((whole[: 40 - 15, : 48 - 15] == part[0, 0]).all(axis=2))
    return any(np.array_equal(whole[y : y + 16, x : x + 16], part) for y, x in places)


def test_bad_files_are_named_counted_and_passed_over(folder, caplog):
    (folder / "broken.png").write_bytes(b"no picture")
    save(folder / "small.png", picture(9, (8, 8)))
    data = source(folder)
    make = batches_of(data, batch=7, rank=0, processes=1, turns=1)
    with caplog.at_level(logging.WARNING):
        assert make(0, 0)["high"].shape == (7, 3, 16, 16)
        make(1, 0)
    assert data.bad == 2
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert any("small: 8x8 is smaller than data.crop, 16" in line for line in told)


def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path, folder):
    with pytest.raises(DataError, match="no pictures at"):
        source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        source(tmp_path / "empty")
    with pytest.raises(DataError, match="multiple of 4 for this network"):
        source(folder, crop=18)
    all_small = source(folder, crop=64)
    with pytest.raises(DataError, match="none of the 5 pictures"):
        all_small.crops(0, np.random.default_rng(0))
    for number in range(5):
        save(tmp_path / "low" / ("sub" if number > 2 else "") / f"{number:03d}.png", picture(number, (20, 24)))
    with pytest.raises(DataError, match="would be 12x10"):
        source(folder, low=str(tmp_path / "low")).crops(0, np.random.default_rng(0))
    save(folder / "000.jpg", picture(0))
    with pytest.raises(DataError, match="1 names twice"):
        source(folder)


def test_grey_colour_and_16_bits_become_what_the_network_takes(tmp_path):
    save(tmp_path / "a" / "grey.png", picture(1, channels=1))
    save(tmp_path / "b" / "deep.png", np.full((20, 20, 3), 65535, np.uint16))
    high = batches_of(source(tmp_path / "a"), batch=1, rank=0, processes=1, turns=1)(0, 0)["high"]
    assert torch.equal(high[:, 0], high[:, 2])
    config = DataConfig(high=str(tmp_path / "b"), crop=16)
    grey = Source(config, traits(1, channels=1), seed=0)
    assert torch.equal(batches_of(grey, batch=1, rank=0, processes=1, turns=1)(0, 0)["high"], torch.ones(1, 1, 16, 16))


def test_the_cache_stops_at_its_room(folder):
    data = source(folder, cache=0.0)
    data.crops(0, np.random.default_rng(0))
    assert not data._cache
    data = source(folder)
    for position in range(5):
        data.crops(position, np.random.default_rng(0))
    assert len(data._cache) == 5
