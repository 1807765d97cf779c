"""The three classes, their order, and the wording of a finding's risk."""

from enum import Enum
from typing import Final

BACTERIAL: Final = "BACTERIAL_PNEUMONIA"
NORMAL: Final = "NORMAL"
VIRAL: Final = "VIRAL_PNEUMONIA"

# Alphabetical, the order that timm and torchvision give folders of these names, so logits of a backbone
# trained by either read the same way.
CLASS_NAMES: Final[tuple[str, str, str]] = (BACTERIAL, NORMAL, VIRAL)

DISPLAY_NAMES: Final[dict[str, str]] = {
    BACTERIAL: "Bacterial pneumonia",
    NORMAL: "Normal",
    VIRAL: "Viral pneumonia",
}

# The customer's threshold: under it a finding names no risk.
REVIEW_CONFIDENCE: Final = 0.70


class Risk(Enum):
    """Risk level of a finding, worded as the customer words it."""

    INDETERMINATE = "Indeterminate (Requires Review)"
    NONE_DETECTED = "No Immediate Risk Detected"
    MEDIUM = "Medium Risk - Viral Pneumonia Indicated"
    HIGH = "High Risk - Bacterial Pneumonia Indicated"


_RISK_OF_CLASS: Final[dict[str, Risk]] = {
    BACTERIAL: Risk.HIGH,
    NORMAL: Risk.NONE_DETECTED,
    VIRAL: Risk.MEDIUM,
}


def risk_of(label: str, confidence: float) -> Risk:
    """Return the risk level of a label held with a confidence.

    Args:
        label: One of `CLASS_NAMES`.
        confidence: The label's calibrated probability, in [0, 1].

    Raises:
        KeyError: If the label is not one of `CLASS_NAMES`.

    >>> risk_of("NORMAL", 0.69).value
    'Indeterminate (Requires Review)'
    >>> risk_of("NORMAL", 0.70).value
    'No Immediate Risk Detected'
    """
    risk = _RISK_OF_CLASS[label]
    return Risk.INDETERMINATE if confidence < REVIEW_CONFIDENCE else risk
