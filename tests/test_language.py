"""Every sentence in every language: none missing, none torn, the medical terms those of the glossary."""

import csv
import json
import pickle
import re
import string
import unicodedata
from copy import deepcopy

import pytest

from pneumonet.language import (
    ENGLISH,
    LANGUAGES,
    LOCALES,
    UNREVIEWED,
    as_data,
    from_data,
    language_accepted,
    language_named,
    said,
    sentences,
)
from pneumonet.taxonomy import DISPLAY_NAMES, Risk
from pneumonet.wording import set_in_words
from scripts.translations import catalogue, differences, messages

TAGS = [tag for tag in LANGUAGES if tag != "en"]
GLOSSARY = list(csv.DictReader((LOCALES / "glossary.csv").open(encoding="utf-8")))
# Of each language's own script, most letters of a sentence must be.
SCRIPTS = {"zh-Hans": "CJK", "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": "HANGUL", "hi": "DEVANAGARI", "ar": "ARABIC",
           "ru": "CYRILLIC"}  # fmt: skip


def _translations(tag: str) -> dict[str, str]:
    return {message.id: message.string for message in catalogue(tag) if message.id}


def _fields(template: str) -> list[tuple[str, str]]:
    return sorted((name, spec or "") for _, name, spec, _ in string.Formatter().parse(template) if name)


def test_the_languages_are_the_twelve_with_a_file_each() -> None:
    assert list(LANGUAGES) == ["en", "es", "fr", "de", "pt-BR", "it", "zh-Hans", "ja", "ko", "hi", "ar", "ru"]
    assert {path.stem for path in LOCALES.glob("*.po")} == set(TAGS)
    assert [tag for tag, language in LANGUAGES.items() if language.direction == "rtl"] == ["ar"]
    names = [language.name for language in LANGUAGES.values()]
    assert {"English", "Español", "Deutsch", "Русский", "हिन्दी", "العربية", "日本語", "한국어"} < set(names)


def test_the_sentences_are_found_where_they_are_said() -> None:
    found = messages()
    assert len(found) > 200
    for text in ("Risk level", "confidence", "Bacterial pneumonia", "What to do next", "Analyse", "Synthetic: normal"):
        assert text in found
    # One with values in a template of the page, one in an f-string, one of several lines.
    assert any("The content decides, not the name." in text for text in found)
    assert "Copy result as JSON" in found
    assert any(text.startswith("The percentages are calibrated") and text.endswith("the right one.") for text in found)


@pytest.mark.parametrize("tag", TAGS)
def test_no_sentence_is_missing_and_none_is_needless(tag: str) -> None:
    assert differences(tag) == ([], [])


@pytest.mark.parametrize("tag", TAGS)
def test_each_sentence_has_its_values_and_its_edges(tag: str) -> None:
    for english, other in _translations(tag).items():
        assert _fields(other) == _fields(english), english
        assert (other[0] == " ", other[-1] == " ") == (english[0] == " ", english[-1] == " "), english
        assert "\n" not in other
        # No control of direction that would reach where it is not seen.
        assert not [c for c in other if unicodedata.category(c) == "Cf" and c not in "\u200c\u200d"], english
        assert not re.search(r"\{[^}]*%\}\s*%", other), english


@pytest.mark.parametrize("tag", TAGS)
def test_each_sentence_is_translated_and_in_the_language_s_script(tag: str) -> None:
    texts = _translations(tag)
    same = [english for english, other in texts.items() if english == other and len(english.split()) > 2]
    assert not same
    if tag in SCRIPTS:
        for english, other in texts.items():
            words = re.sub(r"\{[^}]*\}|[A-Z][\w./-]*|https?\S+", "", english)
            letters = [c for c in other if c.isalpha() and ord(c) > 0x24F]
            if len(words.split()) > 2:
                assert letters, english
                assert all(unicodedata.name(c).startswith(SCRIPTS[tag]) or c in "ー々〇" for c in letters), english


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("row", GLOSSARY, ids=lambda row: row["term"])
def test_medical_terms_are_the_glossarys(tag: str, row: dict[str, str]) -> None:
    stems = [stem.lower() for stem in row[tag].split("|")]
    assert all(stems)
    told = 0
    for english, other in _translations(tag).items():
        # The name of a value is no word of the sentence.
        if re.search(rf"\b{re.escape(row['term'])}\b", re.sub(r"\{[^}]*\}", "", english), re.IGNORECASE):
            told += 1
            assert any(stem in other.lower() for stem in stems), english
    assert told


