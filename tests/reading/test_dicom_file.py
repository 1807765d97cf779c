"""DICOM files that cost a parser or a decoder much: refused, or read without what costs it."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pneumonet.errors import TooManyPixelsError, UnreadableImageError, UnsupportedFormatError
from pneumonet.reading import ReadingLimits, dicom_file, read_radiograph
from pneumonet.reading.dicom import read_header
from scripts.fuzz_floods import jpeg_2000
from tests.reading.films import compressed, dataset, film, phantom, phantom_12_bit, saved, wrapped, written

EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OWN_RANGE = phantom_12_bit() / 4095
LAYOUTS = pytest.mark.parametrize(
    "laid_out",
    [lambda data: data, lambda data: data[132:], lambda data: data[128:]],
    ids=["preamble", "no preamble", "bare magic"],
)


def explicit(tag, vr, value):
    """One element with a length of 32 bits."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value


def implicit(tag, value):
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def undefined(tag, value):
    start = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF)
    return start + value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def with_elements(added, whole=None):
    """Put elements before the pixels."""
    whole = film() if whole is None else whole
    at = whole.index(b"\xe0\x7f\x10\0")
    return whole[:at] + added + whole[at:]


def deflated(*elements):
    """Write a film whose data set is these elements; each may be a (bytes, times)."""
    plain = written(dataset(), DeflatedExplicitVRLittleEndian)
    at = 132
    while plain[at : at + 2] == b"\x02\0":
        long = plain[at + 4 : at + 6] == b"OB"
        length = struct.unpack_from("<I" if long else "<H", plain, at + (8 if long else 6))[0]
        at += (12 if long else 8) + length
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = [squeeze.compress(part) for part, times in elements for _ in range(times)]
    return plain[:at] + b"".join(body) + squeeze.flush()


