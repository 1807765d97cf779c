"""Reports: what was said of one film, as JSON, PDF, HL7 FHIR R4, a DICOM structured report or a DICOM picture.

Each is made in memory and handed back as bytes; nothing is written, logged or sent. JSON, PDF and FHIR name no patient,
unless a name is written in the picture itself; the two DICOM reports belong to the film's study and take patient and
study over from it, as DICOM wants.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pneumonet.errors import BadRequestError
from pneumonet.language import said

if TYPE_CHECKING:
    from pneumonet.reports.document import Report

__all__ = ["FORMATS", "ReportFormat", "format_named", "render"]


@dataclass(frozen=True)
class ReportFormat:
    """A format that reports are given in.

    Attributes:
        name: As callers ask for it.
        title: As the page calls it.
        media_type: Of HTTP.
        suffix: Of a file.
    """

    name: str
    title: str
    media_type: str
    suffix: str

    @property
    def file_name(self) -> str:
        """The name of a download. It says nothing of the film, whose own name may be a patient's."""
        return f"pneumonet-report{self.suffix}"


FORMATS: Final[dict[str, ReportFormat]] = {
    kind.name: kind
    for kind in (
        ReportFormat("pdf", "PDF", "application/pdf", ".pdf"),
        ReportFormat("json", "JSON", "application/vnd.pneumonet.report+json", ".json"),
        ReportFormat("fhir", "FHIR", "application/fhir+json", ".fhir.json"),
        ReportFormat("dicom-sr", said("DICOM report"), "application/dicom", ".sr.dcm"),
        ReportFormat("dicom-sc", said("DICOM picture"), "application/dicom", ".sc.dcm"),
    )
}


def format_named(name: str) -> ReportFormat:
    """Return a format.

    Raises:
        BadRequestError: If there is none of that name.
    """
    kind = FORMATS.get(name)
    if kind is None:
        raise BadRequestError(f"There is no report of that format. Offered are {', '.join(FORMATS)}.")
    return kind


def render(report: "Report", kind: ReportFormat) -> bytes:
    """Write a report.

    Args:
        report: What was said of the film.
        kind: From `FORMATS`.
    """
    # What draws PDFs and writes DICOM is heavy, and most who ask for an answer ask for no report.
    if kind.name == "pdf":
        from pneumonet.reports.pdf import as_pdf

        return as_pdf(report)
    if kind.name == "fhir":
        from pneumonet.reports.fhir import as_fhir

        return as_fhir(report)
    if kind.name == "dicom-sr":
        from pneumonet.reports.dicom_report import as_structured_report

        return as_structured_report(report)
    if kind.name == "dicom-sc":
        from pneumonet.reports.dicom_picture import as_secondary_capture

        return as_secondary_capture(report)
    from pneumonet.reports.json_report import as_json

    return as_json(report)
