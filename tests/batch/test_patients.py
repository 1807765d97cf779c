"""Which films count as one patient's, by the layouts that archives have."""

import pytest

from pneumonet.batch.patients import patients_of

NAMES, FOLDERS = "Patients are told by the films' names.", "Patients are told by folders named as theirs."
A_FOLDER, NOTHING = "Each folder counts as a patient.", "Nothing tells the patients: each film counts as one."


@pytest.mark.parametrize(
    ("films", "told_by"),
    [
        # CheXpert, MIMIC-CXR and BIDS
        (
            {
                "train/patient00001/study1/view1_frontal.jpg": "train/patient00001",
                "train/patient00001/study2/view1_frontal.jpg": "train/patient00001",
                "train/patient00002/study1/view1_frontal.jpg": "train/patient00002",
            },
            FOLDERS,
        ),
        (
            {
                "p10/p10000032/s50414267/02aa804e.jpg": "p10/p10000032",
                "p10/p10000032/s53189527/2a2277a9.jpg": "p10/p10000032",
                "p10/p10000764/s57375967/096052b7.jpg": "p10/p10000764",
            },
            FOLDERS,
        ),
        ({"sub-01/x/a.png": "sub-01", "sub-02/x/b.png": "sub-02"}, FOLDERS),
        # the set that the model was trained on, and ChestX-ray14
        (
            {
                "NORMAL/IM-0115-0001.jpeg": "IM-0115",
                "PNEUMONIA/person1_bacteria_1.jpeg": "person1",
                "PNEUMONIA/person1_virus_2.jpeg": "person1",
            },
            NAMES,
        ),
        ({"images_001/00000032_001.png": "00000032", "images_002/00000032_012.png": "00000032"}, NAMES),
        # what a viewer exports: the same names again for each patient
        ({"Doe/IM-0001-0001.dcm": "Doe", "Doe/IM-0001-0002.dcm": "Doe", "Roe/IM-0001-0001.dcm": "Roe"}, A_FOLDER),
        ({"NORMAL/1.png": "NORMAL/1.png", "PNEUMONIA/1.png": "PNEUMONIA/1.png"}, NOTHING),
        # one film outside a patient's folder, and its name is nobody else's
        ({"patient1/a.png": "a", "b.png": "b"}, NAMES),
    ],
)
def test_each_film_s_patient_and_what_told_it(films: dict[str, str], told_by: str) -> None:
    assert patients_of(list(films)) == (films, told_by)