def peak_of(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestDeflated:
    bomb = deflated((b"\x08\0\x60\0CS\x02\0DX", 1), (explicit(0x00291010, b"OB", bytes(1 << 20)), 200))

    @LAYOUTS
    def test_it_inflates_to_no_more_than_a_film_may(self, laid_out):
        data = laid_out(self.bomb)
        assert len(data) < 300_000

        def read():
            with pytest.raises(TooManyPixelsError, match="inflates"):
                read_radiograph(data, limits=ReadingLimits(max_bytes=300_000, max_pixels=1_000_000))

        assert peak_of(read) < 5_000_000

    @LAYOUTS
    def test_a_film_is_read_in_every_layout(self, laid_out):
        data = laid_out(film(syntax=DeflatedExplicitVRLittleEndian))
        np.testing.assert_allclose(read_radiograph(data).pixels, OWN_RANGE, atol=1e-6)

    @LAYOUTS
    def test_the_header_alone_is_bounded_too(self, laid_out):
        headers = []
        assert peak_of(lambda: headers.append(read_header(laid_out(self.bomb)))) < 60_000_000
        assert headers[0].Modality == "DX"

    @LAYOUTS
    def test_its_elements_are_counted(self, laid_out):
        data = laid_out(deflated((b"\x29\0\x10\0LO\0\0" * 1000, 1000)))
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(data)


class TestElements:
    @pytest.mark.parametrize(
        "added",
        [
            b"\x29\0\x10\0LO\0\0" * 30_000,
            undefined(0x00283010, EMPTY_ITEM * 30_000),
            undefined(0x00081140, EMPTY_ITEM * 30_000),
        ],
        ids=["elements", "items", "items of another sequence"],
    )
    @pytest.mark.parametrize("bare", [False, True])
    def test_too_many(self, added, bare):
        whole = written(dataset(), ExplicitVRLittleEndian, bare=True) if bare else film()
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(with_elements(added, whole))

    def test_nested_without_end(self):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        nested = (struct.pack("<HH2sHI", 0x28, 0x3010, b"SQ", 0, 0xFFFFFFFF) + item) * 20_000
        with pytest.raises(UnreadableImageError):
            read_radiograph(with_elements(nested))
        with pytest.raises((UnreadableImageError, UnsupportedFormatError)):
            read_radiograph(with_elements(nested, written(dataset(), ExplicitVRLittleEndian, bare=True)))

    @pytest.mark.parametrize(
        "added",
        [
            explicit(0x00101010, b"SQ", EMPTY_ITEM * 100_000),
            explicit(0x00283000, b"SQ", EMPTY_ITEM * 100_000),
            explicit(0x00283010, b"SQ", EMPTY_ITEM * 100_000),
            explicit(0x00180015, b"UC", b"CHEST\\" * 100_000),
        ],
        ids=["an age", "a modality table", "a VOI table", "a body part"],
    )
    def test_what_pydicom_would_make_an_object_each_of_is_left_out(self, added, monkeypatch):
        made, plain = [], Dataset.__init__

        def counted(self, *args, **options):
            made.append(1)
            plain(self, *args, **options)

        monkeypatch.setattr(Dataset, "__init__", counted)
        radiograph = read_radiograph(with_elements(added))
        assert radiograph.pixels.shape == OWN_RANGE.shape
        assert radiograph.patient_age_years is radiograph.body_part is None
        assert len(made) < 100

    def test_a_window_of_a_million_widths(self):
        whole = written(dataset(), ImplicitVRLittleEndian)
        data = with_elements(implicit(0x00281050, b"9\\" * 500_000) + implicit(0x00281051, b"9\\" * 500_000), whole)
        np.testing.assert_allclose(read_radiograph(data).pixels, OWN_RANGE, atol=1e-6)

    @pytest.mark.parametrize("tag", [0x00020010, 0x00080005], ids=["file meta", "character set"])
    def test_what_pydicom_takes_apart_as_it_parses_is_refused(self, tag):
        whole = film() if tag >> 16 == 2 else written(dataset(), ImplicitVRLittleEndian)
        element = explicit(tag, b"SQ", EMPTY_ITEM * 9_000) if tag >> 16 == 2 else implicit(tag, b"\\" * 70_000)
        at = 132 if tag >> 16 == 2 else whole.index(b"\x08\0\x16\0")
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(whole[:at] + element + whole[at:])

    def test_pixels_that_claim_to_be_a_sequence(self):
        whole = film()
        data = whole[: whole.index(b"\xe0\x7f\x10\0")] + explicit(0x7FE00010, b"SQ", EMPTY_ITEM * 100_000)
        with pytest.raises(UnreadableImageError, match="no picture"):
            read_radiograph(data)

    def test_the_first_of_many_whole_tables_counts(self):
        items = []
        for direction in (1, -1, -1, -1, -1, -1):
            item = Dataset()
            item.LUTDescriptor = [0, 0, 16]
            item.add_new("LUTData", "OW", np.arange(65_536, dtype="<u2")[::direction].tobytes())
            items.append(item)
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            radiograph = read_radiograph(written(dataset(VOILUTSequence=items), syntax))
            np.testing.assert_allclose(radiograph.pixels, phantom_12_bit() / 65_535, atol=1e-6)
            assert radiograph.warnings == ()

    def test_a_long_private_element_does_no_harm(self):
        np.testing.assert_allclose(
            read_radiograph(with_elements(explicit(0x00291010, b"OB", bytes(1 << 20)))).pixels, OWN_RANGE, atol=1e-6
        )

    def test_pydicom_asks_for_all_the_rest_only_to_inflate_it(self, monkeypatch):
        """What `_MeteredFile` builds on."""
        asked, plain = [], dicom_file._MeteredFile.read

        def noted(self, size=-1):
            asked.append(size)
            return plain(self, size)

        monkeypatch.setattr(dicom_file._MeteredFile, "read", noted)
        read_radiograph(compressed(dataset(phantom(), bits=8), JPEGLSLossless))
        assert asked
        assert min(asked) >= 0


class TestChannels:
    @pytest.mark.parametrize(
        ("syntax", "codestream", "found"),
        [
            (JPEG2000Lossless, jpeg_2000(side=60, channels=2), "2"),
            (JPEG2000Lossless, jpeg_2000(side=60, channels=3), "3"),
            (JPEGBaseline8Bit, saved(np.zeros((60, 100, 3), np.uint8), "JPEG"), "3"),
            (RLELossless, struct.pack("<16I", 3, *[64] * 15) + b"\x81\0" * 100, "3"),
        ],
    )
    def test_those_of_the_codestream_are_those_of_the_tags(self, syntax, codestream, found):
        with pytest.raises(UnreadableImageError, match=f"has {found} colour channels; its tags say 1"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), codestream, syntax))

    def test_four_are_refused_even_where_the_tags_say_so(self):
        data = wrapped(dataset(phantom(), bits=8, SamplesPerPixel=4), jpeg_2000(side=60, channels=4), JPEG2000Lossless)
        with pytest.raises(UnreadableImageError, match="4 colour channels"):
            read_radiograph(data)


