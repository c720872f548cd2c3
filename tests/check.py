"""Every check of the project, in one command: python tests/check.py [--slow] [pytest arguments].

Without --slow: style, types and the tests that take seconds. With it: those that take longer, too. What takes minutes
and guards what seldom changes is marked `proof` and run by hand: python -m pytest -m proof
"""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "restorer"),
)


def main() -> int:
    """Run the checks one after another, all of them; 0 when every one passed."""
    arguments = [a for a in sys.argv[1:] if a != "--slow"]
    marker = ["-m", "not proof" if "--slow" in sys.argv[1:] else "not slow and not proof"]
    failed = 0
    for check in (*CHECKS, ("pytest", *marker, *arguments)):
        start = time.perf_counter()
        status = subprocess.run([sys.executable, "-m", *check], cwd=HERE, check=False).returncode
        how = "ok" if status == 0 else f"FAILED with status {status}"
        print(f"{how}: {' '.join(check)} ({time.perf_counter() - start:.0f} s)", flush=True)
        failed += status != 0
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
