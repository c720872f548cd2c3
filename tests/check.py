"""Every check of the project, in one command: python tests/check.py [--slow] [pytest arguments].

Without --slow: style, types and the tests that take seconds. With it: the slow proofs too.
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
    """Run the checks one after another; the first that fails ends it."""
    arguments = [a for a in sys.argv[1:] if a != "--slow"]
    marker = "not gpu" if "--slow" in sys.argv[1:] else "not slow and not gpu"
    for check in (*CHECKS, ("pytest", "-m", marker, *arguments)):
        start = time.perf_counter()
        status = subprocess.run([sys.executable, "-m", *check], cwd=HERE, check=False).returncode
        print(
            f"{'ok' if status == 0 else 'FAILED'}: {' '.join(check)} ({time.perf_counter() - start:.0f} s)", flush=True
        )
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
