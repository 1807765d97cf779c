"""The table of cases in README.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| ([A-Z]\d+) \|.*\| (.+) \|$", (TESTS / "README.md").read_text(), re.M)


def test_every_case_has_a_row_of_its_own() -> None:
    names = [case for case, _ in ROWS]
    assert len(names) == len(set(names)) == 36


@pytest.mark.parametrize(("case", "tests"), ROWS, ids=[case for case, _ in ROWS])
def test_the_tests_of_a_case_are_there(case: str, tests: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    assert named, case
    for path, name in named:
        assert re.search(rf"^\s*(async )?def {name}\(", (TESTS / path).read_text(), re.M), f"{path}::{name}"
