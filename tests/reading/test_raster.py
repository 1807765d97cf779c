import io
import struct
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from pneumonet.errors import (
    BadRequestError,
    EmptyFileError,
    FileTooLargeError,
    FrameNotFoundError,
    NoFileError,
    PneumoNetError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from pneumonet.radiograph import Radiograph
from pneumonet.reading import ReadingLimits, read_radiograph
from tests.reading.films import (
    claiming_the_most,
    film,
    noise,
    phantom,
    phantom_12_bit,
    png_header,
    png_of_16_bits,
    saved,
    tiff_by_hand,
)

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
HALF_A_LEVEL = 0.5 / 255
JPEG_TOLERANCE = 4 / 255


def assert_film(radiograph, expected, tolerance=1e-6):
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.shape == expected.shape
    np.testing.assert_allclose(radiograph.pixels, expected, rtol=0, atol=tolerance)


def written_by_opencv(stored, extension, options=()):
    blue_first = stored[..., [2, 1, 0, 3][: stored.shape[2]]]
    return cv2.imencode(extension, blue_first, options)[1].tobytes()


# What writes (H, W, channels) at 16 bits a channel; OpenCV knows no grey with alpha.
WRITERS = {
    "PNG": png_of_16_bits,
    "interlaced PNG": lambda stored: png_of_16_bits(stored, interlaced=True),
    "PNG by OpenCV": lambda stored: written_by_opencv(stored, ".png"),
    "TIFF": lambda stored: written_by_opencv(stored, ".tiff", [259, 1]),
    "LZW in TIFF": lambda stored: written_by_opencv(stored, ".tiff", [259, 5]),
}


class TestEightBits:
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_same_tones_from_every_format(self, file_format):
        radiograph = read_radiograph(saved(phantom(), file_format))
        assert_film(radiograph, phantom() / 255, JPEG_TOLERANCE if file_format == "JPEG" else 1e-6)
        assert (radiograph.format, radiograph.frame, radiograph.frames) == (file_format, 0, 1)
        assert (radiograph.colourfulness, radiograph.warnings) == (0, ())

    def test_a_name_says_nothing(self, tmp_path):
        path = tmp_path / "SCAN.TXT"
        path.write_bytes(saved(phantom(), "PNG"))
        for source in (path, str(path), path.read_bytes()):
            assert_film(read_radiograph(source), phantom() / 255)

    def test_one_bit(self):
        bits = phantom() > 100
        assert_film(read_radiograph(saved(Image.fromarray(bits), "PNG")), bits.astype(float))

    @pytest.mark.parametrize("value", [0, 7, 255])
    @pytest.mark.parametrize("file_format", ["PNG", "BMP"])
    def test_constant(self, value, file_format):
        radiograph = read_radiograph(saved(np.full((8, 9), value, np.uint8), file_format))
        assert_film(radiograph, np.full((8, 9), value / 255))

    def test_one_pixel(self):
        assert_film(read_radiograph(saved(np.array([[51]], np.uint8), "PNG")), np.array([[0.2]]))

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressed_tiff(self, compression):
        assert_film(read_radiograph(saved(phantom(), "TIFF", compression=compression)), phantom() / 255)


class TestDeepGrey:
    """I1."""

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    @pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
    def test_same_tones_as_the_8_bit_copy(self, file_format, top):
        values = (phantom() / 255.0 * top).round().astype(np.uint16)
        assert_film(read_radiograph(saved(values, file_format)), phantom() / 255, 1 / top)

    def test_a_widened_8_bit_film_is_exact_even_when_dark(self):
        dark = phantom() // 3
        eight, sixteen = (read_radiograph(saved(v, "PNG")) for v in (dark, dark.astype(np.uint16) * 257))
        np.testing.assert_array_equal(eight.pixels, sixteen.pixels)

    def test_ramp_is_not_white(self):
        ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        assert_film(read_radiograph(saved(ramp, "PNG")), ramp / 65535)

    def test_a_flat_image_takes_its_own_range(self):
        values = 30000 + phantom().astype(np.uint16)
        assert_film(read_radiograph(saved(values, "PNG")), phantom() / 255)

    @pytest.mark.parametrize(("value", "expected"), [(0, 0), (200, 200 / 255), (1000, 1000 / 1023), (65535, 1)])
    def test_constant(self, value, expected):
        radiograph = read_radiograph(saved(np.full((4, 4), value, np.uint16), "PNG"))
        assert_film(radiograph, np.full((4, 4), expected))

    @pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i4", ">i4", "<f4", ">f4"])
    @pytest.mark.parametrize("photometric", [0, 1], ids=["white is zero", "black is zero"])
    def test_tiff_types_and_byte_orders(self, dtype, photometric):
        top = 1 if "f" in dtype else np.iinfo(dtype).max
        values = (phantom() / 255.0 * top).astype(dtype)
        expected = phantom() / 255 if photometric else 1 - phantom() / 255
        assert_film(read_radiograph(tiff_by_hand(values, photometric)), expected, 1e-4)

    def test_negative_integers_take_their_own_range(self):
        values = phantom().astype(np.int32) * 8 - 1000
        assert_film(read_radiograph(saved(values, "TIFF")), phantom() / 255)

    def test_transparent_tone_is_black(self):
        values = phantom().astype(np.uint16) * 257
        tone = int(values[30, 50])
        expected = np.where(values == tone, 0, phantom() / 255)
        assert_film(read_radiograph(saved(values, "PNG", transparency=tone)), expected)


class TestFloats:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([[0.0, 0.25, 0.9]], [[0.0, 0.25, 0.9]]),
            ([[0.4, 0.5, 0.6]], [[0.0, 0.5, 1.0]]),
            ([[-1000.0, 0.0, 1000.0]], [[0.0, 0.5, 1.0]]),
            ([[0.3, 0.3, 0.3]], [[0.3, 0.3, 0.3]]),
            ([[7.0, 7.0, 7.0]], [[0.0, 0.0, 0.0]]),
        ],
        ids=["tones", "narrow", "wide", "constant tone", "constant"],
    )
    def test_range(self, values, expected):
        assert_film(read_radiograph(saved(np.array(values, np.float32), "TIFF")), np.array(expected))

    def test_what_is_no_number_becomes_the_darkest_tone(self):
        values = np.array([[np.nan, np.inf, -np.inf, 10.0, 20.0]], np.float32)
        radiograph = read_radiograph(saved(values, "TIFF"))
        assert_film(radiograph, np.array([[0.0, 0, 0, 0, 1]]))
        assert len(radiograph.warnings) == 1

    def test_no_number_at_all(self):
        with pytest.raises(UnreadableImageError):
            read_radiograph(saved(np.full((3, 3), np.nan, np.float32), "TIFF"))


