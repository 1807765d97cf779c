"""Trained backbones to a snapshot: export, temperatures, prediction sets, and the thresholds of admission."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pneumonet.admission import THUMBNAIL
from pneumonet.calibration import (
    conformal_thresholds,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    prediction_set,
    softmax,
)
from pneumonet.engines.torch import TorchEngine
from pneumonet.ensemble import Ensemble, combine, disagreement
from pneumonet.feature_space import FeatureSpace, save_spaces
from pneumonet.members import Member
from pneumonet.presentation import thumbnail
from pneumonet.reading import read_radiograph
from pneumonet.snapshot import (
    AdmissionConfig,
    AgreementConfig,
    InputConfig,
    MemberConfig,
    PredictionSetConfig,
    SnapshotConfig,
    write_config,
)
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.films import label_of, patient_of
from pneumonet.training.presentation import fit_presentation

FEATURES_FILE: Final = "admission.safetensors"
PRESENTATION_FILE: Final = "presentation.safetensors"
COVERAGE: Final = 0.9
_COMPONENTS: Final = 64
# Each of the three spaces and the presentation let all but two films in a thousand pass: together 99 % pass. How far
# beyond them a picture may lie was chosen by hand so that nineteen adults in twenty pass, whose films lie farther out.
_PASS_SHARE: Final = 0.998
_MEMBER_MARGIN: Final = 1.8
_THUMBNAIL_MARGIN: Final = 1.25
_UPRIGHT_MARGIN: Final = 0.65
_PRESENTED_FILMS: Final = 1500
_SEED: Final = 2026
_RESAMPLES: Final = 1000
# Members further apart than on nearly all held-back films are said to disagree, whatever class they name.
_AGREEMENT_SHARE: Final = 0.95
_CROSS_FITTING_FOLDS: Final = 5
_BATCH: Final = 32


class Answers:
    """What the members say of a list of films, through the same road as a user's file."""

    def __init__(self, films: Sequence[Path], members: Sequence[Member], input_config: InputConfig) -> None:
        configs = [member.config for member in members]
        ensemble = Ensemble(configs, input_config, TorchEngine(members))
        self.labels = np.array([CLASS_NAMES.index(str(label_of(film))) for film in films])
        self.patients = np.array([patient_of(film) for film in films])
        logits: dict[str, list[NDArray[np.float32]]] = {m.config.name: [] for m in members}
        vectors: dict[str, list[NDArray[np.float32]]] = {m.config.name: [] for m in members}
        vectors[THUMBNAIL] = []
        for start in tqdm(range(0, len(films), _BATCH), desc="films", mininterval=5):
            batch = [read_radiograph(film) for film in films[start : start + _BATCH]]
            vectors[THUMBNAIL].append(np.stack([thumbnail(film.pixels) for film in batch]))
            for passed in ensemble.forward(batch).members:
                logits[passed.config.name].append(passed.logits)
                vectors[passed.config.name].append(passed.pooled)
        self.logits = {name: np.concatenate(parts) for name, parts in logits.items()}
        self.vectors = {name: np.concatenate(parts) for name, parts in vectors.items()}


def calibrate(
    folder: Path,
    members: Sequence[MemberConfig],
    input_config: InputConfig,
    training: Sequence[Path],
    held_back: Sequence[Path],
    *,
    held_back_fold: int,
    version: str,
) -> tuple[SnapshotConfig, dict[str, Any]]:
    """Set everything in a snapshot's config.json that is measured.

    Args:
        folder: The snapshot, its members exported.
        members: The members; their temperatures are replaced.
        input_config: The input that they were trained for.
        training: The films that they were trained on: where a known film lies.
        held_back: Films of other patients: how far a known film may lie, and how sure an answer may be.
        held_back_fold: The fold of the committed split that `held_back` is.
        version: Version of the weights.

    Returns:
        The config as written, and the figures of the calibration.
    """
    loaded = [Member.load(member, folder) for member in members]
    known, other = Answers(training, loaded, input_config), Answers(held_back, loaded, input_config)
    calibrated = [
        replace(m, temperature=round(fit_temperature(other.logits[m.name], other.labels), 4)) for m in members
    ]
    probabilities = ensemble_probabilities(other.logits, calibrated)
    apart = disagreement(member_probabilities(other.logits, calibrated))
    admission = _admission(folder, training, known, other)
    config = write_config(
        folder,
        version=version,
        held_back_fold=held_back_fold,
        input_config=input_config,
        members=calibrated,
        admission=admission,
        prediction_set=PredictionSetConfig(
            coverage=COVERAGE,
            thresholds=dict(zip(CLASS_NAMES, conformal_thresholds(probabilities, other.labels, COVERAGE), strict=True)),
        ),
        agreement=AgreementConfig(max_total_variation=round(float(np.quantile(apart, _AGREEMENT_SHARE)), 4)),
    )
    return config, _figures(other, calibrated, members)


