"""A finished teacher and its views, shared by the tests of training."""

from pathlib import Path

import pytest

from pneumonet.training.run import Run
from pneumonet.training.teacher import Teacher
from pneumonet.training.views import make_views
from tests.support.runs import CPU, RECIPE, child_films


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learnt its films."""
    folder = tmp_path_factory.mktemp("teacher")
    Run(RECIPE, folder, CPU).fit(child_films(96, 1), child_films(30, 2))
    return folder


@pytest.fixture(scope="session")
def views(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two rounds of views of that run's films."""
    folder = tmp_path_factory.mktemp("views")
    make_views(folder, child_films(96, 1), [Teacher(teacher, CPU)], rounds=2, size=64, seed=1, held_back_fold=0)
    return folder
