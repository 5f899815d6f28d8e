"""DICOM series: read as SimpleITK reads them whatever their numbers say, or refused by name where slices do not fit.

The odd series are built after public reports of what readers get wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seg.data import memory
from seg.data.prepare import read_image
from seg.data.volumes import format_of, is_series, read_volume
from seg.inference.cases import find_sources
from tests.data.builders import problems_of

pydicom: Any = pytest.importorskip("pydicom", reason="builds series; pip install pydicom")
sitk: Any = pytest.importorskip("SimpleITK", reason="reads series; pip install SimpleITK")
pytestmark = pytest.mark.filterwarnings("ignore")

COLUMNS, ROWS, SLICES = 9, 7, 5
NAMES = tuple(f"slice_{(z * 3) % 5}.dcm" for z in range(SLICES))
"""Files by position: the slices lie at 30, 33, ... 42 mm."""
STORED = np.random.default_rng(0).integers(0, 500, (SLICES, ROWS, COLUMNS)).astype("<i2")
ROW, COLUMN = np.array([0.0, 1, 0]), np.array([-1.0, 0, 0])
"""Directions of rows and columns, in LPS; their normal points up."""
SPACING = (1.5, 0.5)
"""Distance of rows, and of columns."""
EXPLICIT, LOSSLESS, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"


def write_slice(path, pixels, position, number, **fields):
    """Writes a slice with pydicom alone; fields that are None are left out."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = EXPLICIT
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.4.{number + 1}"
    data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = "1.2.3.4", "1.2.3", "MR"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.ImagePositionPatient, data.ImageOrientationPatient = list(position), [*ROW, *COLUMN]
    data.PixelSpacing, data.SliceThickness, data.InstanceNumber = list(SPACING), 3.0, number
    data.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    for name, value in fields.items():
        setattr(data, name, value)
        if value is None:
            delattr(data, name)
    data.save_as(path, enforce_file_format=True)
    return path


def place(z):
    return (10.0, -20.0, 30.0 + 3 * z)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for z, name in enumerate(NAMES):
        write_slice(folder / name, STORED[z], place(z), z)
    return folder


def edit(path, change=None, **fields):
    data = pydicom.dcmread(path)
    for name, value in fields.items():
        setattr(data, name, value)
    if change:
        change(data)
    data.save_as(path)


def edit_all(folder, **fields):
    for name in NAMES:
        edit(folder / name, **fields)


def move(folder, positions):
    for name, position in zip(NAMES, positions, strict=True):
        edit(folder / name, ImagePositionPatient=[float(number) for number in position])


def fault(path):
    """Which file a refused series is told by, and which rule it breaks."""
    ((named, kind, _),) = problems_of(read_image, [path], ("CT",))
    return named, kind


def agrees(folder, values=STORED):
    """Voxels and their places are those that the series was built of, to the bit and to a micron."""
    read = read_volume(folder)
    np.testing.assert_array_equal(read.array[0], values.transpose(2, 1, 0).astype(np.float32))
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([SPACING[1] * ROW, SPACING[0] * COLUMN, [0, 0, 3]])
    affine[:3, 3] = place(0)
    np.testing.assert_allclose(read.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-3)
    return read


def test_a_series_is_read_as_simpleitk_reads_it(series):
    assert is_series(series)
    assert format_of(series).name == "DICOM"
    expected = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)))
    read = agrees(series)
    for index in np.ndindex(read.array.shape[1:]):
        there = read.affine @ [*index, 1]
        voxel = expected.TransformPhysicalPointToIndex((-there[0], -there[1], there[2]))
        assert expected[voxel] == read.array[0][index]
    np.testing.assert_allclose(read.spacing_mm, expected.GetSpacing())
    assert (np.diag(read_image([series], ("CT",)).grid.affine)[:3] > 0).all()  # axes are RAS


