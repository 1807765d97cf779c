"""What both DICOM reports share: the study they belong to, the device that made them, and the file."""

import logging
import uuid
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pneumonet import __version__
from pneumonet.reports.dicom_source import Source
from pneumonet.reports.document import Report

# highdicom logs a patient's name that it takes for an odd one.
logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)

MANUFACTURER: Final = "PneumoNet (research software)"
MODEL_NAME: Final = "PneumoNet"
# Part of the file's header: who wrote it.
_IMPLEMENTATION: Final = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'urn:pneumonet:writer').int}"
_UTF_8: Final = "ISO_IR 192"
_LO_LENGTH: Final = 64


def new_uid() -> str:
    """Return a new UID, from a random UUID (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def study_of(source: Source, report: Report) -> Dataset:
    """Return the patient, study and instance that a report belongs to.

    Whatever the film does not say is empty. A film without a study gets one whose UID follows from its bytes.
    """
    study = Dataset()
    for keyword, value in (source.patient | source.study).items():
        setattr(study, keyword, value or None)
    if not source.patient["IssuerOfPatientID"]:
        del study.IssuerOfPatientID
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:sha256:{report.film_sha256}").int
    study.StudyInstanceUID = source.study_uid or f"2.25.{own}"
    instance = source.instance
    study.SeriesInstanceUID = instance.series_uid if instance else new_uid()
    study.SOPInstanceUID = instance.instance_uid if instance else new_uid()
    study.SOPClassUID = instance.class_uid if instance else SecondaryCaptureImageStorage
    return study


def equipment(report: Report, description: str) -> dict[str, Any]:
    """Return what highdicom wants to know of the device and the time.

    Args:
        report: The report.
        description: Of the series.
    """
    # DICOM's times are local where no time zone is given.
    made = report.created.astimezone()
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "device_serial_number": report.config.fingerprint,
        "software_versions": (__version__, f"weights {report.model.version}", report.model.revision[:_LO_LENGTH]),
        "series_description": description,
        "content_date": made.date(),
        "content_time": made.time(),
        "specific_character_set": _UTF_8,
    }


def as_file(document: Dataset, source: Source) -> bytes:
    """Return a document as the bytes of a DICOM file."""
    if source.patient["IssuerOfPatientID"]:
        document.IssuerOfPatientID = source.patient["IssuerOfPatientID"]
    document.file_meta.ImplementationClassUID = _IMPLEMENTATION
    document.file_meta.ImplementationVersionName = "PNEUMONET"
    file = BytesIO()
    document.save_as(file, enforce_file_format=True)
    return file.getvalue()
