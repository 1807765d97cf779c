"""What a DICOM film says of its study, read again for the reports that refer to it."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pneumonet.reading.dicom import read_header
from pneumonet.reading.dicom_tags import text_of

_UID: Final = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_UID_LENGTH: Final = 64
_DATE: Final = re.compile(r"\d{8}")
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class Instance:
    """A film of a study, by its four UIDs, and the series' modality."""

    study_uid: str
    series_uid: str
    instance_uid: str
    class_uid: str
    modality: str | None


@dataclass(frozen=True, repr=False)
class Source:
    """What the DICOM reports take over, an empty text where the film does not say it; never logged.

    Attributes:
        study_uid: None where the film is no DICOM file, or has no sound one.
        instance: None where one of its UIDs is missing.
        patient: Patient's name, id, issuer of the id, birth date and sex, by keyword.
        study: Date, time, id, accession number and referring physician, by keyword.
        burned_in: Whether the film says that text is burned into it: YES, NO, or empty.
    """

    study_uid: str | None
    instance: Instance | None
    patient: dict[str, str]
    study: dict[str, str]
    burned_in: str


def read_source(data: bytes) -> Source:
    """Read what a film's file says of its patient and study.

    Values that DICOM does not allow are left out: a report must be valid where its film is careless.
    """
    header = read_header(data)
    uids = [_uid(header, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
    study, series, instance, kind = uids
    complete = study and series and instance and kind
    modality = _text(header, "Modality", 16)
    return Source(
        study_uid=study,
        instance=Instance(study, series, instance, kind, modality or None) if complete else None,  # type: ignore[arg-type]
        patient={
            "PatientName": _text(header, "PatientName", 64 * 3),
            "PatientID": _text(header, "PatientID", 64),
            "IssuerOfPatientID": _text(header, "IssuerOfPatientID", 64),
            "PatientBirthDate": _date(header, "PatientBirthDate"),
            "PatientSex": _one_of(header, "PatientSex", "MFO"),
        },
        study={
            "StudyDate": _date(header, "StudyDate"),
            "StudyTime": _time(header, "StudyTime"),
            "StudyID": _text(header, "StudyID", 16),
            "AccessionNumber": _text(header, "AccessionNumber", 16),
            "ReferringPhysicianName": _text(header, "ReferringPhysicianName", 64 * 3),
        },
        burned_in=_one_of(header, "BurnedInAnnotation", ("YES", "NO")),
    )


def _text(header: Any | None, keyword: str, most: int) -> str:
    text = (text_of(header, keyword) if header is not None else None) or ""
    # A backslash would part one value into two.
    return text if len(text) <= most and text.isprintable() and "\\" not in text else ""


def _uid(header: Any | None, keyword: str) -> str | None:
    uid = _text(header, keyword, _UID_LENGTH)
    return uid if _UID.fullmatch(uid) else None


def _one_of(header: Any | None, keyword: str, allowed: str | tuple[str, ...]) -> str:
    value = _text(header, keyword, 16).upper()
    return value if value in tuple(allowed) else ""


def _date(header: Any | None, keyword: str) -> str:
    text = _text(header, keyword, 16).replace(".", "")
    try:
        return datetime.strptime(text, "%Y%m%d").strftime("%Y%m%d") if _DATE.fullmatch(text) else ""
    except ValueError:
        return ""


def _time(header: Any | None, keyword: str) -> str:
    text = _text(header, keyword, 16).replace(":", "")
    return text if _TIME.fullmatch(text) else ""