class TestColour:
    def test_luma_and_colourfulness(self):
        rgb = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        radiograph = read_radiograph(saved(rgb, "PNG"))
        assert_film(radiograph, rgb @ [0.299, 0.587, 0.114] / 255, HALF_A_LEVEL + 1e-4)
        assert radiograph.colourfulness == pytest.approx((rgb.max(-1) - rgb.min(-1)).mean() / 255)

    @pytest.mark.parametrize("top", [255, 4095, 32767, 65535])
    @pytest.mark.parametrize(
        ("channels", "writer"),
        [(2, "PNG"), (2, "interlaced PNG"), *[(count, writer) for count in (3, 4) for writer in WRITERS]],
    )
    def test_16_bits_a_channel(self, channels, writer, top):
        """I1 in colour and with alpha: Pillow keeps the upper bytes alone, which leaves little of 12 bits."""
        rgb = np.random.default_rng(1).integers(0, 256, (20, 30, 3 if channels > 2 else 1)) / 255
        rgb[0, 0] = 1
        alpha, stored = np.full((20, 30, 1), 65535), (rgb * top).round()
        if channels in (2, 4):
            alpha[5:9], alpha[9:12], alpha[:, :4] = 32768, 13107, 0
            rgb[0, 5] = 1
            stored = np.concatenate([(rgb * top).round(), alpha], axis=-1)
            stored[:, :4, :-1] = 65535  # what is hidden says nothing about the depth
        radiograph = read_radiograph(WRITERS[writer](stored.astype(np.uint16)))
        shown = rgb * alpha / 65535
        luma = shown @ [0.299, 0.587, 0.114] if channels > 2 else shown[..., 0]
        assert_film(radiograph, luma, 1.5 / 255)
        assert radiograph.colourfulness == pytest.approx(np.ptp(shown, axis=-1).mean(), abs=0.005)

    @pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
    def test_16_bits_with_alpha_read_as_those_without(self, top):
        grey = (phantom_12_bit() / 4095.0 * top).round().astype(np.uint16)[..., None]
        opaque = np.full_like(grey, 65535)
        rgb = np.repeat(grey, 3, axis=-1)
        for plain in (grey, rgb):
            expected = read_radiograph(png_of_16_bits(plain))
            actual = read_radiograph(png_of_16_bits(np.concatenate([plain, opaque], axis=-1)))
            np.testing.assert_array_equal(actual.pixels, expected.pixels)
            assert actual.colourfulness == expected.colourfulness == 0

    def test_a_flat_image_with_alpha_takes_its_own_range(self):
        values = 30000 + phantom().astype(np.uint16)
        data = png_of_16_bits(np.stack([values, np.full_like(values, 65535)], axis=-1))
        assert_film(read_radiograph(data), phantom() / 255)

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_a_widened_8_bit_film_is_exact_even_when_dark(self, channels):
        dark = phantom() // 3
        stored = np.repeat(dark[..., None].astype(np.uint16) * 257, channels, axis=-1)
        shown = dark / 255
        if channels in (2, 4):
            stored[..., -1] = 65535
            stored[10:20, :, -1], shown[10:20] = 32768, shown[10:20] * 32768 / 65535
        assert_film(read_radiograph(png_of_16_bits(stored)), shown, 1e-6 if channels < 4 else HALF_A_LEVEL + 1e-4)

    def test_clear_all_over(self):
        for channels in (2, 4):
            stored = np.full((5, 6, channels), 3000, np.uint16)
            stored[..., -1] = 0
            assert_film(read_radiograph(png_of_16_bits(stored)), np.zeros((5, 6)))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("named", [0, 1, 2], ids=["no alpha", "premultiplied", "plain"])
    def test_16_bits_a_channel_in_a_tiff_that_names_its_alpha(self, named, order):
        alpha = np.where(np.arange(100) < 20, 0, np.where(np.arange(100) < 40, 32768, 65535))
        shown = phantom_12_bit() / 4095 * (alpha / 65535 if named else 1)
        colour = (shown * 4095 if named == 1 else phantom_12_bit()).round()
        stored = np.stack([colour, colour, colour, np.broadcast_to(alpha, colour.shape)], axis=-1)
        data = tiff_by_hand(stored.astype(order + "u2"), 2, alpha=named)
        assert_film(read_radiograph(data), shown, 1 / 4095)

    def test_grey_saved_as_colour_is_the_grey_film(self):
        radiograph = read_radiograph(saved(np.repeat(phantom()[..., None], 3, axis=-1), "PNG"))
        assert_film(radiograph, phantom() / 255)
        assert radiograph.colourfulness == 0

    def test_palette_goes_through_its_colours(self):
        order = np.random.default_rng(2).permutation(256).astype(np.uint8)
        places = np.argsort(order).astype(np.uint8)
        image = Image.fromarray(places[phantom()], "P")
        image.putpalette(np.repeat(order, 3).tobytes())
        for file_format in ("PNG", "GIF", "BMP"):
            assert_film(read_radiograph(saved(image, file_format)), phantom() / 255)

    @pytest.mark.parametrize(
        ("mode", "file_format", "options"),
        [
            ("CMYK", "JPEG", {"quality": 100}),
            ("CMYK", "TIFF", {}),
            ("YCbCr", "JPEG", {"quality": 100}),
            ("YCbCr", "TIFF", {"compression": "tiff_lzw"}),
            ("LAB", "TIFF", {}),
            ("RGBX", "TIFF", {}),
            ("PA", "TIFF", {}),
        ],
    )
    def test_other_colour_spaces(self, mode, file_format, options):
        smooth = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
        image = Image.fromarray(smooth).convert("RGB")
        if mode == "LAB":
            profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
        elif mode == "PA":
            image = Image.fromarray(smooth).convert("P").convert("PA")
        else:
            image = image.convert(mode)
        tolerance = 26 / 255 if mode == "PA" else 3 / 255  # Pillow's own palette has 6 x 6 x 6 colours
        assert_film(read_radiograph(saved(image, file_format, **options)), smooth / 255, tolerance)


