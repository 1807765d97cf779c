"""The films that `scripts/measure_batch.py` makes, and what it makes of its runs."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import DEFAULT_SNAPSHOT
from scripts import measure_batch
from scripts.measure_batch import _memory, growth, write_films


def test_films_are_each_of_its_own_the_same_every_time_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_batch, "DISTINCT", 4)
    for name, count in (("a", 6), ("b", 2), ("b", 6)):
        (tmp_path / name).mkdir(exist_ok=True)
        write_films(tmp_path / name, count)
    first, again = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "ab")
    assert first == again
    assert first[4:] == first[:2]
    assert len(set(first)) == 4
    sizes = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape for data in first]
    assert all(512 <= side <= 1024 for size in sizes for side in size)
    with monkeypatch.context() as patched:
        patched.setattr(measure_batch, "synthetic_film", lambda *_: pytest.fail("made again"))
        write_films(tmp_path / "b", 6)


def test_films_are_such_as_the_committed_model_answers(tmp_path: Path) -> None:
    write_films(tmp_path, 3)
    # To convert the weights for another engine takes many times what three films take.
    model = PneumoNet.from_pretrained(DEFAULT_SNAPSHOT, device="cpu", engine="torch")
    for path in tmp_path.iterdir():
        assert model.predict(path, saliency=False).admission.accepted


def test_growth_is_of_each_engine_s_last_run_over_its_first() -> None:
    runs = [
        {"model": "tiny", "engine": engine, "films": films, "seconds": seconds, "peak_memory_mib": memory}
        for engine, films, seconds, memory in (("local", 10, 2.0, 100), ("ray", 10, 5.0, 300), ("local", 40, 6.0, 110))
    ]
    assert growth(runs) == {
        "tiny, local": {"films": 4.0, "seconds": 3.0, "seconds_per_film": 0.75, "peak_memory_mib": 1.1},
        "tiny, ray": {"films": 1.0, "seconds": 1.0, "seconds_per_film": 1.0, "peak_memory_mib": 1.0},
    }


def test_memory_is_of_the_process_and_of_what_it_started() -> None:
    held, _ = _memory(os.getpid())
    ballast = np.ones(64 * 2**20, dtype=np.uint8)
    assert _memory(os.getpid())[0] - held == pytest.approx(ballast.nbytes, rel=0.2)
    _, before = _memory(os.getpid())
    script = "x = b'1' * 2**26; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert _memory(os.getpid())[1] - before > 2**26
    assert _memory(2**22 + 1) == (0, 0)
