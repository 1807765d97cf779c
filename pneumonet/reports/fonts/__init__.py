"""The fonts that reports are written in: parts of the Noto fonts, with the characters that the catalogues use.

Made by `scripts/make_fonts.py`; licence OFL.txt beside them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumonet.language import Language

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Font:
    """A font in two weights.

    Attributes:
        name: Of its files.
        needs_shaping: Letters change with their neighbours.
        breaks_anywhere: Lines may end after any character.
    """

    name: str
    needs_shaping: bool = False
    breaks_anywhere: bool = False

    @property
    def regular(self) -> Path:
        """The file of the regular weight."""
        return FOLDER / f"{self.name}-Regular.ttf"

    @property
    def bold(self) -> Path:
        """The file of the bold weight."""
        return FOLDER / f"{self.name}-Bold.ttf"


# Latin, Greek and Cyrillic letters; every other font has the Latin ones of reports too.
DEFAULT: Final = Font("NotoSans")
FONTS: Final[dict[str, Font]] = {
    "ar": Font("NotoSansArabic", needs_shaping=True),
    "hi": Font("NotoSansDevanagari", needs_shaping=True),
    "zh": Font("NotoSansSC", breaks_anywhere=True),
    "ja": Font("NotoSansJP", breaks_anywhere=True),
    "ko": Font("NotoSansKR"),
}


def font_of(language: Language) -> Font:
    """Return the font that a language is written in."""
    return FONTS.get(language.primary, DEFAULT)