class TestAlpha:
    """I16."""

    margin = np.pad(np.full((40, 80), 255, np.uint8), ((10, 10), (10, 10)))
    hidden = np.where(margin, phantom(), noise(60, 100))

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_what_hides_under_a_clear_margin_is_black(self, mode, file_format):
        bands = [Image.fromarray(self.hidden)] * (len(mode) - 1) + [Image.fromarray(self.margin)]
        data = saved(Image.merge(mode, bands), file_format, **({"exact": True} if file_format == "WEBP" else {}))
        opaque = saved(np.where(self.margin, phantom(), 0).astype(np.uint8), "PNG")
        np.testing.assert_array_equal(read_radiograph(data).pixels, read_radiograph(opaque).pixels)

    def test_half_transparent_is_half_as_bright(self):
        image = Image.merge("LA", [Image.new("L", (4, 4), 200), Image.new("L", (4, 4), 128)])
        expected = np.full((4, 4), 200 * 128 / 255 / 255)
        assert_film(read_radiograph(saved(image, "PNG")), expected, HALF_A_LEVEL + 1e-4)

    @pytest.mark.parametrize(("mode", "clear"), [("1", 255), ("L", 190), ("P", 190), ("RGB", (190, 190, 190))])
    def test_transparent_colour(self, mode, clear):
        grey = np.where(phantom() > 100, 190, 60 if mode != "1" else 0).astype(np.uint8)
        image = Image.fromarray(np.where(grey == 190, 255, 0).astype(np.uint8) if mode == "1" else grey)
        if mode == "P":
            image = Image.fromarray(grey, "P")
            image.putpalette(bytes(np.repeat(np.arange(256), 3).astype(np.uint8)))
        data = saved(image.convert(mode), "PNG", transparency=clear)
        assert_film(read_radiograph(data), np.where(grey == 190, 0, grey / 255))


