"""What was measured of the weights that answer, as far as an answer must say it."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumonet.language import said, sentences
from pneumonet.snapshot import METRICS_FILE, SnapshotConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MissRate:
    """How many held-back films of pneumonia were answered normal.

    Attributes:
        missed: Films of pneumonia answered normal.
        sick: Films of pneumonia.
    """

    missed: int
    sick: int

    @classmethod
    def read(cls, folder: Path, config: SnapshotConfig) -> "MissRate | None":
        """Read it from a snapshot's metrics.json; None, with a line in the log, where that is of no use here.

        Args:
            folder: The snapshot.
            config: Its config, which the figures must be of.
        """
        path = folder / METRICS_FILE
        try:
            metrics = json.loads(path.read_bytes())
            revision = metrics["model"]["revision"]
            if revision != f"local-{config.fingerprint}":
                raise ValueError(f"its figures are of {revision}")
            return cls.of(metrics)
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            _log.warning("Answers name no miss rate: %s cannot be used: %r.", METRICS_FILE, error)
            return None

    @classmethod
    def of(cls, metrics: dict[str, Any]) -> "MissRate":
        """Return it from an evaluation's report.

        Raises:
            KeyError: If the report lacks the counts.
            ValueError: If a count is below 0.
        """
        counts = metrics["binary"]["confusion"]
        missed, found = int(counts["false_negative"]), int(counts["true_positive"])
        if min(missed, found) < 0:
            raise ValueError("it counts fewer than no films")
        return cls(missed, missed + found)


def caution_on_normal(rate: MissRate | None) -> str:
    """Return the sentence that goes with every normal answer.

    >>> caution_on_normal(MissRate(40, 500))[43:]
    'Of 500 films of children with pneumonia that it was measured on, it called 40 normal.'
    """
    sentence = said("A normal answer does not rule out disease.")
    if rate is None or not rate.sick:
        return sentences([sentence, said("How often these weights miss pneumonia is not known here.")])
    measured = said(
        "Of {sick} films of children with pneumonia that it was measured on, it called {missed} normal.",
        sick=rate.sick,
        missed=rate.missed,
    )
    return sentences([sentence, measured])
