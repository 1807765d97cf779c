"""Promises about the package as a whole: what it exports, and that every error can be relied on."""

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import pneumonet
from pneumonet import errors
from pneumonet.errors import PneumoNetError

ROOT = Path(__file__).parents[1]


def _error_classes() -> list[type[PneumoNetError]]:
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, PneumoNetError)]


def test_the_package_exports_what_it_says() -> None:
    assert sorted(pneumonet.__all__) == ["Finding", "PneumoNet", "PneumoNetError", "__version__"]
    for name in pneumonet.__all__:
        assert getattr(pneumonet, name) is not None


def test_every_error_code_is_unique_lower_case_and_in_the_drawn_tree() -> None:
    tree = errors.__doc__ or ""
    codes = [c.code for c in _error_classes() if c not in (PneumoNetError, errors.InputError)]
    assert len(set(codes)) == len(codes)
    for error_class in _error_classes():
        assert error_class.code == error_class.code.lower()
        assert error_class.__name__ in tree
    for code in codes:
        assert code in tree


def test_every_error_a_caller_can_meet_has_a_hint_and_a_fitting_status() -> None:
    for error_class in _error_classes():
        if issubclass(error_class, errors.InputError) and error_class is not errors.InputError:
            assert 400 <= error_class.http_status < 500
            assert error_class.default_hint
        if issubclass(error_class, errors.ModelUnavailableError):
            assert error_class.http_status == 503
            assert error_class.retry_after_seconds


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-batch.txt", "requirements-dev.txt"])
def test_every_pin_for_any_python_installs_on_the_oldest_promised(file: str) -> None:
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    for line in (ROOT / file).read_text().splitlines():
        pin = re.fullmatch(r"([\w-]+)==([\w.]+)", line.strip())
        if pin:
            supported = SpecifierSet(metadata(pin[1])["Requires-Python"] or "")
            assert supported.contains(oldest[1]), f"{pin[1]} {pin[2]} needs Python {supported}"


def _applying(lines: Iterable[str], extra: str = "") -> list[Requirement]:
    """Return the requirements among a file's or a package's lines that this Python on this machine asks for."""
    found = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return [
        requirement for requirement in found if not requirement.marker or requirement.marker.evaluate({"extra": extra})
    ]


def test_every_package_that_is_installed_has_the_version_that_constraints_name() -> None:
    named = {canonicalize_name(pin.name): pin for pin in _applying((ROOT / "constraints.txt").read_text().splitlines())}
    files = [file for file in ROOT.glob("requirements*.txt") if file.name != "requirements-audit.txt"]
    waiting = [wanted for file in files for wanted in _applying(file.read_text().splitlines())]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras} - {extra for name, extra in seen if name == wanted.name}:
            seen.add((wanted.name, extra))
            assert named[canonicalize_name(wanted.name)].specifier.contains(version(wanted.name)), wanted.name
            waiting += _applying(requires(wanted.name) or (), extra)
    assert len(seen) > 100