# What a camera stores so that a reader of the tag sees the film upright.
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[:, ::-1],
}


class TestOrientation:
    """I15."""

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_stands_upright(self, file_format, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(TURNED[orientation](phantom()), file_format, exif=exif)
        assert_film(read_radiograph(data), phantom() / 255, JPEG_TOLERANCE if file_format == "JPEG" else 1e-6)
        with Image.open(io.BytesIO(data)) as image:
            upright = np.asarray(ImageOps.exif_transpose(image).convert("L")) / 255
        assert_film(read_radiograph(data), upright)

    def test_deep_png(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        data = saved(TURNED[6](phantom().astype(np.uint16) * 257), "PNG", exif=exif)
        assert_film(read_radiograph(data), phantom() / 255)

    @pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
    def test_a_damaged_tag_is_no_reason_to_refuse(self, exif):
        assert_film(read_radiograph(saved(phantom(), "PNG", exif=exif)), phantom() / 255)


class TestFrames:
    """I19."""

    greys = (0, 120, 255)

    def animation(self, file_format):
        first, *others = [Image.new("L", (12, 10), grey) for grey in self.greys]
        return saved(first, file_format, save_all=True, append_images=others)

    @pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
    @pytest.mark.parametrize("frame", [None, 0, 1, 2])
    def test_frame_asked_for_else_the_first(self, file_format, frame):
        radiograph = read_radiograph(self.animation(file_format), frame=frame)
        index = frame or 0
        assert_film(radiograph, np.full((10, 12), self.greys[index] / 255))
        assert (radiograph.frame, radiograph.frames) == (index, 3)
        assert radiograph.warnings == (f"The file has 3 frames; frame {index + 1} was read.",)

    @pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
    @pytest.mark.parametrize("frame", [-1, 3])
    def test_no_such_frame(self, file_format, frame):
        with pytest.raises(FrameNotFoundError, match="3 frames"):
            read_radiograph(self.animation(file_format), frame=frame)

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_single_picture(self, file_format):
        data = saved(phantom(), file_format)
        assert read_radiograph(data, frame=0).warnings == ()
        with pytest.raises(FrameNotFoundError, match="1 frame;"):
            read_radiograph(data, frame=1)

    def test_pages_of_different_sizes_and_depths(self):
        pages = [Image.fromarray(phantom()), Image.fromarray(phantom(30, 20).astype(np.uint16) * 257)]
        data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
        assert_film(read_radiograph(data, frame=1), phantom(30, 20) / 255)

    @staticmethod
    def pages(count):
        one = tiff_by_hand(np.full((1, 1), 9, np.uint8))
        directory = one[9:-4]
        chain = b"".join(
            directory + struct.pack("<I", 9 + (index + 1) * (len(directory) + 4) if index < count - 1 else 0)
            for index in range(count)
        )
        return one[:9] + chain

    def test_ten_thousand_pages_take_no_seconds(self):
        assert read_radiograph(self.pages(10_000), frame=9_999).frames == 10_000

    def test_more_are_refused(self):
        with pytest.raises(UnreadableImageError, match="too many parts"):
            read_radiograph(self.pages(10_001))


class TestDamage:
    """I13."""

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.98])
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_cut_short(self, file_format, share):
        data = saved(noise(), file_format)
        with pytest.raises(UnreadableImageError) as caught:
            read_radiograph(data[: int(len(data) * share)])
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("share", [0.5, 0.98])
    def test_progressive_jpeg_cut_short(self, share):
        data = saved(noise(), "JPEG", progressive=True)
        with pytest.raises(UnreadableImageError):
            read_radiograph(data[: int(len(data) * share)])

    def test_flipped_bits_in_a_png(self):
        data = bytearray(saved(noise(), "PNG"))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(UnreadableImageError):
            read_radiograph(bytes(data))

    def test_tolerant_loading_stays_off(self):
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_noise_in_a_file_gives_a_film_or_our_own_error(self, file_format):
        rng = np.random.default_rng(3)
        whole = np.frombuffer(saved(noise(30, 40), file_format), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(12, len(broken), 6)] = rng.integers(0, 256, 6)
            try:
                pixels = read_radiograph(broken.tobytes()).pixels
            except PneumoNetError:
                continue
            assert np.isfinite(pixels).all()
            assert pixels.min() >= 0
            assert pixels.max() <= 1


