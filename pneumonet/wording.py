"""Sentences that the page and the reports share, word for word."""

from collections.abc import Sequence
from typing import Final

from pneumonet.taxonomy import DISPLAY_NAMES

NOT_ANSWERED: Final = "Not answered"
HEATMAP_HEADING: Final = "What influenced the answer"
HEATMAP_NOTE: Final = "Colours mark regions that influenced the answer. They do not outline disease."

# Each stands under its own heading; the page has them beside the upload, a report at its end.
FOR_WHOM: Final = (
    "People who study how such models behave: researchers, teachers, students. It is not for the care of a patient, "
    "and nobody should be treated, or not treated, because of it."
)
TRAINED_ON: Final = (
    "Frontal (AP) films of children of one to five from one hospital in Guangzhou, China, each labelled normal, "
    "bacterial or viral. For an adult, an infant, a side view or another hospital's machine its answer may be wrong "
    "without a sign of it."
)
CANNOT: Final = (
    "It knows three answers and no other disease. It cannot rule pneumonia out, name a germ, or say how ill a child "
    "is. A heatmap shows what influenced the answer, not where a disease is."
)
LIMITS: Final[tuple[tuple[str, str], ...]] = (
    ("Whom it is for", FOR_WHOM),
    ("What it was trained on", TRAINED_ON),
    ("What it cannot do", CANNOT),
)


def set_in_words(prediction_set: Sequence[str]) -> tuple[str, str]:
    """Say which classes are left open: an introduction, and what to stress.

    >>> "".join(set_in_words(["NORMAL"]))
    'Could also be: nothing else'
    >>> "".join(set_in_words(["NORMAL", "VIRAL_PNEUMONIA"]))
    'Normal or viral pneumonia: cannot tell which'
    """
    names = [DISPLAY_NAMES[name] for name in prediction_set]
    if len(names) == 1:
        return "Could also be: ", "nothing else"
    return "", " or ".join([names[0], *(name.lower() for name in names[1:])]) + ": cannot tell which"


def calibration_in_words(coverage: float) -> str:
    """Say what the percentages and the set mean.

    Args:
        coverage: Of the prediction set, in (0, 1).
    """
    return (
        "The percentages are calibrated: they say how often such answers were right on films held back from training, "
        f"not how ill a child is. Coverage: for {coverage:.0%} of such films of each class, the classes left open held "
        "the right one."
    )
