"""A finished teacher, shared by the tests of training."""

from pathlib import Path

import pytest

from pneumonet.training.run import Run
from tests.support.runs import CPU, RECIPE, child_films


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learnt its films."""
    folder = tmp_path_factory.mktemp("teacher")
    Run(RECIPE, folder, CPU).fit(child_films(96, 1), child_films(30, 2))
    return folder
