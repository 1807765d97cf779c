import logging
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pneumonet.errors import (
    FrameNotFoundError,
    PneumoNetError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
    UnsupportedTransferSyntaxError,
)
from pneumonet.reading import ReadingLimits, read_radiograph
from tests.reading.films import (
    compressed,
    dataset,
    film,
    film_of_floats,
    noise,
    phantom,
    phantom_12_bit,
    saved,
    wrapped,
    written,
)
from tests.reading.test_pydicom_files import FOLDER

OWN_RANGE = phantom_12_bit() / 4095  # the phantom spans all of its range


def tones(data, **options):
    return read_radiograph(data, **options).pixels


def assert_tones(actual, expected, tolerance=1e-6):
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def table(entries, first=0, bits=16, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    data = np.asarray(entries, np.uint16)
    item.add_new("LUTData", vr, data.tobytes() if vr == "OW" else data.tolist())
    return [item]


class TestPlainFilm:
    def test_own_range_without_a_window(self):
        radiograph = read_radiograph(film())
        assert_tones(radiograph.pixels, OWN_RANGE)
        assert (radiograph.format, radiograph.frame, radiograph.frames) == ("DICOM", 0, 1)
        assert (radiograph.colourfulness, radiograph.warnings) == (0, ())

    def test_a_narrow_range_is_spread(self):
        """I5: never black."""
        assert_tones(tones(film(phantom().astype(np.uint16) + 300)), phantom() / 255)

    def test_constant(self):
        assert_tones(tones(film(np.full((5, 6), 700, np.uint16))), np.zeros((5, 6)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
    def test_types(self, dtype):
        low = -100 if np.dtype(dtype).kind == "i" else 0
        stored = (phantom().astype(int) // 2 + low).astype(dtype)
        expected = (phantom() // 2) / 127
        assert_tones(tones(film(stored, bits=stored.dtype.itemsize * 8)), expected)

    def test_unused_high_bits_and_overlays_are_left_out(self):
        stored = phantom_12_bit() | 0xF000
        overlay = {0x0010: 60, 0x0011: 100, 0x0102: 12}  # rows, columns, bit position
        made = dataset(stored)
        for element, value in overlay.items():
            made.add_new((0x6000, element), "US", value)
        assert_tones(tones(written(made)), OWN_RANGE)

    @pytest.mark.parametrize("kind", ["f4", "f8"])
    def test_float_pixels(self, kind):
        values = (phantom() / 10.0 - 3).astype(kind)
        assert_tones(tones(film_of_floats(values)), phantom() / 255, 1e-5)

    @pytest.mark.parametrize(
        "missing", ["SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "BitsStored"]
    )
    def test_what_careless_writers_leave_out(self, missing):
        assert_tones(tones(film(**{missing: None})), OWN_RANGE)


class TestFloatsThatAreNoNumbers:
    values = (phantom() / 10.0 - 3).astype(np.float32)
    gaps = (np.array([5, 20, 40]), np.array([7, 30, 90]))
    broken = values.copy()
    broken[gaps] = np.nan, np.inf, -np.inf
    windows = (
        {},
        {"WindowCenter": 10, "WindowWidth": 40},
        {"WindowCenter": 10, "WindowWidth": 40, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 10, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 10, "WindowWidth": -1},
        {"VOILUTSequence": table(np.arange(30), first=-3)},
    )
    named = pytest.mark.parametrize(
        "tags", windows, ids=["no window", "linear", "exact", "sigmoid", "odd window", "table"]
    )

    @named
    @pytest.mark.parametrize("kind", ["f4", "f8"])
    def test_they_take_the_smallest_number(self, tags, kind):
        radiograph = read_radiograph(film_of_floats(self.broken.astype(kind), **tags))
        whole = self.values.copy()
        whole[self.gaps] = self.values.min()
        expected = read_radiograph(film_of_floats(whole.astype(kind), **tags))
        np.testing.assert_array_equal(radiograph.pixels, expected.pixels)
        told = "Some of the file's pixels are not numbers; they were shown as its darkest tone."
        assert radiograph.warnings == (told, *expected.warnings)

    def test_as_written_out(self):
        pixels = tones(film_of_floats(self.broken, WindowCenter=10, WindowWidth=40, VOILUTFunction="LINEAR_EXACT"))
        values = self.values.astype(float)
        values[self.gaps] = -3
        assert_tones(pixels, np.clip((values - 10) / 40 + 0.5, 0, 1))

    @pytest.mark.parametrize(
        "tags",
        [*windows[:5], {"RescaleSlope": -2, "RescaleIntercept": 5, "WindowCenter": -10, "WindowWidth": 80}],
        ids=["no window", "linear", "exact", "sigmoid", "odd window", "negative slope"],
    )
    def test_they_are_dark_in_monochrome1_too(self, tags):
        pixels = tones(film_of_floats(self.broken, PhotometricInterpretation="MONOCHROME1", **tags))
        assert pixels[self.gaps].tolist() == [pixels.min()] * 3

    @named
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_no_number_at_all(self, tags, value):
        with pytest.raises(UnreadableImageError, match="not numbers"):
            read_radiograph(film_of_floats(np.full((4, 5), value, np.float32), **tags))

    @named
    def test_the_largest_numbers_there_are(self, tags):
        values = np.array([[-1.7e308, 0, 1.7e308]])
        pixels = tones(film_of_floats(values, **tags))
        assert np.isfinite(pixels).all()
        assert (np.diff(pixels) >= 0).all()
        if "VOILUTSequence" not in tags:
            assert_tones(pixels[:, ::2], np.array([[0.0, 1.0]]))


class TestPolarity:
    """I3."""

    @pytest.mark.parametrize(
        "tags",
        [
            {},
            {"WindowCenter": 2047.5, "WindowWidth": 4096},
            {"WindowCenter": 2047.5, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"},
            {"WindowCenter": 2047.5, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"},
        ],
        ids=["no window", "linear", "sigmoid", "exact"],
    )
    def test_monochrome1_is_turned_over_after_the_window(self, tags):
        upright = tones(film(**tags))
        turned = tones(film(4095 - phantom_12_bit(), PhotometricInterpretation="MONOCHROME1", **tags))
        assert_tones(turned, upright, 1e-3)

    def test_with_an_asymmetric_table(self):
        curve = (np.linspace(0, 1, 4096) ** 2 * 4095).round()
        made = dataset(PhotometricInterpretation="MONOCHROME1", VOILUTSequence=table(curve, bits=12))
        assert_tones(tones(written(made)), 1 - curve[phantom_12_bit()] / 4095)


class TestWindow:
    """I5 and I6."""

    @pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize("window", [(2048, 4096), (1200, 900), (1500.5, 1), (600, 2500.25)], ids=str)
    @pytest.mark.parametrize("slope", [None, (0.5, -1000), (-1, 4095), (2.5, 10)], ids=str)
    def test_as_pydicom_and_as_written_out(self, function, window, slope):
        center, width = window
        tags = {"WindowCenter": center, "WindowWidth": width}
        tags |= {"VOILUTFunction": function} if function else {}
        values = phantom_12_bit().astype(float)
        if slope:
            tags |= {"RescaleSlope": slope[0], "RescaleIntercept": slope[1]}
            values = values * slope[0] + slope[1]
            tags["WindowCenter"] = center = center * slope[0] + slope[1]
        if function == "SIGMOID":
            expected = 1 / (1 + np.exp(np.minimum(-4 * (values - center) / width, 700)))
        elif function == "LINEAR_EXACT":
            expected = np.clip((values - center) / width + 0.5, 0, 1)
        elif width == 1:
            expected = (values > center - 0.5).astype(float)
        else:
            expected = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
        actual = tones(film(**tags))
        assert_tones(actual, expected, 1e-5)

        made = dataset(**tags)
        low, high = (end * (slope or (1, 0))[0] + (slope or (1, 0))[1] for end in (0, 4095))
        theirs = (apply_windowing(apply_modality_lut(phantom_12_bit(), made), made) - low) / (high - low)
        assert_tones(actual, theirs, 1e-5)

    def test_case_i6(self):
        data = film(RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=2000)
        values = phantom_12_bit() * 0.5 - 1000
        assert_tones(tones(data), np.clip((values + 0.5) / 1999 + 0.5, 0, 1))

    def test_signed_values(self):
        stored = (phantom_12_bit().astype(np.int16)) - 1024
        data = film(stored, bits=16, WindowCenter=500, WindowWidth=1500)
        assert_tones(tones(data), np.clip((stored - 499.5) / 1499 + 0.5, 0, 1))

    def test_the_first_of_several(self):
        several = film(WindowCenter=[1200, 3000], WindowWidth=[900, 100])
        np.testing.assert_array_equal(tones(several), tones(film(WindowCenter=1200, WindowWidth=900)))

    @pytest.mark.parametrize(
        "tags",
        [
            {"WindowCenter": 2000, "WindowWidth": 0},
            {"WindowCenter": 2000, "WindowWidth": 0.5},
            {"WindowCenter": 2000, "WindowWidth": -300},
            {"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
            {"WindowCenter": 2000, "WindowWidth": 300, "VOILUTFunction": "WAVY"},
            {"WindowCenter": 2000},
            {"WindowWidth": 2000},
            {"WindowCenter": 60000, "WindowWidth": 10},
        ],
        ids=["zero", "half", "negative", "sigmoid zero", "function", "no width", "no centre", "beside the film"],
    )
    def test_an_odd_window_gives_the_own_range_and_says_so(self, tags):
        radiograph = read_radiograph(film(**tags))
        assert_tones(radiograph.pixels, OWN_RANGE)
        assert radiograph.warnings == ("The film's display window is not usable; its own range of tones was used.",)

    def test_a_slope_of_zero_says_so(self):
        radiograph = read_radiograph(film(RescaleSlope=0, RescaleIntercept=5))
        assert_tones(radiograph.pixels, OWN_RANGE)
        assert len(radiograph.warnings) == 1


class TestTables:
    """I5: a table's return value is used."""

    gamma = (np.linspace(0, 1, 4096) ** 0.6 * 65535).round()

    @pytest.mark.parametrize("vr", ["US", "OW"])
    def test_voi_table(self, vr):
        made = dataset(VOILUTSequence=table(self.gamma, vr=vr))
        assert_tones(tones(written(made)), self.gamma[phantom_12_bit()] / 65535)
        theirs = apply_voi_lut(phantom_12_bit(), dataset(VOILUTSequence=table(self.gamma)))
        assert_tones(tones(written(made)), theirs / 65535)

    def test_a_table_goes_before_a_window(self):
        made = dataset(VOILUTSequence=table(self.gamma), WindowCenter=1000, WindowWidth=10)
        assert_tones(tones(written(made)), self.gamma[phantom_12_bit()] / 65535)

    def test_values_outside_the_table_take_its_ends(self):
        curve = np.linspace(0, 1023, 1000).round()
        made = dataset(VOILUTSequence=table(curve, first=1500, bits=10))
        expected = np.interp(phantom_12_bit(), 1500 + np.arange(1000), curve) / 1023
        assert_tones(tones(written(made)), expected)

    def test_after_a_rescale_below_zero(self):
        curve = np.linspace(0, 4095, 2048).round()
        stored = phantom_12_bit().astype(np.int16)
        made = dataset(
            stored, bits=16, RescaleSlope=0.5, RescaleIntercept=-1024, VOILUTSequence=table(curve, first=-1024, bits=12)
        )
        index = np.clip(np.rint(stored * 0.5 - 1024).astype(int) + 1024, 0, 2047)
        assert_tones(tones(written(made)), curve[index] / 4095)

    def test_a_long_table_of_8_bit_entries(self):
        curve = np.linspace(255, 0, 4096).round()
        made = dataset(VOILUTSequence=table(curve, bits=8))
        assert_tones(tones(written(made)), curve[phantom_12_bit()] / 255)

    def test_entries_of_fewer_bits_than_the_descriptor_says(self):
        curve = np.arange(4096)
        assert_tones(tones(written(dataset(VOILUTSequence=table(curve, bits=16)))), OWN_RANGE)

    def test_modality_table(self):
        curve = (np.linspace(0, 1, 4096) ** 2 * 65535).round()
        made = dataset(ModalityLUTSequence=table(curve), WindowCenter=20000, WindowWidth=30000)
        values = apply_modality_lut(phantom_12_bit(), dataset(ModalityLUTSequence=table(curve)))
        assert_tones(tones(written(made)), np.clip((values - 19999.5) / 29999 + 0.5, 0, 1))

    def test_an_empty_table_says_so(self):
        made = dataset(VOILUTSequence=[Dataset()])
        radiograph = read_radiograph(written(made))
        assert_tones(radiograph.pixels, OWN_RANGE)
        assert len(radiograph.warnings) == 1


class TestPadding:
    stored = np.where(np.arange(100) < 20, 0, phantom_12_bit() // 2 + 1000).astype(np.uint16)

    def test_the_own_range_leaves_it_out(self):
        body = self.stored[:, 20:]
        expected = np.clip((self.stored - float(body.min())) / np.ptp(body), 0, 1)
        assert_tones(tones(film(self.stored, PixelPaddingValue=0)), expected)

    def test_it_is_black_in_monochrome1(self):
        data = film(self.stored, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
        assert tones(data)[:, :20].max() == 0

    def test_a_range(self):
        stored = self.stored.copy()
        stored[:, 10:20] = 40
        pixels = tones(film(stored, PixelPaddingValue=0, PixelPaddingRangeLimit=50))
        np.testing.assert_array_equal(pixels, tones(film(self.stored, PixelPaddingValue=0)))

    def test_a_negative_value(self):
        stored = self.stored.astype(np.int16)
        stored[:, :20] = -2000
        pixels = tones(film(stored, bits=16, PixelPaddingValue=-2000))
        np.testing.assert_array_equal(pixels, tones(film(self.stored, PixelPaddingValue=0)))

    def test_a_film_that_would_be_padding_all_over(self):
        assert tones(film(np.zeros((4, 4), np.uint16), PixelPaddingValue=0)).max() == 0


class TestCompression:
    """I8."""

    @pytest.mark.parametrize(
        "syntax",
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
        ids=lambda uid: uid.name,
    )
    def test_native(self, syntax):
        stored = phantom_12_bit().astype(">u2") if syntax == ExplicitVRBigEndian else phantom_12_bit()
        assert_tones(tones(film(stored, syntax=syntax)), OWN_RANGE)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
    @pytest.mark.parametrize("stored", [phantom_12_bit(), phantom()], ids=["12 bit", "8 bit"])
    def test_lossless_is_exact(self, syntax, stored):
        bits = 8 if stored.dtype == np.uint8 else 16
        np.testing.assert_array_equal(
            tones(compressed(dataset(stored, bits=bits), syntax)), tones(film(stored, bits=bits))
        )

    def test_signed_jpeg_ls(self):
        stored = phantom_12_bit().astype(np.int16) - 1000
        np.testing.assert_array_equal(
            tones(compressed(dataset(stored, bits=16), JPEGLSLossless)), tones(film(stored, bits=16))
        )

    def test_baseline_jpeg_within_two_levels(self):
        smooth = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
        assert_tones(tones(compressed(dataset(smooth, bits=8), JPEGBaseline8Bit)), smooth / 252, 2 / 252)

    @pytest.mark.parametrize(
        ("syntax", "words"),
        [(JPEGLossless, "JPEG Lossless"), (JPEGLosslessSV1, "JPEG Lossless"), (MPEG4HP41, "MPEG-4")],
    )
    def test_what_no_decoder_undoes_is_named(self, syntax, words):
        data = compressed(dataset(), RLELossless).replace(self.padded(RLELossless), self.padded(syntax))
        with pytest.raises(UnsupportedTransferSyntaxError, match=words) as caught:
            read_radiograph(data)
        assert str(syntax) in caught.value.message
        assert "Traceback" not in caught.value.message
        assert "plugin" not in caught.value.message

    @staticmethod
    def padded(uid):
        raw = str(uid).encode() + b"\0" * (len(uid) % 2)
        return b"\x02\0\x10\0UI" + struct.pack("<H", len(raw)) + raw

    def test_12_bit_jpeg(self):
        data = wrapped(dataset(), saved(phantom(), "JPEG"), JPEGExtended12Bit)
        with pytest.raises(UnsupportedTransferSyntaxError, match="JPEG Extended"):
            read_radiograph(data)

    def test_an_unknown_syntax_is_not_repeated_word_for_word(self):
        made = dataset()
        made.BitsStored = 12
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = written(made).replace(self.padded(ExplicitVRLittleEndian), self.padded("SECRET^NAME"))
        with pytest.raises(UnsupportedTransferSyntaxError) as caught:
            read_radiograph(data)
        assert "SECRET" not in caught.value.message

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
    def test_rle_under_another_name_is_damaged(self, syntax):
        data = compressed(dataset(), RLELossless).replace(self.padded(RLELossless), self.padded(syntax))
        with pytest.raises(UnreadableImageError, match="JPEG"):
            read_radiograph(data)

    @pytest.mark.parametrize(
        "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit], ids=lambda uid: uid.name
    )
    @pytest.mark.parametrize("share", [0.5, 0.98])
    def test_a_codestream_cut_short(self, syntax, share):
        whole = compressed(dataset(noise(), bits=8), syntax)
        start = whole.index(b"\xe0\x7f\x10\x00OB")
        codestream = whole[start + 28 : -8]
        cut = codestream[: int(len(codestream) * share) & ~1]
        with pytest.raises(UnreadableImageError):
            read_radiograph(wrapped(dataset(noise(), bits=8), cut, syntax))


class TestDamage:
    """I13."""

    @pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.98])
    @pytest.mark.parametrize(
        "syntax",
        [None, RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit, DeflatedExplicitVRLittleEndian],
    )
    def test_cut_short(self, syntax, share):
        made = dataset(noise(), bits=8)
        encapsulated = syntax not in (None, DeflatedExplicitVRLittleEndian)
        data = compressed(made, syntax) if encapsulated else written(made, syntax or ExplicitVRLittleEndian)
        with pytest.raises((UnreadableImageError, UnsupportedFormatError)) as caught:
            read_radiograph(data[: int(len(data) * share)])
        assert "SECRET" not in caught.value.message
        assert share < 0.2 or isinstance(caught.value, UnreadableImageError)

    def test_without_pixels(self):
        made = dataset()
        del made.PixelData
        with pytest.raises(UnreadableImageError, match="no picture"):
            read_radiograph(written(made))

    @pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
    def test_without_a_tag_that_pixels_need(self, keyword):
        with pytest.raises(UnreadableImageError):
            read_radiograph(film(**{keyword: None}))

    @pytest.mark.parametrize("seed", range(4))
    def test_noise_in_a_file_gives_a_film_or_our_own_error(self, seed):
        rng = np.random.default_rng(seed)
        made = dataset(noise(20, 30), bits=8, WindowCenter=100, WindowWidth=90, PatientAge="040Y")
        syntaxes = [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]
        syntax = syntaxes[seed]
        whole = np.frombuffer(written(made) if seed == 0 else compressed(made, syntax), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(132, len(broken), 4)] = rng.integers(0, 256, 4)
            try:
                pixels = tones(broken.tobytes())
            except PneumoNetError:
                continue
            assert np.isfinite(pixels).all()


class TestBareFiles:
    """I10."""

    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name
    )
    def test_no_preamble_and_no_meta(self, syntax):
        stored = phantom_12_bit().astype(">u2") if syntax == ExplicitVRBigEndian else phantom_12_bit()
        data = written(dataset(stored), syntax, bare=True)
        assert data[128:132] != b"DICM"
        assert_tones(tones(data), OWN_RANGE)

    def test_no_preamble_but_meta(self):
        assert_tones(tones(film()[132:]), OWN_RANGE)

    def test_the_magic_without_the_128_bytes(self):
        assert_tones(tones(film()[128:]), OWN_RANGE)

    def test_cut_short(self):
        data = written(dataset(), ImplicitVRLittleEndian, bare=True)
        with pytest.raises(UnreadableImageError):
            read_radiograph(data[: len(data) // 2])

    def test_a_tiff_header_in_the_preamble_makes_no_tiff(self):
        data = saved(phantom(), "TIFF")[:128] + film()[128:]
        assert read_radiograph(data).format == "DICOM"


class TestFrames:
    """I12."""

    stack = np.stack([phantom_12_bit(), phantom_12_bit()[::-1], phantom_12_bit()[:, ::-1]])

    def test_one_frame_is_a_plain_picture(self):
        radiograph = read_radiograph(film(NumberOfFrames=1))
        assert_tones(radiograph.pixels, OWN_RANGE)
        assert (radiograph.frames, radiograph.warnings) == (1, ())

    @pytest.mark.parametrize("frame", [None, 0, 1, 2])
    def test_three_frames_are_no_colours(self, frame):
        radiograph = read_radiograph(film(self.stack, NumberOfFrames=3), frame=frame)
        index = frame or 0
        assert_tones(radiograph.pixels, self.stack[index] / 4095)
        assert (radiograph.frame, radiograph.frames, radiograph.colourfulness) == (index, 3, 0)
        assert radiograph.warnings == (f"The file has 3 frames; frame {index + 1} was read.",)

    @pytest.mark.parametrize("frame", [0, 2])
    def test_compressed(self, frame):
        data = compressed(dataset(self.stack, bits=16, NumberOfFrames=3), RLELossless)
        assert_tones(tones(data, frame=frame), self.stack[frame] / 4095)

    @pytest.mark.parametrize("frame", [-1, 3, 10**6])
    def test_no_such_frame(self, frame):
        with pytest.raises(FrameNotFoundError, match="3 frames"):
            read_radiograph(film(self.stack, NumberOfFrames=3), frame=frame)

    def test_fewer_frames_than_declared(self):
        with pytest.raises(UnreadableImageError):
            read_radiograph(film(NumberOfFrames=3))

    def test_only_the_frame_asked_for_counts_against_the_limit(self):
        data = film(self.stack, NumberOfFrames=3)
        assert read_radiograph(data, frame=2, limits=ReadingLimits(max_pixels=6000)).frame == 2


class TestColour:
    rgb = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    luma = rgb @ [0.299, 0.587, 0.114] / 255
    spread = (rgb.max(-1) - rgb.min(-1)).mean() / 255

    def colour(self, stored, **tags):
        tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, **tags}
        return film(stored, bits=stored.dtype.itemsize * 8, **tags)

    def test_rgb(self):
        radiograph = read_radiograph(self.colour(self.rgb))
        assert_tones(radiograph.pixels, self.luma, 0.5 / 255 + 1e-4)
        assert radiograph.colourfulness == pytest.approx(self.spread)
        np.testing.assert_array_equal(radiograph.pixels, tones(saved(self.rgb, "PNG")))

    def test_planes(self):
        planes = np.ascontiguousarray(self.rgb.transpose(2, 0, 1)).reshape(self.rgb.shape)
        assert_tones(tones(self.colour(planes, PlanarConfiguration=1)), self.luma, 0.5 / 255 + 1e-4)

    def test_16_bit(self):
        radiograph = read_radiograph(self.colour(self.rgb.astype(np.uint16) * 257))
        assert_tones(radiograph.pixels, self.luma)
        assert radiograph.colourfulness == pytest.approx(self.spread, abs=1e-6)

    def test_ybr(self):
        ybr = np.asarray(Image.fromarray(self.rgb).convert("YCbCr"))
        radiograph = read_radiograph(self.colour(ybr, PhotometricInterpretation="YBR_FULL"))
        assert_tones(radiograph.pixels, self.luma, 3 / 255)
        assert radiograph.colourfulness == pytest.approx(self.spread, abs=0.01)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, bits):
        order = np.random.default_rng(2).permutation(256)
        index = np.argsort(order).astype(np.uint8)[phantom()]
        made = dataset(index, bits=8, PhotometricInterpretation="PALETTE COLOR")
        entries = (order * (257 if bits == 16 else 1)).astype(f"u{bits // 8}")
        for name in ("Red", "Green", "Blue"):
            setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(made, f"{name}PaletteColorLookupTableData", entries.tobytes())
        radiograph = read_radiograph(written(made))
        assert_tones(radiograph.pixels, phantom() / 255)
        assert_tones(radiograph.pixels, apply_color_lut(index, made)[..., 0] / (2**bits - 1))
        assert radiograph.colourfulness == pytest.approx(0, abs=1e-6)


class TestLimits:
    """I18."""

    def test_declared_size_is_refused_before_decoding(self):
        tracemalloc.start()
        try:
            with pytest.raises(TooManyPixelsError, match="65,535 x 65,535"):
                read_radiograph(film(Rows=65535, Columns=65535))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
    def test_a_codestream_larger_than_the_tags_say(self, syntax):
        whole = compressed(dataset(phantom(), bits=8), syntax)
        made = bytearray(whole)
        if syntax == JPEG2000Lossless:
            at = made.index(b"\xff\x4f\xff\x51")
            made[at + 8 : at + 16] = struct.pack(">II", 60000, 60000)
        else:
            at = made.index(b"\xff\xc0" if syntax == JPEGBaseline8Bit else b"\xff\xf7")
            made[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
        with pytest.raises(TooManyPixelsError, match="60,000 x 60,000"):
            read_radiograph(bytes(made))

    @pytest.mark.parametrize("left_out", [0, 132, 128], ids=["whole", "no preamble", "bare magic"])
    def test_a_deflated_file_that_inflates_without_end(self, left_out):
        made = dataset(np.zeros((2000, 8000), np.uint16), bits=16)
        data = written(made, DeflatedExplicitVRLittleEndian)[left_out:]
        del made
        assert len(data) < 100_000
        tracemalloc.start()
        try:
            with pytest.raises(TooManyPixelsError):
                read_radiograph(data, limits=ReadingLimits(max_bytes=100_000, max_pixels=1_000_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000

    @pytest.mark.parametrize("tags", [{"Rows": 0}, {"Columns": 0}])
    def test_no_pixels(self, tags):
        with pytest.raises(UnreadableImageError):
            read_radiograph(film(**tags))


class TestTags:
    """M2 and M4."""

    def test_what_the_film_shows(self):
        radiograph = read_radiograph(film(Modality="CR", BodyPartExamined="CHEST ", ViewPosition="PA"))
        assert (radiograph.modality, radiograph.body_part, radiograph.view_position) == ("CR", "CHEST", "PA")

    def test_nothing_stated(self):
        radiograph = read_radiograph(film(Modality=None, BodyPartExamined="", PatientAge=""))
        assert radiograph.modality is None
        assert radiograph.body_part is None
        assert radiograph.view_position is None
        assert radiograph.patient_age_years is None

    @pytest.mark.parametrize(("value", "warned"), [("YES", True), ("yes ", True), ("NO", False), ("", False)])
    @pytest.mark.filterwarnings("ignore:Invalid value for VR")
    def test_text_burned_in_is_warned_of(self, value, warned):
        warnings = read_radiograph(film(BurnedInAnnotation=value)).warnings
        assert any("burned into the picture" in warning for warning in warnings) is warned

    @pytest.mark.parametrize(
        ("tags", "years"),
        [
            ({"PatientAge": "045Y"}, 45),
            ({"PatientAge": "000Y"}, 0),
            ({"PatientAge": "006M"}, 0.5),
            ({"PatientAge": "012W"}, 84 / 365.25),
            ({"PatientAge": "003D"}, 3 / 365.25),
            ({"PatientBirthDate": "20200101", "StudyDate": "20240101"}, 4),
            ({"PatientAge": "045Y", "PatientBirthDate": "20200101", "StudyDate": "20240101"}, 45),
            ({"PatientBirthDate": "20200101"}, None),
            ({"PatientBirthDate": "20250101", "StudyDate": "20240101"}, None),
            ({"PatientBirthDate": "unknown", "StudyDate": "20240101"}, None),
            ({"PatientAge": "forty"}, None),
            ({"PatientAge": "Y"}, None),
            ({"PatientAge": "45"}, None),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore:Invalid value for VR")
    def test_age(self, tags, years):
        age = read_radiograph(film(**tags)).patient_age_years
        assert age is None if years is None else age == pytest.approx(years)


class TestQuiet:
    @pytest.mark.filterwarnings("ignore:Invalid value for VR")
    def test_no_warning_and_no_log_line_with_a_patients_data(self, caplog):
        data = film(PatientAge="SECRET", NumberOfFrames=0, PixelPaddingValue=3, StudyDate="not a date")
        cut = compressed(dataset(noise(), bits=8), RLELossless)[:-3000]
        with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
            warnings.simplefilter("error")
            read_radiograph(data)
            with pytest.raises(UnreadableImageError):
                read_radiograph(cut)
        assert caplog.records == []


def test_a_compressed_colour_picture_of_more_bits_may_have_so_many_fewer_pixels() -> None:
    film = (FOLDER / "SC_rgb_rle_32bit_2frame.dcm").read_bytes()
    assert read_radiograph(film, limits=ReadingLimits(max_pixels=20_000)).pixels.shape == (100, 100)
    with pytest.raises(TooManyPixelsError):
        read_radiograph(film, limits=ReadingLimits(max_pixels=19_999))
