"""The three classes, their order, and the wording of a finding's risk."""

from collections.abc import Collection
from enum import Enum
from typing import Final

from pneumonet.language import said

BACTERIAL: Final = "BACTERIAL_PNEUMONIA"
NORMAL: Final = "NORMAL"
VIRAL: Final = "VIRAL_PNEUMONIA"

# Alphabetical, the order that timm and torchvision give folders of these names, so logits of a backbone
# trained by either read the same way.
CLASS_NAMES: Final[tuple[str, str, str]] = (BACTERIAL, NORMAL, VIRAL)

DISPLAY_NAMES: Final[dict[str, str]] = {
    BACTERIAL: said("Bacterial pneumonia"),
    NORMAL: said("Normal"),
    VIRAL: said("Viral pneumonia"),
}
# Within a sentence: other languages have rules of their own for capitals.
NAMES_WITHIN: Final[dict[str, str]] = {
    BACTERIAL: said("bacterial pneumonia"),
    NORMAL: said("normal"),
    VIRAL: said("viral pneumonia"),
}

# The customer's threshold: under it a finding names no risk.
REVIEW_CONFIDENCE: Final = 0.70


class Risk(Enum):
    """Risk level of a finding, worded as the customer words it."""

    INDETERMINATE = said("Indeterminate (Requires Review)")
    NONE_DETECTED = said("No Immediate Risk Detected")
    MEDIUM = said("Medium Risk - Viral Pneumonia Indicated")
    HIGH = said("High Risk - Bacterial Pneumonia Indicated")


_RISK_OF_CLASS: Final[dict[str, Risk]] = {
    BACTERIAL: Risk.HIGH,
    NORMAL: Risk.NONE_DETECTED,
    VIRAL: Risk.MEDIUM,
}


def risk_of(label: str, confidence: float, prediction_set: Collection[str], *, is_in_doubt: bool = False) -> Risk:
    """Return the risk level of an answer.

    Args:
        label: One of `CLASS_NAMES`.
        confidence: The label's calibrated probability, in [0, 1].
        prediction_set: The classes left open; no risk is only spoken of where NORMAL alone is left.
        is_in_doubt: Whether something else speaks against the answer: the backbones disagree, or admission refused the
            film and an answer was asked for all the same.

    Raises:
        KeyError: If the label is not one of `CLASS_NAMES`.

    >>> risk_of("NORMAL", 0.70, {"NORMAL"}).value
    'No Immediate Risk Detected'
    >>> risk_of("NORMAL", 0.70, {"NORMAL", "VIRAL_PNEUMONIA"}).value
    'Indeterminate (Requires Review)'
    """
    risk = _RISK_OF_CLASS[label]
    is_open = risk is Risk.NONE_DETECTED and set(prediction_set) != {NORMAL}
    return Risk.INDETERMINATE if is_in_doubt or is_open or confidence < REVIEW_CONFIDENCE else risk