class TestCodestreams:
    def test_a_bare_marker_hides_no_size(self):
        jpeg = bytearray(saved(phantom(), "JPEG"))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", 12_000, 12_000)
        for hiding in (b"\xff\xd0", b"\xff\xd7", b"junk", b"\xff\xff\xff"):
            codestream = bytes(jpeg[:20]) + hiding + bytes(jpeg[20:])  # behind the JFIF segment
            data = wrapped(dataset(phantom(), bits=8), codestream, JPEGBaseline8Bit)
            with pytest.raises(TooManyPixelsError, match="12,000 x 12,000"):
                read_radiograph(data)

    def test_a_size_outside_the_frame_header(self):
        """JPEG-LS tells a large size in a segment of its own (ISO/IEC 14495-1, C.2.4.1.4)."""
        size = b"\xff\xf8" + struct.pack(">HBBII", 12, 4, 4, 50_000, 60_000)
        frame = b"\xff\xf7" + struct.pack(">HBHHB3B", 11, 8, 0, 0, 1, 1, 0x11, 0)
        scan = b"\xff\xda" + struct.pack(">HB5B", 8, 1, 1, 0, 0, 0, 0)
        codestream = b"\xff\xd8" + size + frame + scan + bytes(100) + b"\xff\xd9"
        with pytest.raises(TooManyPixelsError, match="60,000 x 50,000"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), codestream, JPEGLSLossless))

    @pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit], ids=lambda uid: uid.name)
    def test_none_at_all_is_damaged(self, syntax):
        with pytest.raises(UnreadableImageError, match="damaged"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), b"no codestream at all", syntax))

    def test_another_codec_s_is_not_decoded(self):
        for syntax, kind in ((JPEGBaseline8Bit, "JPEG2000"), (JPEG2000Lossless, "JPEG")):
            data = wrapped(dataset(phantom(), bits=8), saved(phantom(), kind), syntax)
            with pytest.raises(UnreadableImageError):
                read_radiograph(data)

    def test_jp2_boxes_around_it_are_stepped_over(self):
        data = wrapped(dataset(phantom(), bits=8), saved(phantom(), "JPEG2000"), JPEG2000Lossless)
        np.testing.assert_allclose(read_radiograph(data).pixels, phantom() / 255, atol=1e-6)

    @pytest.mark.parametrize(
        "box", [b"\0\0\0\0free", struct.pack(">I4sI", 12, b"pclr", 0)], ids=["of no length", "a palette"]
    )
    def test_a_box_that_hangs_or_multiplies(self, box):
        jp2 = saved(phantom(), "JPEG2000")
        at = jp2.index(b"jp2c") - 4
        with pytest.raises(UnreadableImageError, match="damaged"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), jp2[:at] + box + jp2[at:], JPEG2000Lossless))

    def test_what_looks_like_a_start_inside_the_pixels_is_none(self):
        code = saved(phantom(), "JPEG2000", no_jp2=True)
        comment = b"\xff\x4f\xff\x51" + bytes(4) + b"\xff" * 8 + bytes(28)
        segment = b"\xff\x64" + struct.pack(">HH", len(comment) + 4, 1) + comment
        at = code.index(b"\xff\x52")
        data = wrapped(dataset(phantom(), bits=8), code[:at] + segment + code[at:], JPEG2000Lossless)
        np.testing.assert_allclose(read_radiograph(data).pixels, phantom() / 255, atol=1e-6)

    @pytest.mark.parametrize("marker", [0xFF30, 0xFF56])
    def test_a_marker_that_openjpeg_searches_behind_is_refused(self, marker):
        code = saved(phantom(), "JPEG2000", no_jp2=True)
        at = code.index(b"\xff\x52")
        hidden = struct.pack(">HH", marker, 4) + b"\0\0"
        with pytest.raises(UnreadableImageError, match="damaged"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), code[:at] + hidden + code[at:], JPEG2000Lossless))

    def test_a_tile_s_own_style_counts(self):
        code = jpeg_2000(side=2_000).replace(struct.pack(">HHI", 10, 0, 15), struct.pack(">HHI", 10, 0, 0))
        style = b"\xff\x52" + struct.pack(">HBBHBBBBBBB", 13, 1, 0, 1, 0, 0, 4, 4, 0, 1, 0)
        at = code.index(b"\xff\x93")
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), code[:at] + style + code[at:], JPEG2000Lossless))

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGBaseline8Bit], ids=lambda uid: uid.name)
    def test_segments_that_pydicom_steps_through(self, syntax):
        whole = compressed(dataset(phantom(), bits=8), JPEGLSLossless)
        code = whole[whole.index(b"\xff\xd8") : -8] if syntax == JPEGLSLossless else saved(phantom(), "JPEG")
        # Behind a bare marker it takes the next one for a length, and lands among zeros.
        desert = b"\xff\xd0" + b"".join(b"\xff\xfe" + struct.pack(">H", n) + bytes(n - 2) for n in (60_000, 65_535))
        many = b"\xff\xe5\0\2" * 10_500 if syntax == JPEGLSLossless else desert
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(wrapped(dataset(phantom(), bits=8), code[:2] + many + code[2:], syntax))

    def test_tiles_precincts_and_layers_of_a_film(self):
        code = saved(
            phantom(1200, 1600), "JPEG2000", no_jp2=True, tile_size=(256, 256), precinct_size=(128, 128),
            codeblock_size=(16, 16), num_resolutions=5, quality_mode="rates", quality_layers=[40, 20, 10, 1],
        )  # fmt: skip
        data = wrapped(dataset(phantom(1200, 1600), bits=8), code, JPEG2000Lossless)
        assert np.abs(read_radiograph(data).pixels - phantom(1200, 1600) / 255).mean() < 0.02