class TestRefusals:
    @pytest.mark.parametrize("source", [None, ""])
    def test_nothing(self, source):
        with pytest.raises(NoFileError):
            read_radiograph(source)

    @pytest.mark.parametrize(
        "source",
        [np.zeros((4, 4), np.uint8), io.BytesIO(b"\x89PNG"), [b"\x89PNG"], 7, 0, False, [], {}, ("a", "b")],
        ids=lambda source: f"{type(source).__name__} of {np.size(source)}",
    )
    def test_what_is_neither_bytes_nor_a_path(self, source):
        with pytest.raises(BadRequestError, match=rf"{type(source).__name__}\b.*bytes.*str.*Path"):
            read_radiograph(source)

    @pytest.mark.parametrize("frame", [True, False, "0", 1.0, [0]], ids=repr)
    @pytest.mark.parametrize("data", [saved(phantom(), "PNG"), film()], ids=["PNG", "DICOM"])
    def test_a_frame_that_is_no_whole_number(self, data, frame):
        with pytest.raises(BadRequestError, match=rf"{type(frame).__name__}\b.*int"):
            read_radiograph(data, frame=frame)

    def test_bytes_of_every_kind(self):
        data = saved(phantom(), "PNG")
        for source in (bytearray(data), memoryview(data)):
            assert_film(read_radiograph(source), phantom() / 255)

    def test_pixels_that_are_no_numbers_never_get_out(self, monkeypatch):
        broken = Radiograph(pixels=np.array([[0.5, np.nan]], np.float32), format="PNG")
        monkeypatch.setattr("pneumonet.reading.read_raster", lambda *_: broken)
        with pytest.raises(UnreadableImageError, match="not numbers"):
            read_radiograph(saved(phantom(), "PNG"))

    def test_empty(self, tmp_path):
        path = tmp_path / "film.png"
        path.touch()
        for source in (b"", path):
            with pytest.raises(EmptyFileError):
                read_radiograph(source)

    @pytest.mark.parametrize(
        "data",
        [
            b"Dear colleague, please find attached the film of Mr Secret.\n" * 20,
            b"BM is how this letter happens to start, at some length. " * 20,
            b"<!DOCTYPE html><html><body>404</body></html>" * 10,
            b"%PDF-1.7\n" * 100,
            b"PK\x03\x04" + bytes(500),
            b"{}",
            b"\0" * 1000,
            b"\x08\0" * 500,
            b"\x02\0\0\0UL\x04\0abcd" * 50,
            b"\xff",
            b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        ],
        ids=["text", "BM text", "html", "pdf", "zip", "json", "zeros", "group 8", "group 2", "a byte", "wav"],
    )
    def test_no_picture(self, data):
        with pytest.raises(UnsupportedFormatError):
            read_radiograph(data)

    @pytest.mark.parametrize("file_format", ["JPEG2000", "PPM", "TGA", "ICO", "PDF"])
    def test_formats_left_out(self, file_format):
        with pytest.raises(UnsupportedFormatError):
            read_radiograph(saved(phantom(64, 64), file_format))

    def test_paths_that_are_no_file(self, tmp_path):
        for path in (tmp_path / "Smith^John.png", tmp_path, "a\0b"):
            with pytest.raises(UnreadableImageError) as caught:
                read_radiograph(path)
            assert "Smith" not in caught.value.message
            assert str(tmp_path) not in caught.value.message

    def test_messages_keep_names_and_tracebacks_to_themselves(self, tmp_path):
        path = tmp_path / "Smith^John.png"
        path.write_bytes(saved(noise(), "PNG")[:400])
        with pytest.raises(UnreadableImageError) as caught:
            read_radiograph(path)
        said = caught.value.message + caught.value.hint
        assert not any(word in said for word in ("Smith", "tmp", "Traceback", "Error", "OSError"))

    @pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
    def test_what_is_not_the_films_fault_passes(self, monkeypatch, error):
        def fail(*_):
            raise error

        monkeypatch.setattr("pneumonet.reading.read_raster", fail)
        with pytest.raises(error):
            read_radiograph(saved(phantom(), "PNG"))


