"""For continuous integration: a skip for want of a package is a failure, and Ctrl-C reaches the tests' children.

RESTORER_MAY_LACK turns the first on, and names the packages that may be missing, separated by spaces; it may be empty.
"""

import os
import re
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest

MAY_LACK = os.environ.get("RESTORER_MAY_LACK")
MISSING = re.compile(r"could not import|not installed|does not import|no module named|not importable", re.IGNORECASE)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and every child would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return judged((yield), MAY_LACK)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return judged((yield), MAY_LACK)


def judged(report: Report, may_lack: str | None) -> Report:
    """A skip for want of a package becomes a failure, where `may_lack` is given and does not name the package."""
    if may_lack is None or not report.skipped:
        return report
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if MISSING.search(reason) and not any(package in reason for package in may_lack.split()):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nThe packages that may be missing here: {may_lack or 'none'}."
    return report
