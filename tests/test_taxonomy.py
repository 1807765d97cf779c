"""The customer's wording of risk, and one order of classes everywhere."""

import pytest

from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES, risk_of


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
    assert risk_of(label, confidence).value == wording


def test_class_order_is_alphabetical_and_named_throughout() -> None:
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES) == sorted(DISPLAY_NAMES)