def _admission(folder: Path, training: Sequence[Path], known: Answers, other: Answers) -> AdmissionConfig:
    """Learn what chest films look like from those trained on, and how far to go from those held back."""
    spaces = {name: FeatureSpace.fit(vectors, _COMPONENTS) for name, vectors in known.vectors.items()}
    save_spaces(spaces, folder / FEATURES_FILE)
    some = np.random.default_rng(_SEED).permutation(len(training))[:_PRESENTED_FILMS]
    presentation = fit_presentation(read_radiograph(training[i]) for i in some)
    presentation.save(folder / PRESENTATION_FILE)
    upright = presentation.upright(other.vectors[THUMBNAIL])
    return AdmissionConfig(
        min_side=64,
        max_aspect=3.5,
        min_contrast=0.03,
        min_detail=0.05,
        max_colourfulness=0.05,
        min_upright=round(float(np.quantile(upright, 1 - _PASS_SHARE)) * _UPRIGHT_MARGIN, 4),
        presentation_file=PRESENTATION_FILE,
        features_file=FEATURES_FILE,
        max_distance={
            name: round(float(np.quantile(space.distance(other.vectors[name]), _PASS_SHARE)) * _margin(name), 4)
            for name, space in spaces.items()
        },
    )


def _margin(space: str) -> float:
    return _THUMBNAIL_MARGIN if space == THUMBNAIL else _MEMBER_MARGIN


def ensemble_probabilities(
    logits: dict[str, NDArray[np.float32]], members: Iterable[MemberConfig]
) -> NDArray[np.float64]:
    """Return the ensemble's probabilities (N, 3) of its members' logits, by name."""
    chosen = list(members)
    return combine(member_probabilities(logits, chosen), [m.weight for m in chosen])


def member_probabilities(
    logits: dict[str, NDArray[np.float32]], members: Iterable[MemberConfig]
) -> list[NDArray[np.float64]]:
    """Return each member's probabilities (N, 3) of its logits, by name."""
    return [softmax(logits[m.name], m.temperature) for m in members]


def _figures(
    other: Answers,
    calibrated: Sequence[MemberConfig],
    before: Sequence[MemberConfig],
) -> dict[str, Any]:
    cross_fitted, covered = _cross_fit(other, before)
    plain = ensemble_probabilities(other.logits, [replace(m, temperature=1.0) for m in before])
    fitted = ensemble_probabilities(other.logits, calibrated)
    return {
        "intervals": _intervals(other, cross_fitted, covered),
        "films": len(other.labels),
        "temperatures": {m.name: m.temperature for m in calibrated},
        "ece_before": expected_calibration_error(plain, other.labels),
        "ece_after": expected_calibration_error(fitted, other.labels),
        "ece_cross_fitted": expected_calibration_error(cross_fitted, other.labels),
        "brier_cross_fitted": _brier(cross_fitted, other.labels),
        "nll_before": negative_log_likelihood(plain, other.labels),
        "nll_cross_fitted": negative_log_likelihood(cross_fitted, other.labels),
        "coverage_cross_fitted": float(covered.mean()),
        "coverage_cross_fitted_of": {
            name: float(covered[other.labels == index].mean()) for index, name in enumerate(CLASS_NAMES)
        },
    }


def _brier(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    return float(((probabilities - np.eye(len(CLASS_NAMES))[labels]) ** 2).sum(axis=1).mean())


def _intervals(
    other: Answers, probabilities: NDArray[np.float64], covered: NDArray[np.bool_]
) -> dict[str, list[float]]:
    """Return the 95 % percentile intervals of the cross-fitted figures, by resampling patients with replacement."""
    rng = np.random.default_rng(_SEED)
    names, patient = np.unique(other.patients, return_inverse=True)
    films_of = [np.flatnonzero(patient == index) for index in range(len(names))]
    draws: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        films = np.concatenate([films_of[i] for i in rng.integers(len(names), size=len(names))])
        labels = other.labels[films]
        figures = {
            "ece_cross_fitted": expected_calibration_error(probabilities[films], labels),
            "brier_cross_fitted": _brier(probabilities[films], labels),
            "coverage_cross_fitted": covered[films].mean(),
        }
        for index, name in enumerate(CLASS_NAMES):
            if (labels == index).any():
                figures[f"coverage_cross_fitted_of.{name}"] = covered[films][labels == index].mean()
        for name, value in figures.items():
            draws.setdefault(name, []).append(float(value))
    return {name: [float(bound) for bound in np.percentile(values, [2.5, 97.5])] for name, values in draws.items()}


def _cross_fit(other: Answers, members: Sequence[MemberConfig]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give each film the probabilities of temperatures fitted without its patient, and whether its set holds it.

    The served temperatures are fitted on all held-back films, so figures on those films flatter them; these do not.
    """
    names = np.unique(other.patients)
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % _CROSS_FITTING_FOLDS, strict=True))
    folds = np.array([fold_of[patient] for patient in other.patients])
    probabilities = np.zeros((len(folds), len(CLASS_NAMES)))
    covered = np.zeros(len(folds), dtype=bool)
    for fold in range(_CROSS_FITTING_FOLDS):
        inside, outside = folds == fold, folds != fold
        fitted = [
            replace(m, temperature=fit_temperature(other.logits[m.name][outside], other.labels[outside]))
            for m in members
        ]
        whole = ensemble_probabilities(other.logits, fitted)
        thresholds = conformal_thresholds(whole[outside], other.labels[outside], COVERAGE)
        probabilities[inside] = whole[inside]
        covered[inside] = [
            label in prediction_set(p, thresholds) for p, label in zip(whole[inside], other.labels[inside], strict=True)
        ]
    return probabilities, covered
