"""Sentences that the page and the reports share, word for word."""

from collections.abc import Sequence
from typing import Final

from pneumonet.language import Said, said
from pneumonet.taxonomy import DISPLAY_NAMES, NAMES_WITHIN

NOT_ANSWERED: Final = said("Not answered")
HEATMAP_HEADING: Final = said("What influenced the answer")
HEATMAP_NOTE: Final = said("Colours mark regions that influenced the answer. They do not outline disease.")

# Each stands under its own heading; the page has them beside the upload, a report at its end.
FOR_WHOM: Final = said(
    "People who study how such models behave: researchers, teachers, students. It is not for the care of a patient, "
    "and nobody should be treated, or not treated, because of it."
)
TRAINED_ON: Final = said(
    "Frontal (AP) films of children of one to five from one hospital in Guangzhou, China, each labelled normal, "
    "bacterial or viral. For an adult, an infant, a side view or another hospital's machine its answer may be wrong "
    "without a sign of it."
)
CANNOT: Final = said(
    "It knows three answers and no other disease. It cannot rule pneumonia out, name a germ, or say how ill a child "
    "is. A heatmap shows what influenced the answer, not where a disease is."
)
LIMITS: Final[tuple[tuple[str, str], ...]] = (
    (said("Whom it is for"), FOR_WHOM),
    (said("What it was trained on"), TRAINED_ON),
    (said("What it cannot do"), CANNOT),
)


def set_in_words(prediction_set: Sequence[str]) -> tuple[str, str]:
    """Say which classes are left open: an introduction, if any, and what to stress.

    >>> " ".join(set_in_words(["NORMAL"]))
    'Of the three classes, only one is left open: normal'
    >>> set_in_words(["NORMAL", "VIRAL_PNEUMONIA"])[1]
    'Normal or viral pneumonia: cannot tell which'
    """
    if len(prediction_set) == 1:
        # Never "nothing else": there are other diseases, and one film in ten of a class lacks it in its set.
        return said("Of the three classes, only one is left open:"), NAMES_WITHIN[prediction_set[0]]
    first, second, *more = prediction_set
    names = {"first": DISPLAY_NAMES[first], "second": NAMES_WITHIN[second]}
    if not more:
        return "", said("{first} or {second}: cannot tell which", **names)
    return "", said("{first} or {second} or {third}: cannot tell which", **names, third=NAMES_WITHIN[more[0]])


def calibration_in_words(coverage: float) -> Said:
    """Say what the percentages and the set mean.

    Args:
        coverage: Of the prediction set, in (0, 1).
    """
    return said(
        "The percentages are calibrated: they say how often such answers were right on films held back from training, "
        "not how ill a child is. Coverage: for {coverage:.0%} of such films of each class, the classes left open held "
        "the right one.",
        coverage=coverage,
    )


def coverage_in_words(coverage: float) -> Said:
    """Say how sure it is that the classes left open hold the right one.

    Args:
        coverage: Of the prediction set, in (0, 1).
    """
    return said("at {coverage:.0%} coverage", coverage=coverage)