class TestLimits:
    """I18."""

    def test_bytes(self, tmp_path):
        data = saved(noise(), "PNG")
        path = tmp_path / "film.png"
        path.write_bytes(data)
        for source in (data, path):
            assert read_radiograph(source, limits=ReadingLimits(max_bytes=len(data))).frames == 1
            with pytest.raises(FileTooLargeError):
                read_radiograph(source, limits=ReadingLimits(max_bytes=len(data) - 1))

    def test_the_limit_is_stated(self):
        with pytest.raises(FileTooLargeError, match="10 MB"):
            read_radiograph(bytes(10_000_001))

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_pixels(self, file_format):
        data = saved(noise(30, 40), file_format)
        assert read_radiograph(data, limits=ReadingLimits(max_pixels=1200)).frames == 1
        with pytest.raises(TooManyPixelsError, match="40 x 30"):
            read_radiograph(data, limits=ReadingLimits(max_pixels=1199))

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_declared_size_is_refused_before_decoding(self, file_format):
        data = claiming_the_most(file_format)
        assert len(data) < 1_000_000
        tracemalloc.start()
        try:
            with pytest.raises(TooManyPixelsError, match=r"65,535 x 65,535|16,383 x 16,383"):
                read_radiograph(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000

    @pytest.mark.parametrize("side", [10_000, 20_000])
    def test_a_header_alone(self, side):
        with pytest.raises(TooManyPixelsError):
            read_radiograph(png_header(side, side))

    def test_no_warning_between_pillows_limit_and_ours(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UnreadableImageError):
                read_radiograph(png_header(10_000, 10_000), limits=ReadingLimits(max_pixels=100_000_000))

    def test_frames_that_must_be_decoded_count(self):
        frames = [Image.fromarray(noise(10, 10) // (1 + k)) for k in range(3)]
        data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
        limits = ReadingLimits(max_pixels=200)
        assert read_radiograph(data, frame=1, limits=limits).frame == 1
        with pytest.raises(TooManyPixelsError):
            read_radiograph(data, frame=2, limits=limits)


def test_threads_agree_with_one_alone():
    deep = phantom().astype(np.uint16) * 257
    films = [saved(phantom(), file_format) for file_format in FORMATS]
    films += [saved(deep, "PNG"), saved(deep, "TIFF"), film(), film(PhotometricInterpretation="MONOCHROME1")]
    alone = [read_radiograph(data).pixels for data in films]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: read_radiograph(data).pixels, films * 8))
    for index, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[index % len(films)])


def test_the_source_is_left_as_it_was(tmp_path):
    path = tmp_path / "film.gif"
    path.write_bytes(saved(phantom(), "GIF"))
    before = path.read_bytes()
    read_radiograph(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.gif"]
