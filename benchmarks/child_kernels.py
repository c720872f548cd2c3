"""What runs in processes of its own for `bench_kernels.py` and the tests of kernels. Each prints a line of JSON a row:

    python child_kernels.py compile [OPERATION...]     every form for every architecture; needs triton, but no GPU
    python child_kernels.py count                      bytes that the references move, operation by operation
    python child_kernels.py time                       kernels beside their references, on the first CUDA device

Compiling and interpreting kernels cannot share a process: Triton decides between them when it is imported.
"""

import contextlib
import importlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]

OPERATIONS = ("gather_tiles", "to_bytes", "blend_tiles", "dense_block", "style", "upfirdn2d", "paste_face")
"""Files of restorer/kernels/device that have `builds`."""
ARCHITECTURES = (75, 80, 90, 100)
"""Turing, Ampere, Hopper, Blackwell."""
USED = re.compile(r"Used (\d+) registers")
SPILLED = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def main() -> None:
    """Do what is asked for."""
    command, asked = sys.argv[1], sys.argv[2:]
    rows = {"compile": lambda: compiled_rows(asked or OPERATIONS), "count": counted_rows, "time": timed_rows}[command]()
    for row in rows:
        print(json.dumps(row), flush=True)


def compiled_rows(operations: Sequence[str]) -> Iterator[Row]:
    """Each form of each operation for each architecture that has it."""
    assert not os.environ.get("TRITON_INTERPRET"), "an interpreter compiles nothing"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # what was compiled before would not meet the assembler again
        for operation in operations:
            module = importlib.import_module(f"restorer.kernels.device.{operation}")
            for build in module.builds():
                for arch in ARCHITECTURES:
                    if arch >= build.least_arch:
                        yield {"operation": operation, **compiled(build, arch)}


def compiled(build: Any, arch: int) -> Row:
    """One form of a kernel for one architecture: what the assembler says of it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    triton.knobs.nvidia.dump_ptxas_log = True
    signature = {name: build.signature.get(name, "constexpr") for name in build.kernel.arg_names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}  # as PyTorch hands memory out
    source = ASTSource(build.kernel, signature, constexprs=dict(build.constants), attrs=aligned)
    log = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(log):
        made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=dict(build.options))
    seconds = time.perf_counter() - start
    used, spilled = USED.search(log.getvalue()), SPILLED.search(log.getvalue())
    assert used and spilled, f"{build.name} for {arch}: the assembler did not say what it used: {log.getvalue()!r}"
    stack, stores, loads = (int(count) for count in spilled.groups())
    return {
        "build": build.name,
        "arch": arch,
        "cubin_bytes": len(made.asm["cubin"]),
        "registers": int(used[1]),
        "shared_bytes": made.metadata.shared,
        "stack_bytes": stack,
        "spill_bytes": stores + loads,
        "fused_multiply_adds": made.asm["ptx"].count("fma."),
        "seconds": round(seconds, 2),
    }


def counted_rows() -> Iterator[Row]:
    """What each work must move at least, and what its reference moves; counted on the processor, true of any device."""
    import torch

    from benchmarks.kernel_work import WORK, Traffic

    for work in WORK:
        answer = work.make(torch.device("cpu"))
        with torch.no_grad(), Traffic() as traffic:
            answer("reference")
        yield {"kernel": work.kernel, "what": work.what, "least": work.least_bytes, "reference": traffic.moved}


def timed_rows(rounds: int = 30) -> Iterator[Row]:
    """Both twins in turn; nothing where there is no CUDA device."""
    import torch

    from benchmarks.common import spread
    from benchmarks.kernel_work import WORK

    if not torch.cuda.is_available():
        return
    device = torch.device("cuda")
    with torch.no_grad():
        for work in WORK:
            answer = work.make(device)
            apart = (answer("triton").double() - answer("reference").double()).abs().max().item()
            pairs = [[seconds_of(answer, impl) for impl in ("triton", "reference")] for _ in range(rounds + 5)][5:]
            yield {
                "kernel": work.kernel,
                "what": work.what,
                "device": torch.cuda.get_device_name(device),
                "apart": apart,
                "microseconds": spread([1e6 * ours for ours, _ in pairs], digits=1),
                "reference_microseconds": spread([1e6 * theirs for _, theirs in pairs], digits=1),
                "gigabytes_per_second": spread([work.least_bytes / ours / 1e9 for ours, _ in pairs], digits=0),
                "times_faster": spread([theirs / ours for ours, theirs in pairs], digits=2),
            }


def seconds_of(answer: Any, impl: str) -> float:
    """One run on the device, by its own clock."""
    import torch

    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    answer(impl)
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1000


if __name__ == "__main__":
    main()
