"""Every kernel by Triton's interpreter, on the processor: a process of its own, for an interpreter cannot compile.

    TRITON_INTERPRET=1 python tests/kernels_interpreted.py
    python tests/kernels_interpreted.py cuda                     # the same on a device

Prints a line of JSON for each case.
"""

import json
import os
import sys
import time
import traceback

import torch
from kernel_case import KernelCase, judged
from kernel_cases import CASES as FIRST
from kernel_cases_networks import CASES as SECOND

CASES: tuple[KernelCase, ...] = (*FIRST, *SECOND)


def main() -> None:
    """Judge every case; one that fails tells how and does not keep the others from their turn."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    assert interpreted == (device == "cpu"), "TRITON_INTERPRET=1 is for the processor, and must be set from the start"
    torch.set_default_device(device)
    for case in CASES:
        start = time.perf_counter()
        try:
            told = judged(case)
        except Exception:  # noqa: BLE001 - whatever it is, the test of this case shows it
            told = {"case": case.name, "error": traceback.format_exc()}
        sys.stdout.write(json.dumps({**told, "seconds": round(time.perf_counter() - start, 3)}) + "\n")


if __name__ == "__main__":
    main()
