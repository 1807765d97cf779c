"""Finding: what PneumoNet says of one film, and how a door writes it down."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.admission import Admission
from pneumonet.language import ENGLISH, Language, said, sentences
from pneumonet.radiograph import Radiograph
from pneumonet.saliency import lay_on_film
from pneumonet.taxonomy import Risk

RESEARCH_USE: Final = said("Research use only. Not a medical device.")
TRAINED_ON_CHILDREN: Final = said("Trained on children of one to five.")
DISCLAIMER: Final = sentences([RESEARCH_USE, TRAINED_ON_CHILDREN])
ENSEMBLE: Final = "ensemble"
# In place of a film that is not kept: its pixels take many times its file, from which they are read again.
NO_FILM: Final = Radiograph(np.zeros((1, 1), dtype=np.float32), format="")


@dataclass(frozen=True)
class ModelInfo:
    """Which weights answered.

    Attributes:
        repo_id: Hub repo, None for a local folder.
        revision: Commit of the repo, or `local-` and the fingerprint of the folder's config.
        version: Version of the weights.
    """

    repo_id: str | None
    revision: str
    version: str

    def to_dict(self) -> dict[str, str | None]:
        """Return the JSON object of a door's answer."""
        return {"repo_id": self.repo_id, "revision": self.revision, "version": self.version}


@dataclass(frozen=True, eq=False)
class Finding:
    """What the model says of one film. It informs and never diagnoses.

    Attributes:
        label: The most likely class.
        probabilities: Calibrated probability of each class, in the order of `CLASS_NAMES`; they sum to 1.
        confidence: The label's probability.
        prediction_set: The classes that the snapshot's coverage leaves open, most likely first.
        risk: Risk level.
        admission: Whether the film is one that the model knows; not accepted only where the caller forced an answer.
        saliency: For the ensemble and each member by name, for each class, (h, w) float32 in [0, 1]: Grad-CAM at the
            size of the last feature map. Empty where the caller asked for none.
        member_probabilities: Each member's own calibrated probabilities, by its name.
        model: Which weights answered.
        film: The film that was answered.
        timings: Milliseconds of each stop on the road.
        warnings: Sentences that the user should read.
    """

    label: str
    probabilities: dict[str, float]
    confidence: float
    prediction_set: tuple[str, ...]
    risk: Risk
    admission: Admission
    model: ModelInfo
    film: Radiograph = field(repr=False)
    saliency: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict, repr=False)
    member_probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def saliency_map(self, label: str | None = None, source: str = ENSEMBLE) -> NDArray[np.float32]:
        """Return a map laid on the film's own pixels.

        Args:
            label: The class explained; the finding's own by default.
            source: `ensemble` or a member's name.

        Returns:
            (H, W) float32 in [0, 1], H and W the film's.

        Raises:
            KeyError: If there is no such map, or none was asked for.
        """
        return lay_on_film(self.saliency[source][label or self.label], self.film.height, self.film.width)

    def to_dict(self, language: Language = ENGLISH) -> dict[str, Any]:
        """Return the JSON object that every door answers with, less what only that door knows.

        Probabilities are rounded to six digits, so that the same film reads the same at every door.

        Args:
            language: Of the sentences. What programs read, such as the prediction and the risk level, is the same in
                all.
        """
        return {
            "prediction": self.label.replace("_", " "),
            "confidence": f"{self.confidence:.2%}",
            "risk_level": self.risk.value,
            "probabilities": _rounded(self.probabilities),
            "prediction_set": list(self.prediction_set),
            "members": {name: _rounded(p) for name, p in self.member_probabilities.items()},
            "admission": {
                "accepted": self.admission.accepted,
                "reasons": [{"code": r.code, "message": language(r.message)} for r in self.admission.reasons],
            },
            "warnings": [language(warning) for warning in self.warnings],
            "model": self.model.to_dict(),
            "disclaimer": language(DISCLAIMER),
        }

    def answer(self, request_id: str, duration_ms: float, language: Language = ENGLISH) -> dict[str, Any]:
        """Return the JSON object of a door's answer to a request, less the picture.

        Args:
            request_id: As in the log.
            duration_ms: How long the request took.
            language: As in `to_dict`.
        """
        own = {"timings": self.timings, "request_id": request_id, "duration_ms": round(duration_ms, 1)}
        return self.to_dict(language) | own


def _rounded(probabilities: dict[str, float]) -> dict[str, float]:
    return {name: round(p, 6) for name, p in probabilities.items()}