@pytest.mark.parametrize("numbers", [(4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (7, 7, 7, 7, 7), None])
def test_slices_are_ordered_by_where_they_lie(series, numbers):
    for index, name in enumerate(NAMES):
        edit(series / name, InstanceNumber=None if numbers is None else numbers[index])
    agrees(series)


@pytest.mark.parametrize(
    "fields",
    [
        {"SpacingBetweenSlices": -3.0},  # ITK takes it at its word
        {"SpacingBetweenSlices": 17.0},
        {"SliceThickness": 1.0},
        {"SliceThickness": 5.0},
        {"SliceLocation": 0.0},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},  # of secondary captures ITK drops the geometry
        {"ImageType": ["DERIVED", "SECONDARY"]},
    ],
    ids=str,
)
def test_what_else_is_said_of_distances_does_not_count(series, fields):
    edit_all(series, **fields)
    agrees(series)


def test_positions_may_be_rounded_to_a_tenth(series):
    move(series, [place(index + (0.05 / 3 if index % 2 else 0)) for index in range(SLICES)])
    read = read_volume(series)
    np.testing.assert_array_equal(read.array[0], STORED.transpose(2, 1, 0))
    assert read.spacing_mm[2] == pytest.approx(3)
    edit(series / NAMES[2], ImagePositionPatient=[10, -20, 36.1])
    assert fault(series)[1] == "uneven"


GROWING = [(10, -20, z) for z in np.cumsum([30.0, 2.85, 2.95, 3.05, 3.15])]
TILTED = [(10, -20 + 0.5 * index, 30 + 3 * index) for index in range(SLICES)]
ODD_SERIES = {
    "a missing slice": (lambda folder: (folder / NAMES[3]).unlink(), NAMES[4], "uneven"),
    "steps that grow by little": (lambda folder: move(folder, GROWING), NAMES[1], "uneven"),
    "a second phase": (lambda folder: write_slice(folder / "more", STORED[2], place(2), 98), None, "doubled"),
    "a second echo": (lambda folder: write_slice(folder / "e", STORED[2], place(2), 98, EchoTime=80), None, "doubled"),
    "a tilted gantry": (lambda folder: move(folder, TILTED), NAMES[1], "tilted"),
    "a grid that cannot be": (lambda folder: edit_all(folder, PixelSpacing=[0, 1]), "", "affine"),
}


@pytest.mark.parametrize("name", ODD_SERIES)
def test_slices_that_do_not_fit_together_are_refused(series, name):
    change, told, kind = ODD_SERIES[name]
    change(series)
    found = fault(series)
    assert found[1] == kind
    assert told is None or found[0] == str(series / told)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"PixelSpacing": [0.5, 0.5]}, "grid"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "grid"),
        ({"Rows": 6, "PixelData": bytes(6 * 9 * 2)}, "grid"),
        ({"SeriesInstanceUID": "1.2.3.5"}, "series"),
        ({"ImagePositionPatient": None}, "place"),
        ({"ImagePositionPatient": [1, 2]}, "place"),
        ({"PixelSpacing": ["nan", 1]}, "place"),
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * 126)}, "frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colours"),
        ({"RescaleSlope": "nan"}, "number"),
    ],
    ids=str,
)
def test_a_slice_that_is_not_like_the_others_is_refused(series, fields, kind):
    write_slice(series / "slice_4.dcm", STORED[3], place(3), 3, **fields)
    assert fault(series) == (str(series if kind == "series" else series / "slice_4.dcm"), kind)


@pytest.mark.parametrize("more", [-2, 2, 126])
def test_pixels_of_another_size_than_the_header_says_are_refused(series, more):
    path = series / NAMES[1]
    edit(path, lambda data: setattr(data, "PixelData", (data.PixelData + bytes(126))[: 126 + more]))
    assert fault(path) == fault(series) == (str(path), "size")
    edit(path, lambda data: delattr(data, "PixelData"))
    assert fault(series) == (str(path), "pixels")


