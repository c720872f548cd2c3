"""What continuous integration makes of a skipped test, and of a shell that ignores Ctrl-C for it."""

import signal

import pytest

pytest_plugins = ["pytester"]

SKIPS = """
import pytest

def test_needs_a_package():
    pytest.importorskip("a_package_that_nobody_wrote")

def test_needs_basicsr():
    pytest.skip("basicsr is not installed; see the second environment")

def test_needs_data():
    pytest.skip("the shared folder is absent")
"""


@pytest.fixture
def outcomes(pytester, monkeypatch, request):
    """Runs SKIPS with this project's conftest."""
    pytester.makeconftest((request.config.rootpath / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(SKIPS)

    def run(may_lack: str | None) -> dict[str, int]:
        if may_lack is None:
            monkeypatch.delenv("RESTORER_MAY_LACK", raising=False)
        else:
            monkeypatch.setenv("RESTORER_MAY_LACK", may_lack)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider").parseoutcomes()

    return run


@pytest.mark.parametrize(
    ("may_lack", "expected"),
    [(None, {"skipped": 3}), ("basicsr", {"skipped": 2, "failed": 1}), ("", {"skipped": 1, "failed": 2})],
    ids=["not asked", "basicsr may lack", "nothing may lack"],
)
def test_a_missing_package_fails_where_that_is_asked_for(outcomes, may_lack, expected):
    assert outcomes(may_lack) == expected


def test_a_module_that_a_missing_package_skips_fails_too(pytester, outcomes):
    pytester.makepyfile(test_module="import pytest\npytest.importorskip('a_package_that_nobody_wrote')")
    assert outcomes("basicsr")["errors"] == 1


def test_children_hear_the_interrupt_also_in_the_background_of_a_shell(pytester, outcomes):
    pytester.makepyfile(
        test_child="import signal, subprocess, sys\n"
        "def test_child():\n"
        "    words = 'import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)'\n"
        "    assert subprocess.run([sys.executable, '-c', words]).returncode == 0\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert outcomes(None) == {"skipped": 3, "passed": 1}
    finally:
        signal.signal(signal.SIGINT, before)
