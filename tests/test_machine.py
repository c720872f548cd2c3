"""Trees of /proc and /sys made by hand: plain hosts, containers of both kinds, and systems that have neither."""

import os
import subprocess
import sys
import types

import pytest
import torch

from restorer import machine
from restorer.machine import Machine, devices, has_fast_bf16, look, memory_available, peak_resident

GIB = 1024**3
PLAIN = {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1024 kB\nMemAvailable:    8388608 kB\n"}
X86 = "processor\t: 0\nmodel name\t: Some Processor 9\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp i8mm bf16\nCPU implementer\t: 0x41\n"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write files below a fresh root, on a Linux host of eight cores."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)

    def write(files):
        for name, text in (PLAIN | files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def machine_with(*names):
    return Machine(platform="", cpu_name="", cores=1, memory_total=0, instruction_sets=frozenset(names))


def test_a_plain_host_has_its_cores_memory_and_name(make):
    seen = look(make({"proc/cpuinfo": X86}))
    assert (seen.cores, seen.memory_total, seen.cpu_name) == (8, 16 * GIB, "Some Processor 9")
    assert seen.instruction_sets == {"fpu", "avx2", "avx512f", "avx512_bf16"}


def test_only_what_all_cores_have_counts(make):
    seen = look(make({"proc/cpuinfo": X86 + "\nprocessor\t: 1\nflags\t\t: fpu avx2\n"}))
    assert seen.instruction_sets == {"fpu", "avx2"}


def test_arm_features_are_read_and_neon_has_its_name(make):
    seen = look(make({"proc/cpuinfo": ARM}))
    assert {"neon", "bf16", "i8mm"} <= seen.instruction_sets
    assert has_fast_bf16(seen)


@pytest.mark.parametrize(
    ("names", "fast"),
    [
        (["avx512_bf16"], True),
        (["amx_bf16"], True),
        (["bf16"], True),
        (["avx2", "avx512f", "avx_vnni"], False),
        ([], False),
    ],
)
def test_bf16_is_fast_where_the_processor_multiplies_it(names, fast):
    assert has_fast_bf16(machine_with(*names)) is fast


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8), ("", 8)]
)
def test_quota_of_cgroup_v2_limits_the_cores(make, quota, cores):
    assert look(make({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota})).cores == cores


def test_the_tightest_level_of_nested_groups_counts(make):
    root = make(
        {
            "proc/self/cgroup": "0::/outer.slice/inner\n",
            "sys/fs/cgroup/outer.slice/cpu.max": "300000 100000",
            "sys/fs/cgroup/outer.slice/inner/cpu.max": "max 100000",
            "sys/fs/cgroup/outer.slice/memory.max": f"{3 * GIB}",
            "sys/fs/cgroup/outer.slice/inner/memory.max": f"{4 * GIB}",
            "sys/fs/cgroup/sibling/memory.max": f"{GIB}",
        }
    )
    assert (look(root).cores, look(root).memory_total) == (3, 3 * GIB)


def test_a_group_named_by_the_host_falls_back_to_what_the_container_sees(make):
    root = make({"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/memory.max": f"{2 * GIB}"})
    assert look(root).memory_total == 2 * GIB


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_limits_of_cgroup_v1_count(make, folder):
    root = make(
        {
            "proc/self/cgroup": "9:cpuset:/\n4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            f"sys/fs/cgroup/{folder}/docker/abc/cpu.cfs_quota_us": "250000\n",
            f"sys/fs/cgroup/{folder}/docker/abc/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": f"{5 * GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert (look(root).cores, look(root).memory_total) == (3, 5 * GIB)


def test_no_quota_and_no_limit_of_cgroup_v1_leave_the_host_as_it_is(make):
    root = make(
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert (look(root).cores, look(root).memory_total) == (8, 16 * GIB)


def test_affinity_limits_the_cores(make, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5})
    assert look(make({})).cores == 2


def test_available_memory_is_that_of_the_host_without_limits(make):
    assert memory_available(make({})) == 8 * GIB


def test_available_memory_stays_below_the_limit_and_counts_droppable_file_pages(make):
    root = make(
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{4 * GIB}",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        }
    )
    assert memory_available(root) == GIB + GIB // 2


def test_available_memory_of_cgroup_v1_counts_its_own_statistics(make):
    root = make(
        {
            "proc/self/cgroup": "4:memory:/a\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{4 * GIB}",
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{4 * GIB}",
            "sys/fs/cgroup/memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
        }
    )
    assert memory_available(root) == GIB


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_system_without_proc_still_answers(tmp_path, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    seen = look(tmp_path / system)
    assert seen.cores >= 1
    assert seen.memory_total >= 0
    assert seen.cpu_name
    assert not has_fast_bf16(seen)
    assert memory_available(tmp_path / system) >= 0


def test_unreadable_words_in_proc_are_passed_over(make):
    root = make(
        {"proc/self/cgroup": "nonsense\n\n0::/\n", "proc/cpuinfo": "\x00\n:::\n", "sys/fs/cgroup/cpu.max": "x y z"}
    )
    assert look(root).cores == 8


def test_the_answer_is_kept(make):
    root = make({})
    assert look(root) is look(root)


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's own count")
def test_this_machine_is_within_its_own_limits():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1 <= look().cores <= len(os.sched_getaffinity(0))
    assert 0 < look().memory_total <= physical
    assert 0 < memory_available() <= look().memory_total


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_peak_covers_memory_that_was_touched_and_given_back():
    before = peak_resident()
    block = bytearray(before + 64 * 1024**2)
    size = len(block)
    del block
    assert size <= peak_resident() < 10 * size


@pytest.mark.parametrize(("system", "peak"), [("linux", 2048), ("darwin", 2), ("win32", 0)])
def test_peak_knows_the_units_of_each_system(monkeypatch, system, peak):
    fake = types.ModuleType("resource")
    fake.RUSAGE_SELF = 0
    fake.getrusage = lambda _who: types.SimpleNamespace(ru_maxrss=2)
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(sys, "platform", system)
    assert peak_resident() == peak


def test_the_processor_is_always_the_last_device():
    cpu = devices()[-1]
    assert (cpu.name, cpu.memory_total, cpu.capability) == ("cpu", look().memory_total, None)
    assert cpu.bf16 is has_fast_bf16(look())


@pytest.mark.parametrize(
    ("major", "minor", "bf16", "fp16"),
    [(9, 0, True, True), (7, 5, False, True), (6, 1, False, False), (6, 0, False, True)],
)
def test_a_cuda_device_says_what_it_is_fast_at(monkeypatch, major, minor, bf16, fp16):
    card = types.SimpleNamespace(name="Card", total_memory=8 * GIB, major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: card)
    first = devices()[0]
    assert (first.name, first.title, first.memory_total) == ("cuda:0", "Card", 8 * GIB)
    assert (first.capability, first.bf16, first.fp16) == ((major, minor), bf16, fp16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_cuda_device_computes_under_its_name():
    first = devices()[0]
    assert first.memory_total > GIB
    assert torch.ones(1, device=first.name).item() == 1


def test_neither_machine_nor_resample_imports_torch():
    code = "import sys, restorer.machine, restorer.resample; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert machine.look().cores


def test_keeping_freed_memory_is_told_and_changes_no_result():
    code = "import platform, numpy as np; from restorer import machine; told = machine.keep_freed_memory();"
    code += "assert told == (platform.libc_ver()[0] == 'glibc'); assert np.ones(10**7).sum() == 1e7"
    subprocess.run([sys.executable, "-c", code], check=True)
