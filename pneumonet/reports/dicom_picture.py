"""The report as a DICOM Secondary Capture: the heatmap laid over the film, with what was said written beneath it."""

from typing import Final

import cv2
import numpy as np
from highdicom import PhotometricInterpretationValues
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pneumonet.finding import DISCLAIMER
from pneumonet.reports.dicom_file import as_file, equipment, new_uid, study_of
from pneumonet.reports.dicom_source import Source, read_source
from pneumonet.reports.document import Report
from pneumonet.taxonomy import DISPLAY_NAMES
from pneumonet.wording import HEATMAP_NOTE

_SERIES_NUMBER: Final = 9702
# A narrower picture leaves its words no room.
_LEAST_WIDTH: Final = 640
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_SCALE: Final = 0.5
_LINE: Final = 20
_EDGE: Final = 12


def as_secondary_capture(report: Report) -> bytes:
    """Return the report as a DICOM file: one RGB picture."""
    source = read_source(report.data)
    study = study_of(source, report)
    capture = SCImage.from_ref_dataset(
        study,
        pixel_array=picture_with_words(report),
        photometric_interpretation=PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=new_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **equipment(report, "PneumoNet heatmap, research use only"),
    )
    # Nobody has said which way the film was laid.
    capture.PatientOrientation, capture.Laterality = [], ""
    capture.ConversionType = "WSD"
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = capture.ContentDate, capture.ContentTime
    capture.DerivationDescription = f"{report.summary} {DISCLAIMER} {HEATMAP_NOTE}"[:1024]
    if source.burned_in:
        capture.BurnedInAnnotation = source.burned_in
    if source.instance:
        capture.SourceImageSequence = [_source_image(source)]
    return as_file(capture, source)


def _source_image(source: Source) -> Dataset:
    item, purpose, instance = Dataset(), Dataset(), source.instance
    assert instance is not None
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.class_uid, instance.instance_uid
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def picture_with_words(report: Report) -> NDArray[np.uint8]:
    """Return the heatmap over the film, or the film alone where there is no map, above what was said of it.

    Returns:
        (h, w, 3) uint8 RGB, the film's pixels square, in the middle where the words take more width.
    """
    picture = report.overlay_picture
    if picture is None:
        picture = np.repeat(report.film_picture[..., None], 3, axis=2)
    height, width = picture.shape[:2]
    sheet_width = max(width, _LEAST_WIDTH)
    lines = [line for sentence in _sentences(report) for line in _wrapped(sentence, sheet_width - 2 * _EDGE)]
    sheet = np.zeros((height + 2 * _EDGE + _LINE * len(lines), sheet_width, 3), dtype=np.uint8)
    left = (sheet_width - width) // 2
    sheet[:height, left : left + width] = picture
    for i, line in enumerate(lines):
        place = (_EDGE, height + _EDGE + _LINE * i + 14)
        cv2.putText(sheet, line, place, _FONT, _SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return sheet


def _sentences(report: Report) -> list[str]:
    said = [DISCLAIMER, f"PneumoNet: {report.summary}", f"Risk level: {report.risk.value}."]
    said += [reason.message for reason in report.reasons]
    if report.probabilities:
        said.append(", ".join(f"{DISPLAY_NAMES[name]} {p:.2%}" for name, p in report.probabilities) + ".")
    said += [report.set_in_words] if report.set_in_words else []
    said += report.warnings
    said += [HEATMAP_NOTE] if report.map_in_words else []
    return [*said, f"Model {report.model.version}, {report.origin}, request {report.request_id}."]


def _wrapped(sentence: str, width: int) -> list[str]:
    # OpenCV draws what its font lacks as question marks.
    words, lines = sentence.encode("ascii", "replace").decode().split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and cv2.getTextSize(longer, _FONT, _SCALE, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
