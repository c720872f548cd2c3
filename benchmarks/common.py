"""What the benchmarks share: facts of the machine, children and what they cost, results as JSON and as tables.

Imports nothing heavy: a child's peak memory is never reported as less than its parent's, so the parent stays small.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from restorer import machine

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python")
TELLING_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "neon", "bf16")

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process that has ended well."""

    seconds: float
    """From before its start until after its end."""
    cpu_seconds: float
    """Of all cores together; much less than seconds times cores means that it had to share them, or to wait."""
    peak_bytes: int
    """The most memory it held."""
    stdout: str

    @property
    def told(self) -> Result:
        """What it printed as JSON on its last line."""
        return json.loads(self.stdout.splitlines()[-1])


def run_child(command: Sequence[str | Path], *, ours: bool = True) -> Child:
    """Run a command to its end and measure it; one that fails ends the benchmark with what it said.

    `ours` lets it import this project's package, installed or not.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=err, env=_environment(ours=ours))
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            sys.exit(f"exit status {process.returncode} from: {' '.join(words)}\n{err.read()}")
        return Child(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=_maxrss_bytes(usage),
            stdout=out.read(),
        )


def own_peak() -> int:
    """Bytes that this process held at its peak: a child's figure means something only above it."""
    return _maxrss_bytes(resource.getrusage(resource.RUSAGE_SELF))


def machine_facts() -> Result:
    """When and on what this ran."""
    here = machine.look()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": here.cpu_name,
        "cores": here.cores,
        "instruction_sets": [name for name in TELLING_SETS if name in here.instruction_sets],
        "memory_gib": round(here.memory_total / 2**30, 1),
        "platform": here.platform,
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each package, "" where there is none."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def spread(values: Sequence[float], *, digits: int = 3) -> Result:
    """Median, least, greatest and all of them, in the order measured."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "all": [round(value, digits) for value in values],
    }


def ranged(one: Mapping[str, Any], digits: int = 0) -> str:
    """What `spread` gives -> median (least-greatest), or the one value there is."""
    median = f"{one['median']:.{digits}f}"
    return median if len(one["all"]) == 1 else f"{median} ({one['min']:.{digits}f}-{one['max']:.{digits}f})"


def needed(folder: Path, *names: str) -> list[Path]:
    """The paths of `names` in `folder`; one that is not there ends the benchmark."""
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            sys.exit(f"{path}: not found; give the folder that holds it with --data or --weights")
    return paths


def publish(name: str, result: Mapping[str, Any], table: Sequence[str], *, keep: bool) -> None:
    """Show a result; with `keep` write results/<name>.json and the README's section of that name too."""
    text = json.dumps(result, indent=1)
    if not keep:
        print(text)
    print("\n".join(table))
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        README.write_text(with_section(README.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def with_section(text: str, name: str, lines: Sequence[str]) -> str:
    """`text` with `lines` between the two markers of `name`.

    >>> print(with_section("a\\n<!-- x: begin -->\\nold\\n<!-- x: end -->\\nb", "x", ["new"]))
    a
    <!-- x: begin -->
    new
    <!-- x: end -->
    b
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        sys.exit(f"the README has no section {begin.strip()} ... {end}")
    return before + begin + "\n".join(lines) + "\n" + end + after


def table_lines(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows, the heading first -> the lines of a Markdown table.

    >>> table_lines([("a", "b"), (1, 2)])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def described(facts: Mapping[str, Any]) -> str:
    """The facts of a machine in one line."""
    sets = ", ".join(facts["instruction_sets"])
    return (
        f"{facts['date'][:10]}, commit {facts['commit']}, {facts['cpu']} ({facts['cores']} cores; {sets}), "
        f"torch {facts['versions']['torch']}."
    )


def _environment(*, ours: bool) -> dict[str, str]:
    """This process's environment, with the package's folder first on the path, or with no added path at all."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if not ours:
        return kept
    old = os.environ.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *([old] if old else [])])}


def _maxrss_bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024


def _commit() -> str:
    """The checked-out commit, "+" after it where the package differs from it; "" outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "restorer") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
