"""The customer's wording of risk, and one order of classes everywhere."""

import pytest

from pneumonet.taxonomy import BACTERIAL, CLASS_NAMES, DISPLAY_NAMES, NORMAL, VIRAL, Risk, risk_of


@pytest.mark.parametrize(
    ("label", "confidence", "wording"),
    [
        ("BACTERIAL_PNEUMONIA", 0.9235, "High Risk - Bacterial Pneumonia Indicated"),
        ("VIRAL_PNEUMONIA", 0.70, "Medium Risk - Viral Pneumonia Indicated"),
        ("NORMAL", 0.99, "No Immediate Risk Detected"),
        ("NORMAL", 0.6999, "Indeterminate (Requires Review)"),
        ("BACTERIAL_PNEUMONIA", 0.34, "Indeterminate (Requires Review)"),
    ],
)
def test_risk_as_the_customer_words_it(label: str, confidence: float, wording: str) -> None:
    assert risk_of(label, confidence, {label}).value == wording


@pytest.mark.parametrize(
    "others", [{BACTERIAL}, {VIRAL}, {BACTERIAL, VIRAL}], ids=lambda others: ", ".join(sorted(others))
)
def test_no_risk_is_spoken_of_only_where_normal_alone_is_left(others: set[str]) -> None:
    assert risk_of(NORMAL, 0.99, {NORMAL} | others) is Risk.INDETERMINATE
    assert risk_of(NORMAL, 0.99, others) is Risk.INDETERMINATE
    assert risk_of(NORMAL, 0.99, {NORMAL}) is Risk.NONE_DETECTED


@pytest.mark.parametrize("label", CLASS_NAMES)
def test_what_is_in_doubt_names_no_risk_however_sure(label: str) -> None:
    assert risk_of(label, 0.99, {label}, is_in_doubt=True) is Risk.INDETERMINATE


def test_an_open_cause_leaves_the_risk_of_pneumonia() -> None:
    assert risk_of(BACTERIAL, 0.75, {BACTERIAL, VIRAL}) is Risk.HIGH


def test_class_order_is_alphabetical_and_named_throughout() -> None:
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES) == sorted(DISPLAY_NAMES)
