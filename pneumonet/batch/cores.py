"""How many cores this process may use, by its affinity and its control groups' quotas, and how workers share them."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CORES_A_WORKER: Final = 2
_FILMS_AN_ACCELERATOR_S_PASS: Final = 8
_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1; of a container's quota, a part counts as a whole."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, quotas())]))


def usual_workers(device: str) -> int:
    """Return how many processes answer films where nobody says: one for every two cores, one on an accelerator.

    >>> usual_workers("cuda")
    1
    """
    # Each has a model of its own in the accelerator's memory, and one pass takes all of the accelerator.
    return max(1, usable_cores() // CORES_A_WORKER) if device == "cpu" else 1


def films_a_pass(device: str) -> int:
    """Return how many films a worker answers in one pass.

    >>> films_a_pass("cpu"), films_a_pass("cuda")
    (1, 8)
    """
    # A shared pass moves a probability's seventh digit with the films that share it: on a CPU, where OpenVINO gains a
    # fifth by it at most, a film's row stays the same however often the batch is stopped and on whatever it runs.
    return 1 if device == "cpu" else _FILMS_AN_ACCELERATOR_S_PASS


def threads_of(workers: int | None) -> int:
    """Return how many threads one of some processes computes with, so that together they use every core once."""
    return max(1, usable_cores() // (workers or usual_workers("cpu")))


def quotas(groups: Path = _GROUPS, own_groups: Path = _OWN_GROUPS) -> Iterator[float]:
    """Yield the quotas in cores that bind this process, its groups' and those of the groups above them.

    Source: `cpu.max` in the kernel's Documentation/admin-guide/cgroup-v2.rst; `cpu.cfs_quota_us` and
    `cpu.cfs_period_us` in its Documentation/scheduler/sched-bwc.rst for the first version.

    Args:
        groups: Where the control groups are mounted.
        own_groups: The kernel's list of the groups that this process is in.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _of_folders(groups, path, ("cpu.max",))
        elif "cpu" in controllers.split(","):
            yield from _of_folders(groups / "cpu", path, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def _of_folders(top: Path, path: str, names: tuple[str, ...]) -> Iterator[float]:
    # In a container the path may be the host's, which is not mounted there: the container's group is then the top.
    own = top / path.lstrip("/")
    for folder in (own, *own.parents):
        # No file, and no number where there is no quota ("max").
        with suppress(OSError, ValueError):
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0 and period > 0:
                yield quota / period
        if folder == top:
            return
