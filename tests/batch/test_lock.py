"""Two runs at one output, and what a run leaves of its lock."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import folder_of
from pneumonet.errors import ConfigError
from tests.batch.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from pneumonet.batch.lock import only_run

with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new" / "out.parquet"


def test_a_second_run_is_refused_in_words_until_the_first_ends_whatever_ends_it(out: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"Another run is writing out\.parquet"), only_run(out):
            pass
        with only_run(out.with_name("other.parquet")):
            pass
        first.send_signal(signal.SIGKILL)
    with only_run(out):
        assert list(folder_of(out).iterdir())
    assert not folder_of(out).exists()


def test_a_refused_run_takes_nothing_away_and_parts_stay(out: Path) -> None:
    with only_run(out):
        (folder_of(out) / "part").touch()
        for _ in range(2):
            with pytest.raises(ConfigError), only_run(out):
                pass
    assert [path.name for path in folder_of(out).iterdir()] == ["part"]


def test_a_lock_that_was_taken_away_meanwhile_is_none(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def late(file: int, how: int) -> None:
        for path in folder_of(out).iterdir():
            path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ConfigError, match="Another run"), only_run(out):
        pass


def test_a_file_system_without_locks_is_written_all_the_same(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_run(out):
        assert folder_of(out).is_dir()
    assert not folder_of(out).exists()
