"""Every file that comes with pydicom: read or refused, never a crash. Nothing is downloaded."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from pneumonet.errors import PneumoNetError, UnreadableImageError, UnsupportedTransferSyntaxError
from pneumonet.reading import read_radiograph

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())

MUST_BE_READ = (
    "693_J2KI.dcm",
    "CT_small.dcm",
    "ExplVR_BigEnd.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "badVR.dcm",
    "examples_jpeg2k.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "rtdose.dcm",
    "rtdose_rle.dcm",
)
MUST_BE_REFUSED = {
    "JPEG-lossy.dcm": UnsupportedTransferSyntaxError,
    "JPGExtended.dcm": UnsupportedTransferSyntaxError,
    "SC_rgb_jpeg_gdcm.dcm": UnsupportedTransferSyntaxError,
    "MR_truncated.dcm": UnreadableImageError,
    "rtplan.dcm": UnreadableImageError,
    "test-SR.dcm": UnreadableImageError,
    "waveform_ecg.dcm": UnreadableImageError,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_read_or_refused(path):
    try:
        radiograph = read_radiograph(path)
    except PneumoNetError as refusal:
        said = refusal.message
        radiograph = None
    if radiograph is None:
        assert path.name not in said
        return
    pixels = radiograph.pixels
    assert (pixels.dtype, pixels.ndim) == (np.float32, 2)
    assert np.isfinite(pixels).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert 0 <= radiograph.colourfulness <= 1


@pytest.mark.parametrize("name", MUST_BE_READ)
def test_must_be_read(name):
    assert np.ptp(read_radiograph(FOLDER / name).pixels) > 0


@pytest.mark.parametrize(("name", "error"), MUST_BE_REFUSED.items())
def test_must_be_refused(name, error):
    with pytest.raises(error):
        read_radiograph(FOLDER / name)


@pytest.mark.parametrize(
    "name",
    ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"],
)
def test_one_film_in_many_encodings(name):
    expected = read_radiograph(FOLDER / "MR_small.dcm").pixels
    np.testing.assert_array_equal(read_radiograph(FOLDER / f"MR_small_{name}.dcm").pixels, expected)


def test_ct_against_its_values():
    dataset = pydicom.dcmread(FOLDER / "CT_small.dcm")
    values = apply_modality_lut(dataset.pixel_array, dataset)
    assert "WindowWidth" not in dataset
    body = values[dataset.pixel_array != dataset.PixelPaddingValue]
    expected = np.clip((values - body.min()) / np.ptp(body), 0, 1)
    radiograph = read_radiograph(FOLDER / "CT_small.dcm")
    np.testing.assert_allclose(radiograph.pixels, expected, atol=1e-6)
    assert radiograph.modality == "CT"
