"""PneumoNet: the whole road, from a file to a finding."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pneumonet.admission import Admission, AdmissionCheck, FirstLook
from pneumonet.calibration import prediction_set
from pneumonet.ensemble import Ensemble, EnsemblePass, members_agree
from pneumonet.errors import AdmissionError, SnapshotError
from pneumonet.feature_space import load_spaces
from pneumonet.finding import ENSEMBLE, Finding, ModelInfo
from pneumonet.hub import Snapshot, open_snapshot
from pneumonet.language import said
from pneumonet.measured import MissRate, caution_on_normal
from pneumonet.presentation import PresentationClassifier
from pneumonet.radiograph import Radiograph
from pneumonet.reading import ReadingLimits, read_radiograph
from pneumonet.reading.decoding import check_caller
from pneumonet.saliency import grad_cam, lay_on_film, scaled
from pneumonet.settings import Settings
from pneumonet.taxonomy import CLASS_NAMES, NORMAL, risk_of

# The ages of the training films' patients.
_YOUNGEST_YEARS, _OLDEST_YEARS = 1, 5

Source = bytes | str | Path | Radiograph
SaliencyMaps = dict[str, dict[str, NDArray[np.float32]]]


class PneumoNet:
    """The ensemble with its calibration, admission and explanation, as one snapshot ties them together.

    Safe to share between threads: nothing is changed after it is built.
    """

    def __init__(
        self, snapshot: Snapshot, ensemble: Ensemble, admission: AdmissionCheck, limits: ReadingLimits
    ) -> None:
        self.snapshot, self.ensemble, self.admission, self.limits = snapshot, ensemble, admission, limits
        self.caution_on_normal = caution_on_normal(MissRate.read(snapshot.path, snapshot.config))
        self.info = ModelInfo(snapshot.repo_id, snapshot.revision, snapshot.config.version)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        engine: str | None = None,
        settings: Settings | None = None,
    ) -> "PneumoNet":
        """Load a snapshot.

        Args:
            model: A snapshot folder or `org/name` on the Hub; PNEUMONET_MODEL or the committed one by default.
            revision: Branch, tag or commit of a Hub repo; PNEUMONET_REVISION by default where `model` is not given.
            device: auto, cpu, cuda or mps; PNEUMONET_DEVICE by default.
            engine: auto, torch or openvino; PNEUMONET_ENGINE by default.
            settings: Settings to take instead of the environment's.

        Raises:
            DownloadError: If the Hub, the repo or the revision is out of reach and nothing is cached.
            SnapshotError: If the snapshot is missing, damaged or contradicts itself, and no older commit stands in.
            ConfigError: If a setting is wrong.
        """
        chosen = settings or Settings.from_environment()
        if model is None:
            model, revision = chosen.model, revision or chosen.revision
        chosen = replace(chosen, engine=engine or chosen.engine, device=device or chosen.device)
        snapshot = open_snapshot(model, revision)
        try:
            loaded = cls._load(snapshot, chosen)
        except SnapshotError as error:
            older = snapshot.older(error)
            if older is None:
                raise
            try:
                loaded = cls._load(older, chosen)
            except SnapshotError:
                raise error from None
        loaded.snapshot.accept()
        return loaded

    @classmethod
    def _load(cls, snapshot: Snapshot, settings: Settings) -> "PneumoNet":
        config = snapshot.config
        ensemble = Ensemble.load(
            snapshot.path, config, engine=settings.engine, device=settings.device, cache_dir=settings.cache_dir
        )
        presentation = PresentationClassifier.load(snapshot.path / config.admission.presentation_file)
        spaces = load_spaces(snapshot.path / config.admission.features_file)
        widths = {name: head.width for name, head in ensemble.heads.items()}
        return cls(
            snapshot,
            ensemble,
            AdmissionCheck(config.admission, presentation, spaces, widths),
            ReadingLimits.of(settings),
        )

    def predict(
        self, source: Source, *, frame: int | None = None, force: bool = False, saliency: bool = True
    ) -> Finding:
        """Answer one film.

        Args:
            source: The file's bytes, its path, or a film already read.
            frame: Which frame of several, from 0; the first by default.
            force: Answer a film that admission refuses; the finding says so.
            saliency: Compute the Grad-CAM maps.

        Raises:
            InputError: If the file cannot be read; its class and `code` say why.
            AdmissionError: If the film is refused and `force` is false.
            TookTooLongError: If it waited too long to be decoded, or whoever asked a server for it has given up.
        """
        timings: dict[str, float] = {}
        with _timed(timings, "read"):
            film = (
                source if isinstance(source, Radiograph) else read_radiograph(source, frame=frame, limits=self.limits)
            )
        check_caller()
        finding = self._answer([film], force, saliency, timings)[0]
        if isinstance(finding, AdmissionError):
            raise finding
        return finding

    def predict_batch(
        self, films: Sequence[Radiograph], *, force: bool = False, saliency: bool = True
    ) -> list[Finding | AdmissionError]:
        """Answer several films in one pass of each backbone.

        Args:
            films: Films already read, by `pneumonet.reading.read_radiograph`.
            force: As in `predict`.
            saliency: As in `predict`.

        Returns:
            For each film its finding, or the error that says why it is refused.
        """
        return self._answer(films, force, saliency, {}) if films else []

    def _answer(
        self, films: Sequence[Radiograph], force: bool, saliency: bool, timings: dict[str, float]
    ) -> list[Finding | AdmissionError]:
        with _timed(timings, "admission"):
            looks = [self.admission.first_look(film) for film in films]
        seen = [i for i, look in enumerate(looks) if force or not look.reasons]
        answers: list[Finding | AdmissionError] = [AdmissionError(look.reasons) for look in looks]
        if seen:
            passing, first_looks = [films[i] for i in seen], [looks[i] for i in seen]
            for i, answer in zip(seen, self._pass(passing, first_looks, force, saliency, timings), strict=True):
                answers[i] = answer
        return answers

    def _pass(
        self,
        films: Sequence[Radiograph],
        looks: Sequence[FirstLook],
        force: bool,
        saliency: bool,
        timings: dict[str, float],
    ) -> list[Finding | AdmissionError]:
        with _timed(timings, "forward"):
            passed = self.ensemble.forward(films)
        with _timed(timings, "admission"):
            admissions = [
                self.admission.decide(look, {p.config.name: p.pooled[i] for p in passed.members})
                for i, look in enumerate(looks)
            ]
        maps: list[SaliencyMaps] = [{} for _ in films]
        if saliency and (force or any(admission.accepted for admission in admissions)):
            with _timed(timings, "saliency"):
                maps = _saliency_maps(passed)
        return [
            self._finding(film, passed, i, admission, maps[i], timings)
            if admission.accepted or force
            else AdmissionError(admission.reasons)
            for i, (film, admission) in enumerate(zip(films, admissions, strict=True))
        ]

    def _finding(
        self,
        film: Radiograph,
        passed: EnsemblePass,
        index: int,
        admission: Admission,
        maps: SaliencyMaps,
        timings: dict[str, float],
    ) -> Finding:
        config, probabilities = self.snapshot.config, passed.probabilities[index]
        label = CLASS_NAMES[int(probabilities.argmax())]
        confidence = float(probabilities.max())
        thresholds = [config.prediction_set.thresholds[name] for name in CLASS_NAMES]
        names = tuple(CLASS_NAMES[c] for c in prediction_set(probabilities, thresholds))
        members = {p.config.name: p.probabilities[index] for p in passed.members}
        agree = bool(members_agree([p[None] for p in members.values()], config.agreement)[0])
        return Finding(
            label=label,
            probabilities=_named(probabilities),
            confidence=confidence,
            prediction_set=names,
            risk=risk_of(label, confidence, names, is_in_doubt=not (agree and admission.accepted)),
            admission=admission,
            model=self.info,
            film=film,
            saliency=maps,
            member_probabilities={name: _named(p) for name, p in members.items()},
            timings={name: round(value, 2) for name, value in timings.items()},
            warnings=tuple(self._warnings(film, label, admission, agree, maps)),
        )

    def _warnings(
        self, film: Radiograph, label: str, admission: Admission, agree: bool, maps: SaliencyMaps
    ) -> Iterator[str]:
        yield from self.snapshot.warnings
        yield from film.warnings
        if label == NORMAL:
            yield self.caution_on_normal
        age = film.patient_age_years
        # The age itself stays out of the sentence: it is a patient's datum, and sentences are shown and copied.
        if age is not None and not _YOUNGEST_YEARS <= age < _OLDEST_YEARS + 1:
            yield said("The file states an age outside one to five years, the only ages the model was trained on.")
        if not admission.accepted:
            yield said("This picture was refused as a chest film and answered only because that was asked for.")
        if not agree:
            yield said(
                "The two backbones disagree on this film, so no risk level is named: read the answer with extra care."
            )
        if maps and not maps[ENSEMBLE][label].any():
            yield said("No region of the film stood out for this answer: the heatmap is empty.")


def _named(probabilities: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(p) for name, p in zip(CLASS_NAMES, probabilities, strict=True)}


def _saliency_maps(passed: EnsemblePass) -> list[SaliencyMaps]:
    """Return each film's maps: of every class, by each member and by the ensemble, its members' weighted mean."""
    by_member = [(p.config, scaled(grad_cam(p.head, p.features))) for p in passed.members]
    # Members may end in maps of different sizes; the mean is taken on the finest grid.
    height, width = (max(maps.shape[axis] for _, maps in by_member) for axis in (2, 3))
    films = []
    for i in range(len(passed.probabilities)):
        maps: SaliencyMaps = {config.name: dict(zip(CLASS_NAMES, m[i], strict=True)) for config, m in by_member}
        maps[ENSEMBLE] = {
            name: sum(
                (config.weight * _resized(maps[config.name][name], height, width) for config, _ in by_member),
                start=np.zeros((height, width), dtype=np.float32),
            ).astype(np.float32)
            for name in CLASS_NAMES
        }
        films.append(maps)
    return films


def _resized(saliency_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return saliency_map if saliency_map.shape == (height, width) else lay_on_film(saliency_map, height, width)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + (time.perf_counter() - started) * 1000
