"""A report of each kind of film, and one whose figures are known beforehand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from pneumonet.errors import AdmissionError
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.reports.document import Report
from pneumonet.taxonomy import Risk
from tests.support.films import encoded, phantom
from tests.web.conftest import dicom

REQUEST_ID = "0123456789abcdef"
CREATED = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
PROBABILITIES = {"BACTERIAL_PNEUMONIA": 0.9235, "NORMAL": 0.0101, "VIRAL_PNEUMONIA": 0.0664}
SHOWN = {"Bacterial pneumonia": "92.35%", "Normal": "1.01%", "Viral pneumonia": "6.64%"}
STUDY = {
    "StudyInstanceUID": "1.2.840.99999.1",
    "SeriesInstanceUID": "1.2.840.99999.1.2",
    "SOPInstanceUID": "1.2.840.99999.1.2.3",
    "PatientName": "Doe^Jane",
    "PatientID": "SECRET-7",
    "IssuerOfPatientID": "HOSPITAL-X",
    "PatientBirthDate": "20160504",
    "PatientSex": "F",
    "StudyDate": "20200102",
    "StudyTime": "1015",
    "StudyID": "ST-1",
    "AccessionNumber": "ACC-1",
}
# What of it may stand in no report but the DICOM ones.
PATIENT = ("Doe", "Jane", "SECRET-7", "HOSPITAL-X", "20160504", "2016-05-04", "ACC-1", "ST-1")

MakeReport = Callable[..., Report]


def dicom_film(**tags: Any) -> bytes:
    """A chest film with the tags of a study."""
    return dicom(phantom().astype(np.uint16) * 16, **(STUDY | tags))


FILMS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(phantom(), "JPEG"),
    "dicom": dicom_film,
    "refused": lambda: encoded(phantom() * 0 + 90),
    "refused-dicom": lambda: dicom(np.full((300, 260), 90, dtype=np.uint16), **STUDY),
    "forced": lambda: encoded(phantom(200, 900)),
}


@pytest.fixture(scope="session")
def report_of(tiny_model: PneumoNet) -> MakeReport:
    """Make the report of a film by its name in `FILMS`, or of its bytes, with parts of the finding changed."""

    def make(film: str | bytes, *, saliency: bool = True, **changes: Any) -> Report:
        data = FILMS[film]() if isinstance(film, str) else film
        try:
            outcome: Any = tiny_model.predict(data, force=film == "forced", saliency=saliency)
        except AdmissionError as error:
            outcome = error
        if changes:
            outcome = replace(outcome, **changes)
        read = read_radiograph(data)
        return Report(outcome, read, data, tiny_model.info, tiny_model.snapshot.config, REQUEST_ID, CREATED)

    return make


@pytest.fixture(scope="session")
def known(report_of: MakeReport) -> MakeReport:
    """Make the report of a film with the probabilities and the sentences that the tests look for."""

    def make(film: str | bytes = "jpeg", **changes: Any) -> Report:
        told: dict[str, Any] = {
            "label": "BACTERIAL_PNEUMONIA",
            "probabilities": PROBABILITIES,
            "confidence": 0.9235,
            "prediction_set": ("BACTERIAL_PNEUMONIA", "VIRAL_PNEUMONIA"),
            "risk": Risk.HIGH,
            "warnings": ("A warning of the film.",),
        }
        return report_of(film, **(told | changes))

    return make
