"""The report as a DICOM Secondary Capture: the heatmap laid over the film, with what was said written beneath it."""

from dataclasses import replace
from typing import Final

import numpy as np
from highdicom import PhotometricInterpretationValues
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pneumonet.language import ENGLISH, Language
from pneumonet.rendering import heatmap
from pneumonet.reports.dicom_file import as_file, equipment, new_uid, study_of
from pneumonet.reports.dicom_source import Source, read_source
from pneumonet.reports.document import Report
from pneumonet.reports.fonts import font_of

_SERIES_NUMBER: Final = 9702
# A narrower picture leaves its words no room.
_LEAST_WIDTH: Final = 640
_SIZE: Final = 15
_LINE: Final = 22
_EDGE: Final = 12
# The colours' scale: a column for each level.
_SCALE_WIDTH, _SCALE_HEIGHT, _SCALE_GAP = 256, 14, 8
# The longest that DICOM allows: VR ST and LT. It means characters; some readers count bytes.
_DERIVATION_LENGTH: Final = 1024
_COMMENTS_LENGTH: Final = 10240


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
        **equipment(report, f"PneumoNet {'heatmap' if report.map_in_words else 'picture'}, research use only"),
    )
    # Nobody has said which way the film was laid.
    capture.PatientOrientation, capture.Laterality = [], ""
    capture.ConversionType = "WSD"
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = capture.ContentDate, capture.ContentTime
    said = [report.summary, report.risk_in_words, report.disclaimer, *_of_the_map(report)]
    capture.DerivationDescription = _joined(said, " | ", _DERIVATION_LENGTH)
    # Nobody can search or hear what stands in the pixels alone.
    capture.ImageComments = _joined(_sentences(report), "\r\n", _COMMENTS_LENGTH)
    if source.burned_in:
        capture.BurnedInAnnotation = source.burned_in
    if source.instance:
        capture.SourceImageSequence = [_source_image(source, report)]
    return as_file(capture, source)


def _source_image(source: Source, report: Report) -> Dataset:
    item, purpose, instance = Dataset(), Dataset(), source.instance
    assert instance is not None
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.class_uid, instance.instance_uid
    if report.film.frames > 1:
        item.ReferencedFrameNumber = report.film.frame + 1
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _joined(sentences: list[str], between: str, most: int) -> str:
    """Join as many sentences, whole ones, as fit into so many bytes of UTF-8."""
    while len(between.join(sentences).encode()) > most:
        sentences = sentences[:-1]
    return between.join(sentences)


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
    language = report.language
    if font_of(language).needs_shaping and not features.check("raqm"):
        # Without FriBiDi on this machine letters would stand apart and in the wrong order.
        report, language = replace(report, language=ENGLISH), ENGLISH
    font = ImageFont.truetype(str(font_of(language).regular), _SIZE)
    lines = [line for sentence in _sentences(report) for line in _wrapped(sentence, font, sheet_width - 2 * _EDGE)]
    top = height + _EDGE + (_LINE if report.map_in_words else 0)
    sheet = Image.new("RGB", (sheet_width, top + _EDGE + _LINE * len(lines)))
    sheet.paste(Image.fromarray(picture), ((sheet_width - width) // 2, 0))
    if report.map_in_words:
        _draw_scale(sheet, height + _EDGE, language, font)
    for i, line in enumerate(lines):
        _write(sheet, _EDGE, top + _LINE * i, line, language, font)
    return np.asarray(sheet)


def _draw_scale(sheet: Image.Image, top: int, language: Language, font: ImageFont.FreeTypeFont) -> None:
    low, high = language("low influence"), language("high influence")
    start = _EDGE + round(font.getlength(low)) + _SCALE_GAP
    scale = heatmap(np.tile(np.linspace(0, 1, _SCALE_WIDTH, dtype=np.float32), (_SCALE_HEIGHT, 1)))
    if language.direction == "rtl":
        sheet.paste(Image.fromarray(scale[:, ::-1]), (sheet.width - start - _SCALE_WIDTH, top + 2))
    else:
        sheet.paste(Image.fromarray(scale), (start, top + 2))
    _write(sheet, _EDGE, top, low, language, font)
    _write(sheet, start + _SCALE_WIDTH + _SCALE_GAP, top, high, language, font)


def _write(
    sheet: Image.Image, start: int, top: int, line: str, language: Language, font: ImageFont.FreeTypeFont
) -> None:
    """Write a line, so many pixels from the side on which the language begins."""
    draw = ImageDraw.Draw(sheet)
    if language.direction == "rtl":
        # A line that begins with a Latin name is of the sheet's direction all the same.
        draw.text((sheet.width - start, top), line, "white", font, anchor="ra", direction="rtl")
    else:
        draw.text((start, top), line, "white", font, anchor="la")


def _sentences(report: Report) -> list[str]:
    said = [report.disclaimer, f"PneumoNet: {report.summary}", report.risk_in_words]
    said += [reason.message for reason in report.reasons]
    if report.probabilities:
        said.append("; ".join(f"{report.name(name)}: {report.percent(p)}" for name, p in report.probabilities))
    said += [report.set_in_words] if report.set_in_words else []
    said += [report.calibration_note] if report.calibration_note else []
    said += report.warnings
    said += _of_the_map(report)
    said += report.advice
    provenance = report.language(
        "Model {version} ({origin}), request {request}.",
        version=report.model.version,
        origin=report.origin,
        request=report.request_id,
    )
    return [*said, provenance]


def _of_the_map(report: Report) -> list[str]:
    return [report.heatmap_in_words, report.heatmap_note] if report.heatmap_in_words else []


def _wrapped(sentence: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    # Words where there are spaces; Chinese and Japanese have none, and break between any two characters.
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [] if not lines[-1] else [""]
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines
