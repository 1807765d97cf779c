"""A4 pages on which each piece of text is tagged, as screen readers want it, over fpdf2."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from typing import Final

import numpy as np
from fpdf import FPDF
from fpdf.enums import MethodReturnValue, WrapMode, XPos, YPos
from fpdf.fonts import TTFFont
from fpdf.prefs import ViewerPreferences
from numpy.typing import NDArray

from pneumonet.language import Language
from pneumonet.rendering import png
from pneumonet.reports.fonts import font_of

MARGIN: Final = 15.0
WIDTH: Final = 210 - 2 * MARGIN
_TOP: Final = 24.0
_BOTTOM: Final = 18.0
_FONT: Final = "report"
_PAGE: Final = 210.0
_VOWEL_SIGNS: Final = dict.fromkeys(range(0x64B, 0x653))
_OTHER_SIDE: Final = {"L": "R", "R": "L"}
_INK: Final = (22, 28, 36)
_MUTED: Final = (86, 96, 108)
_RULE: Final = (200, 206, 212)
_POINT: Final = 0.3528
_LEADING: Final = 1.35
_NOTICE_LEADING: Final = 4.2
_INDENT: Final = 4.5
# The column of names before their values.
_NAMES: Final = 46.0


class TaggedPages(FPDF):
    """Pages with a running header and footer; what is drawn between them is tagged.

    fpdf2 tags pictures by itself. Text is tagged here, by the same builder: headings and paragraphs follow each other
    under the document, in reading order. That builder hangs everything on the document itself and writes nothing that
    lies deeper, so an item of a list and a pair of facts are paragraphs, not LI in L or cells of a Table.
    """

    def __init__(self, title: str, heading: str, notice: str, note: str, created: datetime, language: Language) -> None:
        """Prepare the first page.

        Args:
            title: Of the document, as readers show it.
            heading: Left in each page's head.
            notice: Beneath it.
            note: Left in each page's foot, before the page's number.
            created: When the report was made.
            language: Of the texts, which come in it.
        """
        super().__init__(format="A4", unit="mm")
        self._heading, self._notice, self._note, self.say = heading, notice, note, language
        self._is_mirrored = language.direction == "rtl"
        self._use_font()
        self.set_title(title)
        self.viewer_preferences = ViewerPreferences(display_doc_title=True)
        self.set_lang(language.tag)
        self.set_creator("PneumoNet")
        self.set_creation_date(created)
        self.set_margins(MARGIN, _TOP, MARGIN)
        self.set_auto_page_break(False)
        self.c_margin = 0
        self.add_page()

    def _use_font(self) -> None:
        font = font_of(self.say)
        for style, path in (("", font.regular), ("B", font.bold)):
            self.add_font(_FONT, style, path)
        self._wrap = WrapMode.CHAR if font.breaks_anywhere else WrapMode.WORD
        if font.needs_shaping:
            self.set_text_shaping(True, direction=self.say.direction, language=self.say.primary)
        used = self.fonts[_FONT]
        assert isinstance(used, TTFFont)
        self._known = used.cmap

    def header(self) -> None:
        """Draw a page's head; fpdf2 calls it."""
        with self.artifact():
            self._write(MARGIN, 9, self._heading, 9, bold=True)
            self._dress(9, False, _INK)
            lines = self._broken(self._notice, WIDTH, _NOTICE_LEADING)
            for i, line in enumerate(lines):
                self._write(MARGIN, 13.5 + _NOTICE_LEADING * i, line, 9)
            below = _NOTICE_LEADING * (len(lines) - 1)
            self.set_draw_color(*_RULE)
            self.line(MARGIN, 19 + below, MARGIN + WIDTH, 19 + below)
        self.set_xy(MARGIN, _TOP + below)

    def footer(self) -> None:
        """Draw a page's foot; fpdf2 calls it."""
        with self.artifact():
            self._write(MARGIN, self.h - 12, self._note, 8, colour=_MUTED)
            page = self.say("Page {page} of {pages}", page=self.page_no(), pages="{nb}")
            self._write(MARGIN + WIDTH - 30, self.h - 12, page, 8, colour=_MUTED, width=30, align="R")

    @contextmanager
    def tagged(self, kind: str) -> Iterator[None]:
        """Tag what is drawn meanwhile, on one page, with a type of PDF's structure, such as `P`."""
        mark = self.struct_builder.next_mcid_for_page(self.page)
        self._add_marked_content(struct_type=f"/{kind}", mcid=mark)
        self._out(f"/{kind} <</MCID {mark}>> BDC")
        yield
        self._out("EMC")

    @contextmanager
    def artifact(self) -> Iterator[None]:
        """Mark what is drawn meanwhile as no part of the text: rules, bars, running heads."""
        self._out("/Artifact BMC")
        yield
        self._out("EMC")

    def room(self, height: float) -> None:
        """Begin a new page unless there is room for so many millimetres."""
        if self.y + height > self.h - _BOTTOM:
            self.add_page()

    def gap(self, height: float) -> None:
        """Leave room between two pieces of text."""
        self.y += height

    def heading(self, text: str, level: int = 2, keep: float = 12.0) -> None:
        """Write a heading, on the same page as the first `keep` millimetres of what follows."""
        size = {1: 20.0, 2: 12.5, 3: 10.5}[level]
        self.room(size * _POINT * _LEADING + keep)
        self.paragraph(text, size, bold=True, kind=f"H{level}")
        self.gap(0.8)

    def paragraph(
        self,
        text: str,
        size: float = 10.0,
        *,
        bold: bool = False,
        muted: bool = False,
        kind: str = "P",
        indent: float = 0,
    ) -> None:
        """Write a paragraph, over as many pages as it takes."""
        self._dress(size, bold, _MUTED if muted else _INK)
        height, width = size * _POINT * _LEADING, WIDTH - indent
        self.set_x(self._left(MARGIN + indent, width))
        lines = self._broken(text, width, height)
        self._keep_together(lines, height)
        while lines:
            self.room(height)
            fitting = max(1, int((self.h - _BOTTOM - self.y + 1e-6) / height))
            self._dress(size, bold, _MUTED if muted else _INK)
            self.set_x(self._left(MARGIN + indent, width))
            with self.tagged(kind):
                self._lines(lines[:fitting], width, height)
            lines = lines[fitting:]

    def items(self, sentences: Sequence[str], size: float = 10.0) -> None:
        """Write a list, one item beneath the other."""
        for sentence in sentences:
            self._dress(size, False, _INK)
            height = size * _POINT * _LEADING
            self._keep_together(self._broken(sentence, WIDTH - _INDENT, height), height)
            top = self.y
            with self.artifact():
                self.set_fill_color(*_MUTED)
                self.rect(self._left(MARGIN + 1, 1.1), top + size * _POINT * 0.55, 1.1, 1.1, style="F")
            self.paragraph(sentence, size, indent=_INDENT)
            self.gap(0.6)

    def facts(self, facts: Sequence[tuple[str, str]], size: float = 9.0) -> None:
        """Write names with their values, a line or two each."""
        height = size * _POINT * _LEADING
        for name, value in facts:
            self._dress(size, False, _INK)
            width = WIDTH - _NAMES
            lines, names = self._broken(value, width, height), self._broken(name, _NAMES - 3, height)
            self.room(height * max(len(lines), len(names)))
            top = self.y
            with self.tagged("P"):
                self._dress(size, False, _MUTED)
                self.set_x(self._left(MARGIN, _NAMES - 3))
                self._lines(names, _NAMES - 3, height)
                end = self.y
                self._dress(size, False, _INK)
                self.set_xy(self._left(MARGIN + _NAMES, width), top)
                self._lines(lines, width, height)
            self.y = max(self.y, end)

    def bar(self, name: str, share: float, value: str) -> None:
        """Draw a bar between 0 and 1, with its name before and its value after it."""
        height = 6.4
        self.room(height)
        left, length = MARGIN + 55, WIDTH - 55 - 22
        with self.artifact():
            self.set_fill_color(228, 232, 236)
            self.rect(self._left(left, length), self.y + 1.7, length, 3, style="F")
            self.set_fill_color(3, 105, 161)
            shown = max(length * share, 0.2)
            self.rect(self._left(left, shown), self.y + 1.7, shown, 3, style="F")
        with self.tagged("P"):
            self._write(MARGIN, self.y, name, 10, height=height, width=55)
            self._write(MARGIN + WIDTH - 22, self.y, value, 10, height=height, width=22, align="R")
        self.set_xy(MARGIN, self.y + height)

    def picture(self, pixels: NDArray[np.uint8], x: float, y: float, width: float, height: float, alt: str) -> None:
        """Draw a picture at a place, with words for whoever does not see it; without words it is an ornament."""
        file = BytesIO(png(pixels))
        if alt:
            self.image(file, x=self._left(x, width), y=y, w=width, h=height, alt_text=alt)
            return
        with self.artifact():
            self.image(file, x=self._left(x, width), y=y, w=width, h=height)

    def caption(self, text: str, x: float, y: float, width: float) -> float:
        """Write a caption at a place; returns where it ends."""
        self._dress(8.5, False, _MUTED)
        self.set_xy(self._left(x, width), y)
        lines = self._broken(text, width, 4.1)
        with self.tagged("Caption"):
            self._lines(lines, width, 4.1)
        return self.y

    def label(self, text: str, x: float, y: float, width: float, align: str = "L") -> None:
        """Write a few small words at a place."""
        with self.tagged("P"):
            self._write(x, y, text, 8.5, colour=_MUTED, width=width, align=align)

    def _keep_together(self, lines: list[str], height: float) -> None:
        # One or two lines alone on a page are easily overlooked.
        self.room(height * min(len(lines), 4))

    def _broken(self, text: str, width: float, height: float) -> list[str]:
        lines = self.multi_cell(
            width, height, self._writable(text), dry_run=True, output=MethodReturnValue.LINES, wrapmode=self._wrap
        )
        assert isinstance(lines, list)
        return lines

    def _lines(self, lines: Sequence[str], width: float, height: float) -> None:
        align = "R" if self._is_mirrored else "L"
        for line in lines:
            x = self.x
            self.cell(width, height, line, align=align, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.x = x

    def _left(self, x: float, width: float) -> float:
        """Return where something begins: for right to left the page is mirrored."""
        return _PAGE - x - width if self._is_mirrored else x

    def _writable(self, text: str) -> str:
        """Return the text with a question mark for what the font lacks, and without Arabic vowel signs.

        These are optional in Arabic, and fpdf2 gives each a width, which tears the letters around it apart.
        """
        text = text.translate(_VOWEL_SIGNS)
        return "".join(c if ord(c) in self._known or c == "\n" else "?" for c in text)

    def _dress(self, size: float, bold: bool, colour: tuple[int, int, int]) -> None:
        self.set_font(_FONT, "B" if bold else "", size)
        self.set_text_color(*colour)

    def _write(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        bold: bool = False,
        colour: tuple[int, int, int] = _INK,
        width: float = WIDTH,
        height: float = 4.5,
        align: str = "L",
    ) -> None:
        self._dress(size, bold, colour)
        self.set_xy(self._left(x, width), y)
        side = _OTHER_SIDE[align] if self._is_mirrored else align
        self.cell(width, height, self._writable(text), align=side, new_x=XPos.RIGHT, new_y=YPos.TOP)
