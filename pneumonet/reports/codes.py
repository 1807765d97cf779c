"""The codes that FHIR and DICOM reports use for classes, procedures and places."""

from dataclasses import dataclass
from typing import Final

from pneumonet.reports.document import Report
from pneumonet.taxonomy import BACTERIAL, NORMAL, VIRAL, Risk


@dataclass(frozen=True)
class Code:
    """A code of SNOMED CT (SCT), LOINC (LN), DICOM (DCM), UCUM or PneumoNet itself (`OWN`), with its meaning.

    Attributes:
        value: The code, of 16 characters at most.
        scheme: DICOM's designator of the code system.
        meaning: As the code system words it.
    """

    value: str
    scheme: str
    meaning: str


# Where neither SNOMED CT nor DICOM has a code.
OWN: Final = "99PNEUMONET"
CLASSES: Final[dict[str, Code]] = {
    BACTERIAL: Code("53084003", "SCT", "Bacterial pneumonia"),
    NORMAL: Code("17621005", "SCT", "Normal"),
    VIRAL: Code("75570004", "SCT", "Viral pneumonia"),
}
PNEUMONIA: Final = Code("233604007", "SCT", "Pneumonia")
MOST_LIKELY: Final = Code("MOST_LIKELY", OWN, "Most likely class")
LEFT_OPEN: Final = Code("LEFT_OPEN", OWN, "Class left open")
RISK_LEVEL: Final = Code("RISK", OWN, "Risk level")
RISKS: Final = {
    Risk.NONE_DETECTED: Code("RISK_NONE", OWN, Risk.NONE_DETECTED.value),
    Risk.MEDIUM: Code("RISK_MEDIUM", OWN, Risk.MEDIUM.value),
    Risk.HIGH: Code("RISK_HIGH", OWN, Risk.HIGH.value),
    Risk.INDETERMINATE: Code("RISK_UNCLEAR", OWN, Risk.INDETERMINATE.value),
}
# What is concluded of a refused film, and where no risk level is named.
INDETERMINATE: Final = Code("82334004", "SCT", "Indeterminate")
# Never SNOMED CT's "Normal": to who reads nothing but the code that would be an all-clear, which no answer here is.
NO_PATTERN: Final = Code("NO_PATTERN", OWN, "No pneumonia pattern found by the model")
CHEST_FILM: Final = Code("399208008", "SCT", "Plain chest X-ray")
IMAGING_STUDY: Final = Code("18748-4", "LN", "Diagnostic imaging study")
LUNG: Final = Code("39607008", "SCT", "Lung")
PROBABILITY: Final = Code("122157", "DCM", "Probability")
FINDING: Final = Code("121071", "DCM", "Finding")
COMMENT: Final = Code("121106", "DCM", "Comment")
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
PERCENT: Final = Code("%", "UCUM", "Percent")


def conclusion_of(report: Report) -> Code:
    """Return what a report concludes, for readers that look at nothing else of it.

    The most likely class stands elsewhere in the report; as its conclusion it would be read as a diagnosis even where
    the risk level says that there is none, or where another class is left open.
    """
    if report.finding is None or report.risk is Risk.INDETERMINATE:
        return INDETERMINATE
    open_classes = set(report.finding.prediction_set)
    if open_classes == {NORMAL} == {report.finding.label}:
        return NO_PATTERN
    if open_classes == {report.finding.label}:
        return CLASSES[report.finding.label]
    return PNEUMONIA if open_classes == {BACTERIAL, VIRAL} else INDETERMINATE
