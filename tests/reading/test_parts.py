"""Cheap floods: refused before a decoder opens the file; and what is like them but is a film is read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.GifImagePlugin import GifImageFile

from pneumonet.errors import TooManyPixelsError, UnreadableImageError
from pneumonet.reading import read_radiograph
from scripts.fuzz_floods import floods, overlapping, tiff
from tests.reading.films import phantom, saved

RASTERS = [name for name in floods() if not name.startswith("DICOM")]
SEEN_ONCE_OPENED = ("TIFF of strips over each other", "TIFF of a tile")


def refuse(*_args, **_options):
    raise AssertionError("a decoder was asked")


@pytest.mark.parametrize("name", RASTERS)
def test_a_flood_is_refused_in_words_and_nothing_is_decoded(name, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", refuse)
    if name not in SEEN_ONCE_OPENED:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.__init__", refuse)
    with pytest.raises((UnreadableImageError, TooManyPixelsError)) as caught:
        read_radiograph(floods()[name])
    assert caught.value.__cause__ is None
    assert any(words in caught.value.message for words in ("too many parts", "run-length", "60,000 x 60,000"))
    assert caught.value.hint


@pytest.mark.parametrize("name", sorted(set(floods()) - set(RASTERS)))
def test_a_flood_of_dicom_is_refused_and_nothing_is_decoded(name, monkeypatch):
    monkeypatch.setattr("pneumonet.reading.dicom_palette.apply_color_lut", refuse)
    if "palette" not in name:  # which is looked at behind the pixels
        monkeypatch.setattr("pneumonet.reading.dicom.get_decoder", refuse)
    with pytest.raises(UnreadableImageError) as caught:
        read_radiograph(floods()[name])
    assert not isinstance(caught.value.__cause__, AssertionError)


class TestFilmsThatAreLikeFloods:
    def test_one_strip_a_row(self):
        rows = np.arange(12_000) % 251
        strips = struct.pack("<12000I", *range(8, 12_008))
        page = tiff([(256, 4, 1, 1), (257, 4, 1, 12_000), (273, 4, 12_000, 12_008), (278, 4, 1, 1)], 60_008)
        data = page[:8] + rows.astype(np.uint8).tobytes() + strips + page[60_008:]
        np.testing.assert_allclose(read_radiograph(data).pixels[:, 0], rows / 255, atol=1e-6)

    def test_planes_of_several_strips(self):
        colours = np.stack([phantom(48, 64), phantom(48, 64)[::-1], phantom(48, 64)[:, ::-1]])
        tags = [
            (258, 3, 3, 10_000),
            (262, 3, 1, 2),
            (273, 4, 6, 10_006),
            (277, 3, 1, 3),
            (278, 4, 1, 24),
            (284, 3, 1, 2),
        ]
        page = bytearray(tiff(tags, 11_000))
        page[8 : 8 + colours.nbytes] = colours.tobytes()
        page[10_000:10_030] = struct.pack("<3H6I", 8, 8, 8, *range(8, 8 + 9_216, 1_536))
        plain = saved(np.ascontiguousarray(colours.transpose(1, 2, 0)), "PNG")
        np.testing.assert_array_equal(read_radiograph(bytes(page)).pixels, read_radiograph(plain).pixels)

    def test_pages_below_the_limit(self):
        empty = b"".join(b"\0\0" + struct.pack("<I", 8 + 6 * (page + 1)) for page in range(9_999))
        page = tiff([])
        whole = b"II*\0\x08\0\0\0" + empty + page[8 + 64 * 48 :]
        with pytest.raises(UnreadableImageError) as caught:
            read_radiograph(whole)
        assert caught.value.__cause__ is not None  # the first page is empty, and that is all that is wrong

    def test_a_picture_behind_a_jpeg_is_none_of_its_scans(self):
        jpeg = saved(phantom(), "JPEG", progressive=True)
        np.testing.assert_array_equal(read_radiograph(jpeg * 40).pixels, read_radiograph(jpeg).pixels)

    def test_run_lengths(self):
        rows = [b"\x40\x05\0\0", b"\x20\x09\x20\x07\0\0", b"\0\x04\1\2\3\4\0\0"]
        body = b"".join(rows) + b"\0\1"
        palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
        header = struct.pack("<IiiHHIIiiII", 40, 64, 3, 1, 8, 1, len(body), 0, 0, 256, 0)
        bitmap = b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + palette + body
        expected = np.zeros((3, 64))
        expected[2], expected[1, :32], expected[1, 32:], expected[0, :4] = 5, 9, 7, (1, 2, 3, 4)
        np.testing.assert_allclose(read_radiograph(bitmap).pixels, expected / 255, atol=1e-6)

    def test_a_loop_count_and_a_comment(self):
        frames = [Image.fromarray(phantom() // (1 + k)) for k in range(3)]
        data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"c" * 5_000)
        assert read_radiograph(data).frames == 3

    def test_profiles_and_texts(self):
        whole = saved(phantom(), "PNG", icc_profile=bytes(200_000))
        text = b"Comment\0\0" + zlib.compress(b"x" * 5_000)
        chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
        np.testing.assert_allclose(read_radiograph(whole[:33] + chunk * 20 + whole[33:]).pixels, phantom() / 255)


@pytest.mark.parametrize("where", ["exif", "Raw profile type exif"])
def test_exif_over_itself_is_never_loaded_and_the_film_is_read(where, monkeypatch):
    loads = []
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", lambda *_: loads.append(1))
    bomb = b"Exif\0\0" + overlapping(300, 60_000)
    text = where.encode() + b"\0" + (bomb if where == "exif" else b"\nexif\n   60006\n" + bomb.hex().encode())
    png = saved(phantom(), "PNG")
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    films = [png[:33] + chunk + png[33:]]
    films += [saved(phantom(), file_format, exif=bomb) for file_format in ("PNG", "WEBP")]
    for data in films:
        np.testing.assert_allclose(read_radiograph(data).pixels, phantom() / 255)
    assert loads == []


def test_a_start_repeated_without_end_is_never_taken_away(monkeypatch):
    """Pillow copies the rest for each."""
    loads = []
    monkeypatch.setattr(Image.Exif, "load", lambda *_: loads.append(1))
    for file_format in ("PNG", "WEBP"):
        film = saved(phantom(), file_format, exif=b"Exif\0\0" * 10_000)
        np.testing.assert_allclose(read_radiograph(film).pixels, phantom() / 255)
    assert loads == []
    with pytest.raises(UnreadableImageError, match="too many parts"):
        read_radiograph(floods()["JPEG of EXIF's start"])


def test_orientation_in_imagemagicks_text_still_counts():
    exif = Image.Exif()
    exif[0x0112] = 3
    text = b"Raw profile type exif\0\nexif\n      26\n" + exif.tobytes().hex().encode()
    png = saved(phantom()[::-1, ::-1], "PNG")
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    np.testing.assert_allclose(read_radiograph(png[:33] + chunk + png[33:]).pixels, phantom() / 255)


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_frame_that_enlarges_its_canvas_is_refused_before_the_next_one_decodes_it(monkeypatch):
    gif = saved(phantom(), "GIF")
    large = b",\0\0\0\0" + struct.pack("<HH", 12_000, 12_000) + b"\0\2\2\x4c\1\0"
    decoded = []
    plain = GifImageFile.load
    monkeypatch.setattr(GifImageFile, "load", lambda self: (decoded.append(self.size), plain(self))[1])
    with pytest.raises(TooManyPixelsError, match="12,000 x 12,000"):
        read_radiograph(gif[:-1] + large * 3 + b";", frame=2)
    assert set(decoded) <= {(100, 60)}


def test_a_comment_may_hide_no_scans():
    progressive = saved(phantom(), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImageError, match="too many parts"):
        read_radiograph(progressive[:-2] + b"\xff\xfe\0\4\xff\xd9" + scan * 70 + b"\xff\xd9")


def test_large_pictures_take_fewer_scans(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.__init__", refuse)
    progressive = bytearray(saved(phantom(), "JPEG", progressive=True))
    at = progressive.index(b"\xff\xc2")
    progressive[at + 5 : at + 9] = struct.pack(">HH", 6_000, 6_000)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImageError, match="too many parts"):
        read_radiograph(bytes(progressive[:-2] + scan * 25 + progressive[-2:]))