def test_a_file_that_is_cut_short_is_named(series):
    path = series / NAMES[1]
    whole = path.read_bytes()
    for length in (len(whole) - 9, len(whole) - 140, len(whole) // 2, 140):
        path.write_bytes(whole[:length])
        assert fault(series)[0] == str(path)


@pytest.mark.parametrize(
    ("slope", "intercept", "factor"),
    [(0.1, -3.7, 0.1), (2, -1024, 2), (1e-4, 1e4, 1e-4), (None, None, 1), (None, -5, 1), (0, 7, 1)],
)
@pytest.mark.parametrize("interpretation", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("modality", ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"])  # MR and CT
def test_values_are_rescaled_exactly(series, slope, intercept, factor, interpretation, modality):
    """In double precision, whatever the modality; absent, empty and zero slopes are 1; nothing is inverted."""
    values = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    edit_all(series, **values, PhotometricInterpretation=interpretation, SOPClassUID=modality)
    read = agrees(series, STORED * float(factor) + float(intercept or 0))
    assert len(read.warnings) == (interpretation == "MONOCHROME1") + (slope == 0)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i2"])
def test_numbers_of_any_kind(tmp_path, dtype):
    (tmp_path / "series").mkdir()
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, STORED.shape, endpoint=True).astype(dtype)
    for z in range(SLICES):
        write_slice(tmp_path / "series" / str(z), values[z], place(z), z)
    agrees(tmp_path / "series", values)


@pytest.mark.parametrize("syntax", [LOSSLESS, RLE])
def test_packed_pixels(series, syntax):
    for name in NAMES:
        if syntax == RLE:
            edit(series / name, lambda data: data.compress(syntax, encoding_plugin="pydicom"))
            continue
        # JPEG lossless, by GDCM's own encoder; the geometry is written anew.
        image = sitk.ReadImage(str(series / name))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        packed = series.parent / "packed.dcm"
        writer.SetFileName(str(packed))
        writer.Execute(image)
        coded, whole = pydicom.dcmread(packed), pydicom.dcmread(series / name)
        assert coded.file_meta.TransferSyntaxUID == LOSSLESS
        whole.file_meta.TransferSyntaxUID = LOSSLESS
        for field in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            setattr(whole, field, coded[field].value)
        whole["PixelData"] = coded["PixelData"]
        whole.save_as(series / name)
    agrees(series)


def test_a_single_slice_is_a_volume(series):
    for path in (series / NAMES[0], series):
        read = read_volume(path)
        np.testing.assert_array_equal(read.array[0, :, :, 0], STORED[0].T)
        assert read.spacing_mm == (0.5, 1.5, 3.0)
        for name in NAMES[1:]:
            (series / name).unlink(missing_ok=True)
    edit(series / NAMES[0], SliceThickness=None)
    read = read_volume(series)
    assert (read.spacing_mm[2], len(read.warnings)) == (1.0, 1)


def test_slices_count_together_in_memory(series, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 9 * COLUMNS * ROWS)
    assert fault(series) == (str(series), "memory")


def test_of_slices_and_the_nifti_file_made_of_them_one_is_used(series, caplog, write_nifti):
    made = write_nifti(series / "made.nii.gz", STORED)
    out = series.parent / "out"
    assert [source.paths for source in find_sources(series, out)] == [(made,)]
    assert "the NIfTI files are read" in caplog.messages[0]
    caplog.clear()
    (series.parent / "disc").mkdir()
    nested = series.rename(series.parent / "disc" / "series")
    assert [source.paths for source in find_sources(nested.parent, out)] == [(nested,)]
    assert "made.nii.gz; the slices are read" in caplog.messages[0]


def test_a_list_of_files_and_hidden_files_do_not_count(series):
    data = pydicom.dcmread(series / NAMES[0])
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.1.3.10"
    for name in data.dir("Image", "Pixel", "Series", "Instance"):
        delattr(data, name)
    data.save_as(series / "DICOMDIR")
    (series / "README.txt").write_text("no slice")
    (series / "._slice_0.dcm").write_bytes((series / NAMES[0]).read_bytes())
    agrees(series)
    alone = series.parent / "alone"
    alone.mkdir()
    (series / "DICOMDIR").rename(alone / "DICOMDIR")
    assert not is_series(alone)
