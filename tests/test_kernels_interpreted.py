"""Each kernel beside its reference and the truth: by Triton's interpreter, and on a GPU where there is one.

All cases go through one process, for a process either interprets or compiles.
"""

import json
import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from house import HOME
from kernels_interpreted import CASES


@cache
def told(device: str) -> dict[str, dict]:
    """What the process says of every case."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if device == "cpu":
        environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, HOME / "tests" / "kernels_interpreted.py", device],
        cwd=HOME, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["case"]: row for row in rows}


def check(case, row) -> None:
    assert "error" not in row, row["error"]
    assert row["excess"] <= 0, row
    assert row["equal"] or not case.equal, row


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_kernel_is_as_near_the_truth_as_its_reference(case):
    check(case, told("cpu")[case.name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_kernel_is_as_near_the_truth_on_a_device(case):
    check(case, told("cuda")[case.name])


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_no_case_takes_longer_than_an_interpreter_should():
    slow = {name: row["seconds"] for name, row in told("cpu").items() if row["seconds"] > 3}
    assert not slow, slow
