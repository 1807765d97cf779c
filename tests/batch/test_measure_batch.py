"""The films that `scripts/measure_batch.py` makes, and what it makes of its runs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import DEFAULT_SNAPSHOT
from scripts.measure_batch import _memory, growth, write_films


def test_films_are_each_of_its_own_and_the_same_every_time(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_films(tmp_path / name, 6)
    first, again = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "ab")
    assert first == again
    assert len(set(first)) == 6
    sizes = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape for data in first]
    assert all(512 <= side <= 1024 for size in sizes for side in size)


def test_films_are_such_as_the_committed_model_answers(tmp_path: Path) -> None:
    write_films(tmp_path, 6)
    model = PneumoNet.from_pretrained(DEFAULT_SNAPSHOT, device="cpu")
    for path in tmp_path.iterdir():
        assert model.predict(path, saliency=False).admission.accepted


def test_growth_is_of_each_engine_s_last_run_over_its_first() -> None:
    runs = [
        {"engine": engine, "films": films, "seconds": seconds, "peak_memory_mib": memory}
        for engine, films, seconds, memory in (("local", 10, 2.0, 100), ("ray", 10, 5.0, 300), ("local", 40, 6.0, 110))
    ]
    assert growth(runs) == {
        "local": {"films": 4.0, "seconds": 3.0, "peak_memory_mib": 1.1},
        "ray": {"films": 1.0, "seconds": 1.0, "peak_memory_mib": 1.0},
    }


def test_memory_is_of_the_process_and_what_it_started() -> None:
    held = _memory(os.getpid())
    ballast = np.ones(64 * 2**20, dtype=np.uint8)
    assert _memory(os.getpid()) - held == pytest.approx(ballast.nbytes, rel=0.2)
    assert _memory(2**22 + 1) == 0
