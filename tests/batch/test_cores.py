"""How many cores a process may use, where a control group grants it fewer than the machine has."""

from pathlib import Path

import pytest

from pneumonet.batch import cores
from pneumonet.batch.cores import quotas, usable_cores

V1, V2 = "4:memory:/job\n1:cpu,cpuacct:/job/own\n", "0::/job/own\n"


@pytest.mark.parametrize(
    ("listed", "files", "granted"),
    [
        (V2, {"job/own/cpu.max": "150000 100000\n"}, [1.5]),
        (V2, {"job/own/cpu.max": "max 100000\n", "job/cpu.max": "400000 100000\n"}, [4.0]),
        (V2, {"cpu.max": "50000 100000\n"}, [0.5]),
        (V2, {}, []),
        (V1, {"cpu/job/own/cpu.cfs_quota_us": "300000\n", "cpu/job/own/cpu.cfs_period_us": "100000\n"}, [3.0]),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [2.0]),
        (V1, {"cpu/job/own/cpu.cfs_quota_us": "-1\n", "cpu/job/own/cpu.cfs_period_us": "100000\n"}, []),
        (V1, {"job/own/cpu.max": "100000 100000\n"}, []),
    ],
)
def test_a_quota_is_read_from_either_version(
    tmp_path: Path, listed: str, files: dict[str, str], granted: list[float]
) -> None:
    own = tmp_path / "own"
    own.write_text(listed)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(quotas(tmp_path / "groups", own)) == granted


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert list(quotas(tmp_path, tmp_path / "none")) == []


@pytest.mark.parametrize(("granted", "expected"), [([], 8), ([1.5, 4.0], 2), ([0.25], 1), ([64.0], 8)])
def test_the_least_of_affinity_and_quotas_counts(
    monkeypatch: pytest.MonkeyPatch, granted: list[float], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "quotas", lambda: iter(granted))
    assert usable_cores() == expected
