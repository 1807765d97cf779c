"""Sentences that know what they were made of, and the languages that they can be said in.

A sentence is English where it is made, logged and tested. `said` keeps its template and its values beside it, so that a
`Language` can say it again out of its catalogue, `locales/<tag>.po` (GNU gettext; the English template is the key).
"""

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from babel import Locale
from babel.messages.pofile import read_po

LOCALES: Final = Path(__file__).with_name("locales")
_NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?%?")


class _Formatter(string.Formatter):
    """`str.format` without attributes and indices: a template may come out of a cache that others write to."""

    def __init__(self, language: "Language | None" = None) -> None:
        self._language = language

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if self._language is None:
            return format(value, format_spec)
        if isinstance(value, str):
            return format(self._language(value), format_spec)
        return self._language.number(format(value, format_spec))


_ENGLISH: Final = _Formatter()


class Said(str):
    """An English sentence, and what it was made of.

    Attributes:
        template: With `{name}` where a value goes.
        values: Numbers, words and other sentences, by name.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, values: Mapping[str, Any]) -> "Said":
        """Fill in the values."""
        sentence = super().__new__(cls, _ENGLISH.vformat(template, (), values))
        sentence.template, sentence.values = template, values
        return sentence

    def __getnewargs__(self) -> tuple[str, Mapping[str, Any]]:  # type: ignore[override]
        """Return what copies and pickles are made of."""
        return self.template, self.values


def said(template: str, /, **values: Any) -> Said:
    """Return an English sentence that can be said in other languages.

    Args:
        template: English; what the catalogues have as their key, so it stands here in full.
        values: What its placeholders stand for.

    >>> said("The file has {frames:,} frames.", frames=1200)
    'The file has 1,200 frames.'
    """
    return Said(template, values)


def sentences(parts: Iterable[str]) -> Said:
    """Return several sentences as one text, each to be said on its own.

    >>> sentences(["It is small.", "It is in colour."])
    'It is small. It is in colour.'
    """
    values = {f"_{i}": part for i, part in enumerate(parts)}
    return Said(" ".join(f"{{{name}}}" for name in values), values)


def as_data(text: str) -> Any:
    """Return a sentence as JSON data that `from_data` reads: a string, or a list of a template and its values."""
    if not isinstance(text, Said):
        return text
    return [text.template, {name: as_data(v) if isinstance(v, str) else v for name, v in text.values.items()}]


def from_data(data: Any) -> str:
    """Return the sentence that `as_data` wrote down.

    Raises:
        KeyError: If a value is missing.
        TypeError: If it is no such data.
        ValueError: If it is no such data.
    """
    if isinstance(data, str):
        return data
    template, values = data
    return Said(template, {name: from_data(v) if isinstance(v, (str, list)) else v for name, v in values.items()})


@dataclass(frozen=True, eq=False)
class Language:
    """A language that texts can be said in: call it with a sentence.

    Attributes:
        tag: BCP 47.
        reviewed_by: Who has read the whole catalogue with a fluent speaker's and a clinician's eye; empty while nobody
            has, and then the texts say so.
    """

    tag: str
    reviewed_by: str = ""
    _formatter: _Formatter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Bind the formatter."""
        object.__setattr__(self, "_formatter", _Formatter(self))

    def __call__(self, text: str, /, **values: Any) -> str:
        """Say a text; one that the catalogue lacks stays English.

        Args:
            text: A sentence, or a template of the values.
            values: What the template's placeholders stand for.
        """
        if isinstance(text, Said):
            template, values = text.template, {**text.values, **values}
        else:
            template = text
        if not (isinstance(text, Said) or values):
            # No template: words from elsewhere may hold braces.
            return self._catalogue.get(text, text)
        return self._formatter.vformat(self._catalogue.get(template, template), (), values)

    @property
    def name(self) -> str:
        """What the language calls itself."""
        name = self._locale.get_display_name(self._locale) or self.tag
        return name[0].upper() + name[1:]

    @property
    def direction(self) -> str:
        """`ltr` or `rtl`."""
        return self._locale.text_direction

    @property
    def primary(self) -> str:
        """The tag's first part, such as `pt` of `pt-BR`."""
        return self.tag.split("-")[0]

    @property
    def review_notice(self) -> str:
        """That nobody fluent has read the translation, in its own words; empty where somebody has."""
        return "" if self.reviewed_by else self(UNREVIEWED)

    def number(self, text: str) -> str:
        r"""Write a number, formatted by Python, as the language does; digits stay Latin, to be compared.

        >>> language_named("de").number("1,234.5%")
        '1.234,5\xa0%'
        """
        return _NUMBER.sub(lambda found: self._written(found[0]), text)

    def _written(self, number: str) -> str:
        symbols, percent = self._locale.number_symbols["latn"], number.endswith("%")
        marks = {",": symbols["group"], ".": symbols["decimal"]}
        written = "".join(marks.get(c, c) for c in number.rstrip("%"))
        return written + (self._locale.percent_formats[None].suffix[0] if percent else "")

    @cached_property
    def _locale(self) -> Locale:
        return Locale.parse(self.tag, sep="-")

    @cached_property
    def _catalogue(self) -> Mapping[str, str]:
        if self.tag == SOURCE_TAG:
            return {}
        with (LOCALES / f"{self.tag}.po").open("rb") as file:
            catalogue = read_po(file, locale=self._locale, abort_invalid=True)
        return {str(message.id): str(message.string) for message in catalogue if message.id and message.string}


UNREVIEWED: Final = said(
    "This translation has not yet been reviewed by a fluent speaker with medical knowledge. Where in doubt, the "
    "English text counts."
)
SOURCE_TAG: Final = "en"
ENGLISH: Final = Language(SOURCE_TAG, reviewed_by="its authors")
LANGUAGES: Final[dict[str, Language]] = {
    language.tag: language
    for language in (
        ENGLISH,
        Language("es"),
        Language("fr"),
        Language("de"),
        Language("pt-BR"),
        Language("it"),
        Language("zh-Hans"),
        Language("ja"),
        Language("ko"),
        Language("hi"),
        Language("ar"),
        Language("ru"),
    )
}
_BY_PRIMARY: Final = {language.primary: language for language in LANGUAGES.values()}


def language_named(tag: str) -> Language | None:
    """Return the language of a BCP 47 tag; None where we have none.

    >>> language_named("pt-PT").tag, language_named("ZH").tag, language_named("sv")
    ('pt-BR', 'zh-Hans', None)
    """
    return _BY_PRIMARY.get(tag.strip().replace("_", "-").split("-")[0].lower())


def language_accepted(header: str) -> Language:
    """Return the language that an Accept-Language header (RFC 9110, 12.5.4) likes best of ours; else English.

    >>> language_accepted("sv, de-CH;q=0.8, fr;q=0.9").tag
    'fr'
    """
    best, most = ENGLISH, 0.0
    for part in header.split(","):
        tag, _, weight = part.partition(";")
        language, quality = language_named(tag), _quality(weight)
        if language is not None and quality > most:
            best, most = language, quality
    return best


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
