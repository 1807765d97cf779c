"""Report: all that a report says of one film, before it is written in any format."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from pneumonet.describing import map_in_words
from pneumonet.errors import AdmissionError, Reason
from pneumonet.finding import DISCLAIMER, ENSEMBLE, Finding, ModelInfo
from pneumonet.language import ENGLISH, Language
from pneumonet.next_steps import DANGER_SIGNS_HEADING, HELP_AT_ONCE, SOURCE, steps_for
from pneumonet.radiograph import Radiograph
from pneumonet.rendering import film_image, overlay
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import DISPLAY_NAMES, Risk
from pneumonet.wording import HEATMAP_NOTE, LIMITS, NOT_ANSWERED, calibration_in_words, coverage_in_words, set_in_words

Status = Literal["answered", "answered_although_refused", "refused"]
_FILM_SIDE: Final = 768


@dataclass(frozen=True, eq=False)
class Report:
    """What was said of one film, and of what it was said: a finding, or why there is none.

    Attributes:
        outcome: The finding, or the refusal.
        film: The film as it was read.
        data: The film's file. Its digest stands in every report; the DICOM reports take over its patient and study.
        model: Which weights answered.
        config: The snapshot's config, for the members' names, the coverage and the digests of the weights.
        request_id: As in the log.
        created: When, with a time zone.
        language: Of the words. What the properties return is said in it already; codes and names are not translated.
    """

    outcome: Finding | AdmissionError
    film: Radiograph = field(repr=False)
    data: bytes = field(repr=False)
    model: ModelInfo
    config: SnapshotConfig = field(repr=False)
    request_id: str
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    language: Language = ENGLISH

    @property
    def finding(self) -> Finding | None:
        """The finding; None for a refused film."""
        return self.outcome if isinstance(self.outcome, Finding) else None

    @property
    def status(self) -> Status:
        """Whether the film was answered, and whether that was in spite of a refusal."""
        if self.finding is None:
            return "refused"
        return "answered" if self.finding.admission.accepted else "answered_although_refused"

    @property
    def disclaimer(self) -> str:
        """For research use only; and that nobody fluent has read the words, where that is so."""
        return " ".join(filter(None, (self.language(DISCLAIMER), self.language.review_notice)))

    @property
    def heading(self) -> str:
        """The answer in two words."""
        return self.language(DISPLAY_NAMES[self.finding.label] if self.finding else NOT_ANSWERED)

    @property
    def confidence(self) -> str | None:
        """The answer's probability, as percent; None for a refused film."""
        return self.percent(self.finding.confidence) if self.finding else None

    @property
    def summary(self) -> str:
        """The answer in one line."""
        if self.finding is None:
            return f"{self.language('Not answered.')} {self.language(AdmissionError.headline)}"
        return self.language("{label}, confidence {confidence}.", label=self.heading, confidence=self.confidence)

    @property
    def risk(self) -> Risk:
        """The risk level; a refused film's is indeterminate."""
        return self.finding.risk if self.finding else Risk.INDETERMINATE

    @property
    def risk_in_words(self) -> str:
        """The risk level as a line of its own."""
        return self.language("Risk level: {risk}", risk=self.risk.value)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why admission refused the film; empty where it did not."""
        reasons = self.outcome.admission.reasons if isinstance(self.outcome, Finding) else self.outcome.reasons
        return tuple(Reason(reason.code, self.language(reason.message)) for reason in reasons)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the reader should see before the numbers."""
        return tuple(map(self.language, self.finding.warnings if self.finding else self.film.warnings))

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do next."""
        refused = self.status == "answered_although_refused"
        steps = steps_for(self.finding.risk if self.finding else None, refused=refused)
        return tuple(map(self.language, steps))

    @property
    def danger_signs(self) -> tuple[str, tuple[str, ...]]:
        """What wants help at once, with its heading."""
        return self.language(DANGER_SIGNS_HEADING), tuple(map(self.language, HELP_AT_ONCE))

    @property
    def advice_source(self) -> str:
        """Whose signs they are."""
        return self.language(SOURCE)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next, what wants help at once, and whose signs these are, a line each."""
        heading, signs = self.danger_signs
        return *self.next_steps, f"{heading}: {' '.join(signs)}", self.advice_source

    @property
    def limits(self) -> tuple[tuple[str, str], ...]:
        """What the model is and is not for: a heading and a text each."""
        return tuple((self.language(about), self.language(text)) for about, text in LIMITS)

    @property
    def probabilities(self) -> list[tuple[str, float]]:
        """Each class with its probability, the most likely first; empty for a refused film."""
        return sorted(self.finding.probabilities.items(), key=lambda item: -item[1]) if self.finding else []

    @property
    def coverage(self) -> float | None:
        """How often the set held the right class; None where that was never measured on such pictures."""
        return self.config.prediction_set.coverage if self.status == "answered" else None

    @property
    def set_in_words(self) -> str | None:
        """Which classes are left open; None for a refused film."""
        if self.finding is None:
            return None
        introduction, classes = map(self.language, set_in_words(self.finding.prediction_set))
        classes = f"{introduction} {classes}".strip()
        return classes if self.coverage is None else f"{classes} ({self.language(coverage_in_words(self.coverage))})"

    @property
    def calibration_note(self) -> str | None:
        """What the percentages mean; None where no calibration was ever measured on such pictures."""
        return None if self.coverage is None else self.language(calibration_in_words(self.coverage))

    @property
    def heatmap_note(self) -> str:
        """What the colours of a map mean, and what not."""
        return self.language(HEATMAP_NOTE)

    @property
    def saliency_map(self) -> NDArray[np.float32] | None:
        """The map of the answer, (h, w) float32 in [0, 1]; None for a refused film, or where none was asked for."""
        maps = self.finding.saliency.get(ENSEMBLE, {}) if self.finding else {}
        return maps[self.finding.label] if self.finding and maps else None

    @property
    def map_in_words(self) -> str | None:
        """Where the map is strongest; None where there is no map."""
        return None if self.saliency_map is None else self.language(map_in_words(self.saliency_map))

    @property
    def heatmap_in_words(self) -> str | None:
        """What the picture of the map shows, and where it is strongest; None where there is no map."""
        if self.finding is None or self.map_in_words is None:
            return None
        return self.language(
            "Heatmap for {label}, laid over the film. {words}",
            label=DISPLAY_NAMES[self.finding.label],
            words=self.map_in_words,
        )

    @cached_property
    def film_picture(self) -> NDArray[np.uint8]:
        """The film, (h, w) uint8, at most 768 pixels on a side."""
        return film_image(self.film, _FILM_SIDE)

    @cached_property
    def overlay_picture(self) -> NDArray[np.uint8] | None:
        """The map of the answer laid over the film, (h, w, 3) uint8 RGB; None where there is no map."""
        return overlay(self.finding) if self.finding and self.saliency_map is not None else None

    @cached_property
    def film_sha256(self) -> str:
        """The digest of the film's file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def instant(self) -> str:
        """When, in UTC, as ISO 8601 to the second."""
        return f"{self.created.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def weights(self) -> dict[str, str]:
        """The SHA-256 of each file of weights, by its path in the snapshot."""
        files = self.config.files.items()
        return {path: digest.sha256 for path, digest in files if path.endswith(".safetensors")}

    @property
    def origin(self) -> str:
        """Where the weights are from: the repo and its commit, or the local folder's fingerprint."""
        return f"{self.model.repo_id}@{self.model.revision}" if self.model.repo_id else self.model.revision

    def name(self, label: str) -> str:
        """Return a class's name."""
        return self.language(DISPLAY_NAMES[label])

    def percent(self, share: float) -> str:
        """Return a share as percent."""
        return self.language.number(f"{share:.2%}")
