"""Make the fonts of the reports: of the Noto fonts the characters that the catalogues use, in the letters' own shapes.

    python scripts/make_fonts.py [--source /usr/share/fonts]

Run it after a catalogue has changed and `tests/reports/test_languages.py` finds a character without a shape. The fonts
are Debian's: `apt install fonts-noto-core fonts-noto-cjk`. It needs fonttools, which fpdf2 brings.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from fontTools.merge import Merger
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont, newTable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.language import LANGUAGES
from pneumonet.reports.fonts import FOLDER, FONTS, font_of
from scripts.translations import catalogue, messages

_WEIGHTS: Final = ("Regular", "Bold")
# What stands in reports beside the catalogues' words: digits, digests, names of formats, and any Latin name of a repo.
_LATIN: Final = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x100)])) + "–—‘’“”„…‹›‐‑\u202f"
_CYRILLIC: Final = "".join(map(chr, range(0x400, 0x460)))
_COLLECTIONS: Final = {"NotoSansSC": "NotoSansCJK SC", "NotoSansJP": "NotoSansCJK JP", "NotoSansKR": "NotoSansCJK KR"}
_MOST_UNITS_OFF: Final = 1.0


def characters(tag: str) -> str:
    """Return every character that a language's reports may need."""
    texts = [*messages(), *(str(message.string) for message in catalogue(tag) if message.id)]
    return "".join(sorted(set("".join(texts)) | set(LANGUAGES[tag].name)))


def _source(folder: Path, name: str, weight: str) -> TTFont:
    if name not in _COLLECTIONS:
        return TTFont(next(folder.rglob(f"{name}-{weight}.ttf")))
    path, family = next(folder.rglob(f"NotoSansCJK-{weight}.ttc")), _COLLECTIONS[name].split()[1]
    for number in range(20):
        font = TTFont(path, fontNumber=number)
        if font["name"].getDebugName(1) in (f"Noto Sans CJK {family}", f"Noto Sans CJK {family} Bold"):
            return font
    raise SystemExit(f"{path} holds no {family}.")


def _subset(font: TTFont, text: str) -> TTFont:
    options = Options()
    options.layout_features, options.hinting, options.name_IDs = ["*"], False, [0, 1, 2, 4, 6, 13, 14]
    options.notdef_outline, options.glyph_names = True, False
    options.drop_tables += ["vhea", "vmtx", "VORG", "BASE", "DSIG", "STAT", "MATH"]
    subsetter = Subsetter(options)
    subsetter.populate(text=text)
    subsetter.subset(font)
    if "CFF " in font:
        _to_quadratic(font)
    return font


def _to_quadratic(font: TTFont) -> None:
    """Turn cubic outlines into TrueType's, the only ones that a PDF can embed as such."""
    glyphs, order, drawn = font.getGlyphSet(), font.getGlyphOrder(), {}
    for name in order:
        pen = TTGlyphPen(glyphs)
        glyphs[name].draw(Cu2QuPen(pen, _MOST_UNITS_OFF, reverse_direction=True))
        drawn[name] = pen.glyph()
    font["loca"], font["glyf"] = newTable("loca"), newTable("glyf")
    font["glyf"].glyphOrder, font["glyf"].glyphs = order, drawn
    for name in order:
        drawn[name].recalcBounds(font["glyf"])
        font["hmtx"][name] = (font["hmtx"][name][0], getattr(drawn[name], "xMin", 0))
    font["maxp"].tableVersion = 0x00010000
    fields = (
        "maxZones maxTwilightPoints maxStorage maxFunctionDefs maxInstructionDefs maxStackElements "
        "maxSizeOfInstructions maxComponentElements maxPoints maxContours maxCompositePoints maxCompositeContours "
        "maxComponentDepth"
    )
    for field in fields.split():
        setattr(font["maxp"], field, 1 if field == "maxZones" else 0)
    del font["CFF "]
    font["post"].formatType, font["post"].extraNames, font["post"].mapping = 3.0, [], {}
    font.sfntVersion = "\x00\x01\x00\x00"


def make(folder: Path, name: str, weight: str, text: str) -> None:
    """Write one font.

    Args:
        folder: Where Noto fonts are.
        name: Of the font, in `pneumonet.reports.fonts`.
        weight: Regular or Bold.
        text: The characters it has to have.
    """
    font = _source(folder, name, weight)
    known = set(font.getBestCmap())
    lacking = "".join(c for c in text if ord(c) not in known and c.isprintable())
    font, target = _subset(font, text), FOLDER / f"{name}-{weight}.ttf"
    if not lacking:
        font.save(target)
        return
    # Letters of another script: put in from the Latin font of the same size of the em.
    with tempfile.TemporaryDirectory() as temporary:
        parts = [Path(temporary) / "own.ttf", Path(temporary) / "latin.ttf"]
        font.save(parts[0])
        _subset(_source(folder, "NotoSans", weight), lacking).save(parts[1])
        Merger().merge([str(part) for part in parts]).save(target)


def main() -> None:
    """Make every font."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/fonts"))
    source = parser.parse_args().source
    default = [tag for tag, language in LANGUAGES.items() if language.primary not in FONTS]
    texts = {"NotoSans": _LATIN + _CYRILLIC + "".join(characters(tag) for tag in default)}
    for tag, language in LANGUAGES.items():
        if tag not in default:
            texts[font_of(language).name] = _LATIN + characters(tag)
    for name, text in texts.items():
        for weight in _WEIGHTS:
            make(source, name, weight, text)
            print(f"{name}-{weight}.ttf: {(FOLDER / f'{name}-{weight}.ttf').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
