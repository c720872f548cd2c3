"""Every form of every kernel is compiled for four generations of GPUs, without one; the assembler tells of spills."""

import json
import os
import subprocess
import sys
from functools import cache

import pytest
from house import HOME, PACKAGE, constant

CHILD = HOME / "benchmarks" / "child_kernels.py"
OPERATIONS = constant(CHILD, "OPERATIONS")
ARCHITECTURES = constant(CHILD, "ARCHITECTURES")
QUICK = "to_bytes"
"""The operation that is compiled in every run of the tests; together they take more than a minute."""
LEFT_ALONE = {"__init__", "common", "planes"}
"""Files of device code that are no operation."""
NEVER_FUSED = ("to_bytes", "blend_tiles")
"""Operations whose rounding a fused multiply-add would change."""


def some(operations: tuple[str, ...]) -> list:
    """Operations as parameters, slow but for one."""
    return [each if each == QUICK else pytest.param(each, marks=pytest.mark.slow) for each in operations]


@cache
def compiled(operation: str) -> list[dict]:
    """A row for each form and architecture, made in a process that does not interpret."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, CHILD, "compile", operation],
        cwd=HOME, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_file_of_device_code_is_compiled():
    assert {path.stem for path in (PACKAGE / "kernels" / "device").glob("*.py")} - LEFT_ALONE == set(OPERATIONS)


@pytest.mark.parametrize("operation", some(OPERATIONS))
def test_every_form_compiles_and_spills_nothing(operation):
    rows = compiled(operation)
    assert {row["arch"] for row in rows} == set(ARCHITECTURES)
    assert not [row for row in rows if row["spill_bytes"] or row["stack_bytes"]]
    assert all(row["cubin_bytes"] for row in rows)


@pytest.mark.parametrize("operation", some(OPERATIONS))
def test_every_precision_is_compiled(operation):
    words = " ".join(row["build"] for row in compiled(operation))
    assert all(name in words for name in ("float16", "bfloat16", "float32"))


@pytest.mark.parametrize("operation", some(NEVER_FUSED))
def test_rounding_is_not_fused_away(operation):
    assert not [row for row in compiled(operation) if row["fused_multiply_adds"]]