class TestPalettes:
    @staticmethod
    def film(segments, bits=16):
        made = dataset(phantom(), bits=8, PhotometricInterpretation="PALETTE COLOR")
        for channel in ("Red", "Green", "Blue"):
            setattr(made, f"{channel}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(made, f"Segmented{channel}PaletteColorLookupTableData", segments)
        return made

    @pytest.mark.parametrize("bits", [8, 16])
    def test_segments_as_pydicom_has_them(self, bits):
        top = 2**bits - 1
        words = [0, 2, 0, 1, 1, 127, top // 2, 1, 127, top]
        made = self.film(np.array(words, f"<u{bits // 8}").tobytes(), bits)
        data = written(made)
        expected = apply_color_lut(phantom(), made)[..., 0] / top
        np.testing.assert_allclose(read_radiograph(data).pixels, expected, atol=1e-6)

    @pytest.mark.parametrize("tail", [(1, 65_535, 5, 1, 1, 6), (1, 40_000, 5, 1, 40_000, 9), (2, 1, 0, 0)], ids=str)
    def test_segments_without_end(self, tail, monkeypatch):
        monkeypatch.setattr("pneumonet.reading.dicom_palette.apply_color_lut", lambda *_: 1 / 0)
        made = self.film(struct.pack(f"<{3 + len(tail)}H", 0, 1, 0, *tail) + bytes(2))
        with pytest.raises(UnreadableImageError, match="palette"):
            read_radiograph(written(made))
