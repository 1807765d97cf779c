"""One film's row: what the model says of it, or the code that says why it says nothing."""

import os
from typing import Any, Final

from pneumonet.errors import (
    AdmissionError,
    FileUnavailableError,
    InternalError,
    PneumoNetError,
    TookTooLongError,
    WorkerDiedError,
)
from pneumonet.finding import Finding
from pneumonet.taxonomy import CLASS_NAMES

# p_bacterial, p_normal, p_viral.
PROBABILITY_COLUMNS: Final = {name: f"p_{name.partition('_')[0].lower()}" for name in CLASS_NAMES}
# What may be no fault of the film's: it is tried again when the batch is started again.
OUR_FAILURES: Final = frozenset(
    error.code for error in (InternalError, WorkerDiedError, TookTooLongError, FileUnavailableError)
)

Row = dict[str, Any]


def printable_path(path: str) -> str:
    """Return a path as Unicode, the bytes of a name that is none escaped, and no two paths as one.

    >>> printable_path("films/a.png")
    'films/a.png'
    """
    # Else a name that holds such an escape as it stands would be another's. Where it separates folders, none can.
    escaped = path if os.sep == "\\" else path.replace("\\", "\\\\")
    return os.fsencode(escaped).decode("utf-8", "backslashreplace")


def answered(path: str, sha256: str, finding: Finding) -> Row:
    """Return the row of a film that the model answered; numbers as at every other door."""
    answer = finding.to_dict()
    members = [{"name": name} | _columns(p) for name, p in answer["members"].items()]
    return _empty(path, sha256, finding.model.revision) | {
        "label": finding.label,
        **_columns(answer["probabilities"]),
        "confidence": answer["probabilities"][finding.label],
        "prediction_set": list(finding.prediction_set),
        "risk": finding.risk.value,
        "members": members,
        "admitted": finding.admission.accepted,
        "admission_reasons": [reason.code for reason in finding.admission.reasons],
        "warnings": list(finding.warnings),
    }


def failed(path: str, sha256: str | None, revision: str, error: PneumoNetError) -> Row:
    """Return the row of a film without an answer; `sha256` is None where its bytes were not read."""
    row = _empty(path, sha256, revision) | {"error_code": error.code, "error": error.message}
    if isinstance(error, AdmissionError):
        row |= {"admitted": False, "admission_reasons": [reason.code for reason in error.reasons]}
    return row


def _empty(path: str, sha256: str | None, revision: str) -> Row:
    return {
        "path": path,
        "sha256": sha256,
        "label": None,
        **dict.fromkeys(PROBABILITY_COLUMNS.values()),
        "confidence": None,
        "prediction_set": [],
        "risk": None,
        "members": [],
        "admitted": None,
        "admission_reasons": [],
        "warnings": [],
        "error_code": None,
        "error": None,
        "model_revision": revision,
        "engine": None,
    }


def _columns(probabilities: dict[str, float]) -> dict[str, float]:
    return {PROBABILITY_COLUMNS[name]: p for name, p in probabilities.items()}
