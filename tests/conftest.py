"""For continuous integration: a test that is skipped because a package is missing has not passed, and so fails.

RESTORER_MAY_LACK turns this on and names the packages that may be missing, separated by spaces; it may be empty.
"""

import os
import re
from collections.abc import Generator
from typing import TypeVar

import pytest

MAY_LACK = os.environ.get("RESTORER_MAY_LACK")
MISSING = re.compile(r"could not import|not installed|does not import|no module named|not importable", re.IGNORECASE)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


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
