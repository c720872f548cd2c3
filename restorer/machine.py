"""What this machine has: cores and memory as granted to this process, instruction sets, devices.

`look` reads /proc and /sys and needs no torch; `devices` imports it. A container's limits (cgroup v1 and v2, at any
level) count as the machine's own. `root` is where /proc and /sys are found; only tests give another.
"""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path("/")
FAST_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
FAST_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The host, as far as this process may use it."""

    platform: str
    """System and architecture, e.g. Linux-x86_64."""
    cpu_name: str
    cores: int
    """The smaller of the cores this process may run on and its container's quota, rounded up."""
    memory_total: int
    """Bytes: the smaller of physical memory and the container's limit; 0 where the system does not say."""
    instruction_sets: frozenset[str]
    """As Linux names them: avx2, avx512f, avx512_bf16, amx_bf16, avx_vnni; on ARM neon, bf16. Empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One place where a network can run."""

    name: str
    """What torch calls it: cpu, cuda:0, mps."""
    title: str
    """What its maker calls it."""
    memory_total: int
    """Bytes; 0 where unknown."""
    capability: tuple[int, int] | None
    """CUDA compute capability."""
    bf16: bool
    """Is bfloat16 fast here?"""
    fp16: bool
    """Is float16 fast here?"""


@lru_cache(maxsize=4)
def look(root: Path = ROOT) -> Machine:
    """Ask the machine what it has; the answer is kept."""
    facts = _cpu_facts(root)
    return Machine(
        platform=f"{platform.system()}-{platform.machine()}",
        cpu_name=facts.get("model name") or platform.processor() or platform.machine() or "unknown",
        cores=_cores(root),
        memory_total=_least([_physical_memory(root), *_memory_limits(root)]),
        instruction_sets=_instruction_sets(facts),
    )


def has_fast_bf16(machine: Machine) -> bool:
    """Does the processor multiply bfloat16 in hardware (AVX512-BF16, AMX, or ARM's BF16)?"""
    return not FAST_BF16.isdisjoint(machine.instruction_sets)


def has_fast_int8(machine: Machine) -> bool:
    """Does the processor multiply whole numbers of 8 bits and add them up in one go (VNNI or AMX)?"""
    return not FAST_INT8.isdisjoint(machine.instruction_sets)


def memory_available(root: Path = ROOT) -> int:
    """Bytes that this process could take now without swapping or passing its container's limit; 0 where unknown."""
    free = _meminfo(root).get("MemAvailable", 0) or _sysconf_bytes("SC_AVPHYS_PAGES") or _physical_memory(root)
    return _least([free, *_memory_rooms(root)])