@pytest.mark.parametrize("tag", TAGS)
def test_who_has_not_reviewed_it_is_said_in_its_own_words(tag: str) -> None:
    language = LANGUAGES[tag]
    assert not language.reviewed_by
    assert language.review_notice == _translations(tag)[UNREVIEWED.template]
    assert not ENGLISH.review_notice


def test_values_are_said_too_and_numbers_written_as_the_language_does() -> None:
    german = LANGUAGES["de"]
    inner = said("{megabytes:g} MB", megabytes=1234.5)
    sentence = said("The file is larger than the limit of {limit}.", limit=inner)
    assert sentence == "The file is larger than the limit of 1234.5 MB."
    assert "1234,5" in german(sentence)
    assert german.number("1,234.50%") == "1.234,50\xa0%"
    assert LANGUAGES["pt-BR"].number("97.40%") == "97,40%"
    assert LANGUAGES["ar"].number("97.40%") == "97.40%"
    assert LANGUAGES["de"](Risk.HIGH.value) != Risk.HIGH.value
    for tag in TAGS:
        for classes in (["NORMAL"], ["NORMAL", "VIRAL_PNEUMONIA"], list(DISPLAY_NAMES)):
            assert not [
                word
                for word in map(LANGUAGES[tag], set_in_words(classes))
                if word and word.isascii() and tag in SCRIPTS
            ]


def test_words_from_elsewhere_stay_as_they_are() -> None:
    for text in ("{0.__class__}", "{", "a {name} of theirs", "50% {}"):
        assert LANGUAGES["de"](text) == text
    hostile = said("The file is larger than the limit of {limit}.", limit="{limit.__class__}")
    assert "{limit.__class__}" in LANGUAGES["de"](hostile)
    with pytest.raises(KeyError):
        from_data(["{a.__class__}", {"a": 1}])


def test_a_sentence_survives_being_kept_and_copied() -> None:
    sentence = sentences([said("The file is empty."), said("{megabytes:g} MB", megabytes=2.5), "Plain."])
    assert sentence == "The file is empty. 2.5 MB Plain."
    for copied in (
        from_data(json.loads(json.dumps(as_data(sentence)))),
        deepcopy(sentence),
        pickle.loads(pickle.dumps(sentence)),
    ):
        assert copied == sentence
        assert LANGUAGES["de"](copied) == LANGUAGES["de"](sentence)
    assert json.dumps(sentence) == '"The file is empty. 2.5 MB Plain."'


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("*", "en"),
        ("sv", "en"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("en;q=0.5, ru;q=0.9", "ru"),
        ("zh-TW", "zh-Hans"),
        ("PT", "pt-BR"),
        ("de;q=0, es;q=0.1", "es"),
        ("de;q=nonsense, it", "it"),
        ("de;q=nan, it;q=0.1", "it"),
    ],
)
def test_accept_language_is_read_as_rfc_9110_has_it(header: str, tag: str) -> None:
    assert language_accepted(header).tag == tag


def test_a_language_is_named_by_its_tag() -> None:
    assert [getattr(language_named(tag), "tag", None) for tag in ("de-AT", "zh_CN", "xx", "", "../../etc")] == [
        "de",
        "zh-Hans",
        None,
        None,
        None,
    ]
