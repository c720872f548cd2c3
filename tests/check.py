"""Every check of the project, in one command: python tests/check.py [--slow] [pytest arguments].

Without --slow: style, types and the tests that take seconds. With it: those that take longer, too. What takes minutes
and guards what seldom changes is marked `proof` and run by hand: python -m pytest -m proof

Tests are shared out to a process for each core, each with one thread of PyTorch; what measures time, `alone`, and what
needs a GPU come last, one after the other.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from restorer import machine

NOTHING = 5
"""What pytest ends with where no test was asked for, as when its arguments name tests of the other kind only."""
HERE = Path(__file__).resolve().parents[1]
STYLE = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "restorer"),
)


def main() -> int:
    """Run the checks one after another, all of them; 0 when every one passed."""
    arguments = [a for a in sys.argv[1:] if a != "--slow"]
    wanted = "not proof" if "--slow" in sys.argv[1:] else "not slow and not proof"
    cores = machine.look().cores
    shared = ["-n", str(cores), "--dist", "loadfile"] if cores > 1 else []
    tests = (
        ("pytest", *shared, "-m", f"{wanted} and not alone and not gpu", *arguments),
        ("pytest", "-m", f"{wanted} and (alone or gpu)", *arguments),
    )
    failed, asked = 0, False
    for check in (*STYLE, *tests):
        start = time.perf_counter()
        one_thread = {"OMP_NUM_THREADS": "1"} if "-n" in check else {}
        status = subprocess.run(
            [sys.executable, "-m", *check], cwd=HERE, check=False, env={**os.environ, **one_thread}
        ).returncode
        if check in tests:
            asked = asked or status != NOTHING
            status = 0 if status == NOTHING else status
        how = "ok" if status == 0 else f"FAILED with status {status}"
        print(f"{how}: {' '.join(check)} ({time.perf_counter() - start:.0f} s)", flush=True)
        failed += status != 0
    return min(failed + (not asked), 1)


if __name__ == "__main__":
    sys.exit(main())
