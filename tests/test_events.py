"""What a run tells before, while and after it works."""

import numpy as np
import pytest
from engines import FakeEngine
from folder_run import Run, enlarged, three_pictures
from PIL import Image
from tiny import pixels, save_picture


@pytest.fixture
def three(tmp_path):
    return three_pictures(tmp_path / "in")


def test_every_event_of_a_picture_comes_in_order(three, tmp_path):
    run = Run([three / "a.png"], tmp_path / "out")
    run.done()
    assert [event["event"] for event in run.events] == ["plan", "progress", "result"]
    result = run.events[-1]
    assert result["size_in"], result["size_out"] == ([32, 24], [128, 96])
    assert (result["precision"], result["engine"], result["model"]) == ("fp32", "fake", "realesrgan-x4plus")
    assert result["megapixels_per_second"] * result["seconds"] == pytest.approx(0.012288, abs=0.006)


def test_a_preview_says_all_and_writes_nothing(three, tmp_path):
    (three / "b.png").write_bytes(b"no picture")
    run = Run([three], tmp_path / "out")
    summary = run.run.preview()
    assert (summary.planned, summary.failed, summary.done) == (2, 1, 0)
    assert run.named("plan", "output") == ["a.png", "c.png"]
    assert not (tmp_path / "out").exists()
    assert run.engine.calls == []


def test_a_preview_refuses_what_the_format_cannot_hold(tmp_path):
    save_picture(tmp_path / "a.png", channels=4)
    run = Run([tmp_path / "a.png"], tmp_path / "a.jpg")
    assert run.run.preview().failed == 1
    assert "transparency" in run.reasons()[0]


def test_a_long_run_is_announced_once_with_a_quicker_model(three, tmp_path):
    class Snail(FakeEngine):
        pixels_per_second = 10.0  # 32 * 24 pixels take 77 seconds

    run = Run([three], tmp_path / "out", engine=Snail())
    run.done()
    kinds = [event["event"] for event in run.events]
    assert kinds.index("estimate") < kinds.index("progress")
    assert kinds.count("estimate") == 1
    words = run.events[kinds.index("estimate")]["reason"]
    assert words.startswith(f"takes about 4 minutes for 3 pictures like {three / 'a.png'}; --model ")


def test_frames_that_are_left_out_are_told(tmp_path):
    first, *rest = (save_picture(tmp_path / "frames" / f"{k}.png", seed=k) for k in range(3))
    with Image.open(first) as image:
        image.save(tmp_path / "a.tif", save_all=True, append_images=[Image.open(path) for path in rest])
    run = Run([tmp_path / "a.tif"], tmp_path / "out")
    assert run.done() == (1, 0, 0)
    assert [event["reason"] for event in run.events if event["event"] == "notice"] == [
        "has 3 frames or pages; only the first is used"
    ]
    assert np.array_equal(pixels(tmp_path / "out" / "a.tif"), enlarged(first))


def test_of_a_picture_that_fails_only_the_failure_is_told(tmp_path):
    pages = [Image.open(save_picture(tmp_path / f"{k}.png", channels=4, seed=k)) for k in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for page in pages:
        page.close()
    run = Run([tmp_path / "a.tif"], tmp_path / "a.jpg")
    assert run.done() == (0, 0, 1)
    assert [event["event"] for event in run.events] == ["error"]
