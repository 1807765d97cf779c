"""What to do next: short, careful, sourced, and never an all-clear or a treatment."""

import re

import pytest

from pneumonet.next_steps import DANGER_SIGNS, SOURCE, steps_for
from pneumonet.taxonomy import Risk

ALL = [*Risk, None]


@pytest.mark.parametrize("risk", ALL)
@pytest.mark.parametrize("refused", [False, True])
def test_it_is_a_short_list_of_sentences(risk: Risk | None, refused: bool) -> None:
    steps = steps_for(risk, refused)
    assert 3 <= len(steps) <= 5
    assert len(set(steps)) == len(steps)
    for sentence in (*steps, *DANGER_SIGNS):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert len(sentence) < 260


@pytest.mark.parametrize("risk", ALL)
def test_everybody_is_sent_to_a_clinician_and_told_of_breathing(risk: Risk | None) -> None:
    text = " ".join(steps_for(risk))
    assert "clinician" in text
    # WHO 2014: fast breathing is 50 a minute at 2 to 11 months and 40 at 1 to 5 years; with it stands chest indrawing.
    assert re.search(r"50 breaths a minute or more at 2 to 11 months, 40 or more at 1 to 5 years", text)
    assert "lower chest draws in" in text


@pytest.mark.parametrize("risk", ALL)
def test_nothing_treats_or_reassures(risk: Risk | None) -> None:
    text = " ".join(steps_for(risk)).lower()
    for word in ("antibiotic", "amoxicillin", "dose", "mg", "medicine", "healthy", "safe", "no need", "reassur"):
        assert not re.search(rf"\b{word}", text), word


def test_what_each_level_must_say() -> None:
    assert "does not rule out disease" in steps_for(Risk.NONE_DETECTED)[0]
    assert "nor an all-clear" in steps_for(Risk.INDETERMINATE)[0]
    for risk in (Risk.HIGH, Risk.MEDIUM):
        assert "no diagnosis" in steps_for(risk)[0]
    assert "says nothing about the child" in " ".join(steps_for(None))


def test_a_refusal_and_a_forced_answer_tell_of_a_better_picture() -> None:
    better = steps_for(None)[0]
    assert "DICOM" in better
    for risk in Risk:
        assert better in steps_for(risk, refused=True)
        assert better not in steps_for(risk)


def test_the_danger_signs_are_who_s_and_name_their_source() -> None:
    # The four general danger signs; then, for a child with cough, stridor, severe malnutrition and hypoxaemia.
    signs = (
        "drink or breastfeed", "Vomits everything", "convulsions", "lethargic or unconscious", "stridor",
        "malnour", "90%",
    )  # fmt: skip
    for sign in signs:
        assert sum(sign in sentence for sentence in DANGER_SIGNS) == 1
    assert len(DANGER_SIGNS) == 7
    for words in ("World Health Organization", "2014", "978 92 4 150781 3", "Integrated Management of Childhood"):
        assert words in SOURCE


def test_both_isbns_are_whole() -> None:
    numbers = re.findall(r"978[\d ]+", SOURCE)
    assert len(numbers) == 2
    for number in numbers:
        digits = [int(digit) for digit in number.replace(" ", "")]
        assert len(digits) == 13
        assert sum(d * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10 == 0
