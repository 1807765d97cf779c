"""Which class and patient a film's name states, and a split that keeps patients whole."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.films import FilmSet, assign_folds, label_of, list_films, load_split, patient_of, split_films


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("NORMAL/IM-0115-0001.jpeg", "NORMAL"),
        ("PNEUMONIA/person1_bacteria_2.jpeg", "BACTERIAL_PNEUMONIA"),
        ("PNEUMONIA/person1_virus_2.jpeg", "VIRAL_PNEUMONIA"),
        ("PNEUMONIA/00000032_012.png", None),
        ("BACTERIAL_PNEUMONIA/x.png", "BACTERIAL_PNEUMONIA"),
        # The folder decides where it names the class itself.
        ("VIRAL_PNEUMONIA/person1_bacteria_2.jpeg", "VIRAL_PNEUMONIA"),
    ],
)
def test_label_of(path: str, label: str | None) -> None:
    assert label_of(Path(path)) == label


def test_label_of_an_unknown_folder() -> None:
    with pytest.raises(ValueError, match="'HANDS'"):
        label_of(Path("HANDS/person1_bacteria_2.jpeg"))


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1000_bacteria_2931.jpeg", "person1000"),
        ("person1000_virus_1681.jpeg", "person1000"),
        ("person1_bacteria_1.jpeg", "person1"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-0115"),
        ("NORMAL2-IM-1422-0001.jpeg", "NORMAL2-IM-1422"),
        ("00000032_012.png", "00000032"),
        ("whatever.png", "whatever"),
    ],
)
def test_patient_of(name: str, patient: str) -> None:
    assert patient_of(Path("PNEUMONIA") / name) == patient


def _films() -> list[Path]:
    films = [Path(f"NORMAL/IM-{patient:04}-{film:04}.jpeg") for patient in range(80) for film in range(patient % 3 + 1)]
    for cause, first in (("bacteria", 0), ("virus", 60)):
        films += [
            Path(f"PNEUMONIA/person{patient}_{cause}_{film}.jpeg")
            for patient in range(first, first + 80)
            for film in range(2)
        ]
    return films


def test_folds_never_split_a_patient() -> None:
    films = _films()
    fold_of = assign_folds(films, folds=8, seed=1)
    assert set(fold_of) == {patient_of(film) for film in films}
    assert set(fold_of.values()) == set(range(8))
    # Films of both causes of one patient go where the patient goes.
    assert patient_of(Path("person70_bacteria_0.jpeg")) == patient_of(Path("person70_virus_0.jpeg"))


def test_folds_have_their_share_of_each_class() -> None:
    films = _films()
    fold_of = assign_folds(films, folds=8, seed=1)
    patients = {(patient_of(film), label_of(film)) for film in films}
    for label in CLASS_NAMES:
        counts = Counter(fold_of[patient] for patient, of_patient in patients if of_patient == label)
        # Each kind of patient is dealt round, so a class differs by at most one for each of its kinds.
        assert max(counts.values()) - min(counts.values()) <= 2


def test_folds_follow_the_seed_and_not_the_order_of_films() -> None:
    films = _films()
    assert assign_folds(films, 8, seed=1) == assign_folds(reversed(films), 8, seed=1)
    assert assign_folds(films, 8, seed=1) != assign_folds(films, 8, seed=2)


def test_list_films_of_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="NORMAL/"):
        list_films(tmp_path)


def test_list_films_passes_over_nothing_but_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "NORMAL").mkdir()
    for name in ("b.PNG", "a.jpeg", "notes.txt", ".DS_Store"):
        (tmp_path / "NORMAL" / name).touch()
    assert [film.name for film in list_films(tmp_path)] == ["a.jpeg", "b.PNG", "notes.txt"]


def test_film_set_squashes_and_labels(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "x.png" for folder in CLASS_NAMES]
    for value, path in enumerate(paths):
        path.parent.mkdir()
        Image.fromarray(np.full((100, 300), 50 * value, np.uint8)).save(path)
    films = FilmSet.read(paths)
    assert len(films) == 3
    assert films.pixels.shape == (3, 1, 224, 224)
    assert films.labels.tolist() == [0, 1, 2]
    assert films.pixels[:, 0, 100, 100].tolist() == [0, 50, 100]


@pytest.mark.data
def test_committed_split_covers_the_training_films(shared_data: Path) -> None:
    folder = shared_data / "chest_xray" / "train"
    films, fold_of = list_films(folder), load_split()
    assert {patient_of(film) for film in films} == set(fold_of)
    assert fold_of == assign_folds(films, folds=8, seed=2026)
    training, held_back = split_films(folder, 0)
    assert sorted([*training, *held_back]) == films
    assert not {patient_of(film) for film in training} & {patient_of(film) for film in held_back}
    for label in CLASS_NAMES:
        share = sum(label_of(f) == label for f in held_back) / sum(label_of(f) == label for f in films)
        assert 0.10 < share < 0.16


def test_pneumonia_of_no_stated_cause_is_not_taken_for_normal(tmp_path: Path) -> None:
    film = tmp_path / "PNEUMONIA" / "person1_1.jpeg"
    film.parent.mkdir()
    film.write_bytes(b"")
    with pytest.raises(ValueError, match="_bacteria_ or _virus_"):
        FilmSet.read([film])
