"""What to do next: a few careful sentences for each risk level and for a refused film.

They inform. They name no disease, no drug and no treatment, and none of them is an all-clear. The signs are WHO's for a
child of two months to five years with cough or difficult breathing; see `SOURCE`.
"""

from typing import Final

from pneumonet.language import said
from pneumonet.taxonomy import Risk

SOURCE: Final = said(
    "Signs after the World Health Organization: Revised WHO classification and treatment of childhood pneumonia at "
    "health facilities (2014, ISBN 978 92 4 150781 3), and its chart booklet, Integrated Management of Childhood "
    "Illness (2014, ISBN 978 92 4 150682 3)."
)

DANGER_SIGNS_HEADING: Final = said(
    "Get medical help at once if a child of two months to five years has any of these signs"
)
YOUNGER: Final = said("A baby under two months who is ill needs medical help at once, whatever the signs.")

# The booklet's four general danger signs, and what the classification and the booklet set beside them for a child with
# cough or difficult breathing.
DANGER_SIGNS: Final[tuple[str, ...]] = (
    said("Cannot drink or breastfeed."),
    said("Vomits everything."),
    said("Has had convulsions in this illness."),
    said("Is lethargic or unconscious."),
    said("Makes a harsh noise when breathing in while calm (stridor)."),
    said("Is severely malnourished."),
    said("Has an oxygen saturation below 90%, where it can be measured."),
)
# What stands under the heading wherever it is shown: the age of those signs leaves out whom they would miss.
HELP_AT_ONCE: Final = (*DANGER_SIGNS, YOUNGER)

_BREATHING: Final = said(
    "Have a child with cough or difficult breathing seen by a health worker without delay, whatever is said here, if "
    "the lower chest draws in or breathing is fast: 50 breaths a minute or more at 2 to 11 months, 40 or more at 1 to "
    "5 years."
)
_CLINICIAN: Final = said(
    "Show the film and this answer to a clinician, who examines the child. The answer is no diagnosis."
)
_TREATMENT: Final = said("Do not start, change or stop a treatment because of this answer.")
_BETTER_PICTURE: Final = said(
    "Send the file itself, as DICOM or exported from the viewer, and not a photograph or a screenshot of it."
)

_STEPS: Final[dict[Risk, tuple[str, ...]]] = {
    Risk.HIGH: (
        _CLINICIAN,
        said("Bacterial and viral pneumonia look alike on many films, and the answer can be wrong about either."),
        _TREATMENT,
        _BREATHING,
    ),
    Risk.MEDIUM: (
        _CLINICIAN,
        said(
            'Bacterial and viral pneumonia look alike on many films: "viral" does not rule out a bacterial infection.'
        ),
        _TREATMENT,
        _BREATHING,
    ),
    Risk.NONE_DETECTED: (
        said(
            "A normal answer does not rule out disease: early pneumonia may not show on a film, and the model knows no "
            "other disease."
        ),
        _CLINICIAN,
        _TREATMENT,
        _BREATHING,
    ),
    Risk.INDETERMINATE: (
        said("This is no answer to go by: neither a sign of disease nor an all-clear."),
        said("Have a clinician read the film and examine the child."),
        _TREATMENT,
        _BREATHING,
    ),
}

# The refused film may be any picture, so the first thing is how to send a better one.
_REFUSED: Final[tuple[str, ...]] = (
    _BETTER_PICTURE,
    said(
        "Choose one frontal chest film: upright, whole and uncropped, light where the bones are, without drawings on "
        "it."
    ),
    said(
        "If there is only the film on a light box or a screen: photograph it straight on, filling the picture, without "
        "flash, reflections or fingers."
    ),
    said("That a picture was refused says nothing about the child: have the film read by a clinician."),
    _BREATHING,
)


def steps_for(risk: Risk | None, refused: bool = False) -> tuple[str, ...]:
    """Return what to do next, three to five sentences in the order of their weight.

    Args:
        risk: The finding's risk level; None where the film was refused and there is no finding.
        refused: Whether admission refused the film although an answer was asked for all the same.

    >>> steps_for(Risk.INDETERMINATE)[0]
    'This is no answer to go by: neither a sign of disease nor an all-clear.'
    >>> steps_for(None)[0] in steps_for(Risk.HIGH, refused=True)
    True
    """
    if risk is None:
        return _REFUSED
    steps = _STEPS[risk]
    return (*steps, _BETTER_PICTURE) if refused else steps
