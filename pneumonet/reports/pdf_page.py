"""A4 pages on which each piece of text is tagged, as screen readers want it, over fpdf2."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from typing import Final

import numpy as np
from fpdf import FPDF
from fpdf.enums import MethodReturnValue, XPos, YPos
from numpy.typing import NDArray

from pneumonet.rendering import png

MARGIN: Final = 15.0
WIDTH: Final = 210 - 2 * MARGIN
_TOP: Final = 24.0
_BOTTOM: Final = 18.0
_FONT: Final = "helvetica"
_INK: Final = (22, 28, 36)
_MUTED: Final = (86, 96, 108)
_RULE: Final = (200, 206, 212)
_POINT: Final = 0.3528
_LEADING: Final = 1.35
_INDENT: Final = 4.5


class TaggedPages(FPDF):
    """Pages with a running header and footer; what is drawn between them is tagged.

    fpdf2 tags pictures by itself. Text is tagged here, by the same builder: headings and paragraphs follow each other
    under the document, in reading order.
    """

    def __init__(self, title: str, heading: str, notice: str, note: str, created: datetime) -> None:
        """Prepare the first page.

        Args:
            title: Of the document, as readers show it.
            heading: Left in each page's head.
            notice: Beneath it.
            note: Left in each page's foot, before the page's number.
            created: When the report was made.
        """
        super().__init__(format="A4", unit="mm")
        self._heading, self._notice, self._note = heading, notice, note
        self.set_title(title)
        self.set_lang("en")
        self.set_creator("PneumoNet")
        self.set_creation_date(created)
        self.set_margins(MARGIN, _TOP, MARGIN)
        self.set_auto_page_break(False)
        self.c_margin = 0
        self.add_page()

    def header(self) -> None:
        """Draw a page's head; fpdf2 calls it."""
        with self.artifact():
            self._write(MARGIN, 9, self._heading, 9, bold=True)
            self._write(MARGIN, 13.5, self._notice, 9)
            self.set_draw_color(*_RULE)
            self.line(MARGIN, 19, MARGIN + WIDTH, 19)
        self.set_xy(MARGIN, _TOP)

    def footer(self) -> None:
        """Draw a page's foot; fpdf2 calls it."""
        with self.artifact():
            self._write(MARGIN, self.h - 12, self._note, 8, colour=_MUTED)
            page = f"Page {self.page_no()} of {{nb}}"
            self._write(MARGIN + WIDTH - 20, self.h - 12, page, 8, colour=_MUTED, width=20)

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
        self.set_x(MARGIN + indent)
        lines = self._broken(text, width, height)
        self._keep_together(lines, height)
        while lines:
            self.room(height)
            fitting = max(1, int((self.h - _BOTTOM - self.y + 1e-6) / height))
            self._dress(size, bold, _MUTED if muted else _INK)
            self.set_x(MARGIN + indent)
            with self.tagged(kind):
                self.multi_cell(
                    width, height, "\n".join(lines[:fitting]), new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L"
                )
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
                self.rect(MARGIN + 1, top + size * _POINT * 0.55, 1.1, 1.1, style="F")
            self.paragraph(sentence, size, indent=_INDENT)
            self.gap(0.6)

    def facts(self, facts: Sequence[tuple[str, str]], size: float = 9.0) -> None:
        """Write names with their values, a line or two each."""
        height = size * _POINT * _LEADING
        for name, value in facts:
            self._dress(size, False, _INK)
            self.set_x(MARGIN + 38)
            lines = self._broken(value, WIDTH - 38, height)
            self.room(height * len(lines))
            with self.tagged("P"):
                self._write(MARGIN, self.y, name, size, colour=_MUTED, height=height)
                self._dress(size, False, _INK)
                self.set_x(MARGIN + 38)
                self.multi_cell(WIDTH - 38, height, "\n".join(lines), new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")

    def bar(self, name: str, share: float, value: str) -> None:
        """Draw a bar between 0 and 1, with its name before and its value after it."""
        height = 6.4
        self.room(height)
        left, length = MARGIN + 45, WIDTH - 45 - 22
        with self.artifact():
            self.set_fill_color(228, 232, 236)
            self.rect(left, self.y + 1.7, length, 3, style="F")
            self.set_fill_color(3, 105, 161)
            self.rect(left, self.y + 1.7, max(length * share, 0.2), 3, style="F")
        with self.tagged("P"):
            self._write(MARGIN, self.y, name, 10, height=height, width=45)
            self._write(MARGIN + WIDTH - 22, self.y, value, 10, height=height, width=22, align="R")
        self.set_xy(MARGIN, self.y + height)

    def picture(self, pixels: NDArray[np.uint8], x: float, y: float, width: float, height: float, alt: str) -> None:
        """Draw a picture at a place, with words for whoever does not see it; without words it is an ornament."""
        file = BytesIO(png(pixels))
        if alt:
            self.image(file, x=x, y=y, w=width, h=height, alt_text=encodable(alt))
            return
        with self.artifact():
            self.image(file, x=x, y=y, w=width, h=height)

    def caption(self, text: str, x: float, y: float, width: float) -> float:
        """Write a caption at a place; returns where it ends."""
        self._dress(8.5, False, _MUTED)
        self.set_xy(x, y)
        with self.tagged("Caption"):
            self.multi_cell(width, 4.1, encodable(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")
        return self.y

    def label(self, text: str, x: float, y: float, width: float, align: str = "L") -> None:
        """Write a few small words at a place."""
        with self.tagged("P"):
            self._write(x, y, text, 8.5, colour=_MUTED, width=width, align=align)

    def _keep_together(self, lines: list[str], height: float) -> None:
        # One or two lines alone on a page are easily overlooked.
        self.room(height * min(len(lines), 4))

    def _broken(self, text: str, width: float, height: float) -> list[str]:
        lines = self.multi_cell(width, height, encodable(text), dry_run=True, output=MethodReturnValue.LINES)
        assert isinstance(lines, list)
        return lines

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
        self.set_xy(x, y)
        self.cell(width, height, encodable(text), align=align, new_x=XPos.RIGHT, new_y=YPos.TOP)


def encodable(text: str) -> str:
    """Return the text as the PDF's own fonts can write it: Latin-1, a question mark for the rest."""
    return text.encode("latin-1", "replace").decode("latin-1")
