"""What the model says of each film of a folder, by the same road as a user's file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pneumonet.errors import InputError
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.evaluation.traits import Traits
from pneumonet.finding import Finding
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.taxonomy import CLASS_NAMES, Risk
from pneumonet.training.films import label_of, patient_of


@dataclass(frozen=True)
class Answer:
    """One film's truth and the model's answer, without pixels.

    Attributes:
        file: The film's path below the folder.
        patient: The patient that its name states.
        label_index: Index into `CLASS_NAMES`, or `CAUSE_NOT_STATED`.
        probabilities: Calibrated probability of each class, in the order of `CLASS_NAMES`.
        members: Each backbone's own probabilities, by its name.
        prediction_set: Indices of the classes left open.
        risk: Risk level.
        refusals: Codes of admission's reasons; empty where it accepts the film.
        traits: What the film's file is like, None where not known.
    """

    file: str
    patient: str
    label_index: int
    probabilities: tuple[float, ...]
    members: dict[str, tuple[float, ...]] = field(default_factory=dict)
    prediction_set: tuple[int, ...] = ()
    risk: Risk = Risk.INDETERMINATE
    refusals: tuple[str, ...] = ()
    traits: Traits | None = None

    @property
    def answer_index(self) -> int:
        """Index of the most likely class, into `CLASS_NAMES`."""
        return max(range(len(CLASS_NAMES)), key=lambda index: self.probabilities[index])


@dataclass(frozen=True)
class FilmError:
    """A film that could not be read, and the code that says why."""

    file: str
    code: str


def answer_films(
    model: PneumoNet, films: Sequence[Path], folder: Path, *, progress: bool = True
) -> tuple[list[Answer], list[FilmError]]:
    """Answer each film, one at a time, as a door would.

    A film that admission refuses is answered all the same, so that figures are not made better by what is left out.

    Args:
        model: The model.
        films: Films in class folders.
        folder: The folder above the class folders.
        progress: Show a progress bar.

    Returns:
        The answers, and an error for each film that could not be read.

    Raises:
        ValueError: If a film's folder names no class.
    """
    answers, errors = [], []
    labels = [label_of(film) for film in films]
    for film, label in tqdm(zip(films, labels, strict=True), "films", len(films), unit="film", disable=not progress):
        file = film.relative_to(folder).as_posix()
        try:
            radiograph = read_radiograph(film, limits=model.limits)
            finding = model.predict(radiograph, force=True, saliency=False)
        except InputError as error:
            errors.append(FilmError(file, error.code))
            continue
        label_index = CAUSE_NOT_STATED if label is None else CLASS_NAMES.index(label)
        answers.append(_answer(finding, file, patient_of(film), label_index, Traits.of(film, radiograph)))
    return answers, errors


def _answer(finding: Finding, file: str, patient: str, label_index: int, traits: Traits) -> Answer:
    return Answer(
        file=file,
        patient=patient,
        label_index=label_index,
        probabilities=_ordered(finding.probabilities),
        members={name: _ordered(p) for name, p in finding.member_probabilities.items()},
        prediction_set=tuple(CLASS_NAMES.index(name) for name in finding.prediction_set),
        risk=finding.risk,
        refusals=tuple(reason.code for reason in finding.admission.reasons),
        traits=traits,
    )


def _ordered(probabilities: dict[str, float]) -> tuple[float, ...]:
    return tuple(probabilities[name] for name in CLASS_NAMES)