def peak_resident() -> int:
    """Bytes of memory that this process held at its peak; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def installed(package: str) -> str:
    """The version of an installed package, "" where there is none."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and few commands ask

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def devices() -> list[Device]:
    """List what torch can compute on, the fastest kind first and the processor last."""
    import torch

    machine = look()
    found = [_cuda_device(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        found.append(
            Device(name="mps", title=machine.cpu_name, memory_total=memory, capability=None, bf16=False, fp16=True)
        )
    cpu = Device(
        name="cpu",
        title=machine.cpu_name,
        memory_total=machine.memory_total,
        capability=None,
        bf16=has_fast_bf16(machine),
        fp16=False,
    )
    return [*found, cpu]


def _cuda_device(index: int) -> Device:
    import torch

    seen = torch.cuda.get_device_properties(index)
    capability = (seen.major, seen.minor)
    return Device(
        name=f"cuda:{index}",
        title=seen.name,
        memory_total=seen.total_memory,
        capability=capability,
        bf16=capability >= (8, 0),
        fp16=capability >= (7, 0) or capability in ((5, 3), (6, 0), (6, 2)),
    )


def _cpu_facts(root: Path) -> dict[str, str]:
    """The first value of each line of cpuinfo; of flags and features, what all cores share."""
    facts: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("flags", "Features") and key in facts:
            facts[key] = " ".join(set(facts[key].split()) & set(value.split()))
        facts.setdefault(key, value)
    return facts


def _instruction_sets(facts: dict[str, str]) -> frozenset[str]:
    names = set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())
    # 64-bit ARM kernels call NEON asimd; every Apple processor has it, and macOS has no cpuinfo
    if "asimd" in names or (sys.platform == "darwin" and platform.machine() == "arm64"):
        names.add("neon")
    return frozenset(names)


def _cores(root: Path) -> int:
    if sys.platform != "linux":
        return os.cpu_count() or 1
    quotas = [_quota_v2(f) for f in _cgroup_files(root, "", "cpu.max")]
    quotas += [_quota_v1(f) for f in _cgroup_files(root, "cpu", "cpu.cfs_quota_us")]
    return max(1, min([len(os.sched_getaffinity(0)), *(math.ceil(q) for q in quotas if q)]))


def _quota_v2(file: Path) -> float | None:
    """Cores of "QUOTA PERIOD"; QUOTA may be max."""
    quota, _, period = _text(file).partition(" ")
    return _ratio(_number(quota), _number(period))


def _quota_v1(file: Path) -> float | None:
    """Cores of two files; a quota of -1 is none."""
    return _ratio(_number(_text(file)), _number(_text(file.with_name("cpu.cfs_period_us"))))


def _ratio(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period else None


def _physical_memory(root: Path) -> int:
    return _meminfo(root).get("MemTotal", 0) or _sysconf_bytes("SC_PHYS_PAGES")


def _meminfo(root: Path) -> dict[str, int]:
    """Bytes by name."""
    pairs = (line.partition(":") for line in _text(root / "proc/meminfo").splitlines())
    return {key: 1024 * (_number(value.removesuffix("kB")) or 0) for key, _, value in pairs}


def _sysconf_bytes(name: str) -> int:
    if sys.platform == "win32" or name not in os.sysconf_names:
        return 0
    return max(0, os.sysconf(name)) * os.sysconf("SC_PAGE_SIZE")


def _memory_limits(root: Path) -> list[int | None]:
    return [limit for limit, _, _ in _memory_groups(root)]


def _memory_rooms(root: Path) -> list[int | None]:
    """What is left below each limit; file pages that the kernel can drop count as left."""
    rooms: list[int | None] = []
    for limit, usage, stat in _memory_groups(root):
        pairs = dict(line.split(" ", 1) for line in _text(stat).splitlines() if " " in line)
        cached = _number(pairs.get("total_inactive_file", "")) or _number(pairs.get("inactive_file", "")) or 0
        rooms.append(None if limit is None else max(1, limit - (_number(_text(usage)) or 0) + cached))
    return rooms


def _memory_groups(root: Path) -> Iterator[tuple[int | None, Path, Path]]:
    """Limit, usage file and statistics file of every group that this process is in."""
    for controller, limit, usage in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for file in _cgroup_files(root, controller, limit):
            yield _number(_text(file)), file.with_name(usage), file.with_name("memory.stat")


def _cgroup_files(root: Path, controller: str, name: str) -> list[Path]:
    """The files called `name` from this process's group up to the top; controller "" is cgroup v2.

    In a container the path may be the host's: levels that do not exist here are passed over.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            places = ["", "unified"] if controller == "" else [controller, controllers]
            tops = [root / "sys/fs/cgroup" / place for place in dict.fromkeys(places)]
            levels = [top / part for top in tops for part in _upwards(path.strip("/"))]
            return [level / name for level in levels if (level / name).is_file()]
    return []


def _upwards(path: str) -> list[str]:
    """
    >>> _upwards("user.slice/me")
    ['user.slice/me', 'user.slice', '']
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _least(sizes: list[int | None]) -> int:
    return min((size for size in sizes if size), default=0)


def _number(text: str) -> int | None:
    """None for max, -1 and anything else that is no size."""
    return int(text) if text.strip().isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def keep_freed_memory() -> bool:
    """Ask glibc to keep what this process frees for its next large array; says whether it will.

    Without this every array over 32 MB is mapped and cleared anew, page by page, which takes as long as the convolution
    that fills it. It holds for the whole process, so only programs call it, never the library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    never_map, never_trim = libc.mallopt(_M_MMAP_MAX, 0), libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(never_map and never_trim)
