"""DICOM tags as plain values; a tag that is absent, empty or damaged is None."""

import math
import re
from datetime import datetime
from typing import Any, Final

DAYS_A_YEAR: Final = 365.25
_YEARS_A_UNIT: Final = {"Y": 1.0, "M": 1 / 12, "W": 7 / DAYS_A_YEAR, "D": 1 / DAYS_A_YEAR}


def text_of(dataset: Any, keyword: str) -> str | None:
    """Return the tag's first value as text without spaces around it."""
    value = first_of(dataset, keyword)
    return (str(value).strip(" \0") or None) if value is not None else None


def number_of(dataset: Any, keyword: str) -> float | None:
    """Return the tag's first value as a finite number."""
    try:
        number = float(first_of(dataset, keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def whole_number_of(dataset: Any, keyword: str) -> int | None:
    """Return the tag's first value as a whole number."""
    number = number_of(dataset, keyword)
    return None if number is None else int(number)


def first_of(dataset: Any, keyword: str) -> Any:
    """Return the tag's first value as pydicom has it."""
    try:
        value = dataset.get(keyword)
        return value[0] if hasattr(value, "append") else value
    except Exception:  # pydicom converts a value when it is asked for, and fails in many ways on a damaged one
        return None


def age_in_years(dataset: Any) -> float | None:
    """Return Patient's Age (0010,1010), else the years from birth date to study date."""
    stated = years_of_age_string(text_of(dataset, "PatientAge"))
    return _years_since_birth(dataset) if stated is None else stated


def years_of_age_string(text: str | None) -> float | None:
    """Read DICOM's age string: three digits and one of Y, M, W, D.

    >>> years_of_age_string("045Y"), years_of_age_string("006M"), years_of_age_string("old")
    (45.0, 0.5, None)
    """
    match = re.fullmatch(r"(\d{1,3})([YMWD])", (text or "").upper())
    return int(match[1]) * _YEARS_A_UNIT[match[2]] if match else None


def _years_since_birth(dataset: Any) -> float | None:
    born, studied = (_date_of(dataset, keyword) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is None or studied is None or studied < born:
        return None
    return (studied - born).days / DAYS_A_YEAR


def _date_of(dataset: Any, keyword: str) -> datetime | None:
    try:
        return datetime.strptime((text_of(dataset, keyword) or "").replace(".", ""), "%Y%m%d")
    except ValueError:
        return None
