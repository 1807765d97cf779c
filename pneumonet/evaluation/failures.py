"""The films that a model is most sure of and wrong about."""

from collections.abc import Sequence
from typing import Any, Final

from pneumonet.evaluation.answers import Answer
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.taxonomy import CLASS_NAMES

FAILURES: Final = 12


def worst_failures(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the surest wrong answers, at most `FAILURES`, the surest first; one film a patient.

    A set with films whose cause is not stated has none: which pneumonia would have been right is not known. Each has
    `file`, `truth`, `answer`, `probability` of the answer and `probability_of_truth`.
    """
    if any(a.label_index == CAUSE_NOT_STATED for a in answers):
        return []
    wrong = [a for a in answers if a.label_index != a.answer_index]
    surest: dict[str, Answer] = {}
    for answer in sorted(wrong, key=lambda a: -max(a.probabilities)):
        surest.setdefault(answer.patient, answer)
    return [
        {
            "file": a.file,
            "truth": CLASS_NAMES[a.label_index],
            "answer": CLASS_NAMES[a.answer_index],
            "probability": max(a.probabilities),
            "probability_of_truth": a.probabilities[a.label_index],
        }
        for a in list(surest.values())[:FAILURES]
    ]
