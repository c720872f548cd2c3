"""Two processes that share a batch learn what one learns from all of it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import pictures
from two_processes import played

from restorer.training.checkpoint import load_run

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def both_played(game: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    """What each of two processes holds at the end."""
    port = free_port()
    outs = [folder / f"{rank}.pt" for rank in (0, 1)]
    both = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(port), game, str(out)], stderr=subprocess.PIPE)
        for rank, out in enumerate(outs)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["non_saturating", "least_squares"])
def test_two_processes_equal_one(loss, tmp_path):
    """A relativistic loss: its means are over the whole batch, whoever holds it."""
    one, other = both_played(loss, tmp_path)
    for name, tensor in played(loss).items():
        assert one[name].equal(other[name]) and (one[name] - tensor).abs().max() < 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "learned"),
    [
        ("faces", {"g.painter.constant", "g.to_styles.weight", "d.whole.linear2.weight", "d.mouth.conv1.weight"}),
        ("generation", {"g.synthesis.constant", "g.w_average", "path_mean"}),
    ],
)
def test_two_processes_that_draw_their_own_noise_learn_the_same(game, learned, tmp_path):
    """Averages of styles and of path lengths are over both, too."""
    one, other = both_played(game, tmp_path)
    before = played(game, steps=0)
    assert one.keys() == other.keys() == before.keys()
    assert [name for name in one if not one[name].equal(other[name])] == []
    assert learned <= {name for name in one if not one[name].equal(before[name])}


@pytest.mark.slow
def test_the_command_launches_processes_that_write_one_run(tmp_path):
    pytest.importorskip("lightning")
    data, run = pictures(tmp_path / "data"), tmp_path / "run"
    sets = ["train.steps=2", "train.batch=2", "config.features=4", "config.blocks=1", "data.crop=16"]
    words = [word for text in sets for word in ("--set", text)]
    command = [sys.executable, "-m", "restorer", "train", "srresnet_x4_tiny", "--data", str(data), "--out", str(run)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--processes", "2", *words], capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tensors, told = load_run(run / "step-0000002.safetensors")
    assert told["step"] == 2
    alone = tmp_path / "alone"
    command[command.index(str(run))] = str(alone)
    subprocess.run([*command, "--device", "cpu", *words], capture_output=True, timeout=180, check=True)
    expected = load_run(alone / "step-0000002.safetensors")[0]
    first = load_run(alone / "step-0000000.safetensors")[0]
    moved = [name for name in expected if name.startswith("g/") and not torch.equal(expected[name], first[name])]
    assert len(moved) > 5
    for name in moved:  # Adam's first steps have the size of the rate, whatever rounding does to a gradient near zero
        assert (tensors[name] - expected[name]).abs().mean() < 0.02 * (expected[name] - first[name]).abs().mean()
