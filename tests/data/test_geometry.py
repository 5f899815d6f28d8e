"""Where files lie, and what is written on their grids: as nibabel and SimpleITK see it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.data.geometry import doubts_of_nifti, geometry_of_affine, geometry_of_nifti, is_invertible, voxel_ml_of
from seg.data.prepare import read_image
from seg.data.volumes import read_header, read_volume, write_labels, write_maps

sitk = pytest.importorskip("SimpleITK", reason="compares with SimpleITK; pip install SimpleITK")

SHAPE = (5, 7, 4)
COS, SIN = np.cos(0.4), np.sin(0.4)
ROTATED = nib.affines.from_matvec(
    np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]]) @ np.diag([0.5, 1.2, 3.0]), [7, -8, 9]
)
LPS = np.diag([-1.0, -1.5, 2.0, 1.0])
PERMUTED = np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1.0]])
AFFINES = [np.diag([0.5, 0.7, 3.0, 1.0]), LPS, PERMUTED, ROTATED, ROTATED @ np.diag([-1.0, 1, -1, 1])]
FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def write_forms(path, sform, qform=None, *, codes=(1, 1), zooms=None, shape=SHAPE, unit="mm"):
    """A file whose forms, codes and voxel sizes are whatever is asked for; nibabel would make them agree."""
    image = nib.Nifti1Image(np.zeros(shape, np.int16), sform)
    header = image.header
    header.set_sform(sform, codes[0])
    header.set_qform(sform if qform is None else qform, codes[1])
    header.set_xyzt_units(unit, "sec")
    if zooms is not None:
        header["pixdim"][1:4] = zooms
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.structarr.tobytes() + bytes(4) + bytes(2 * int(np.prod(shape))))
    return path


def write_like(source, target):
    """Writes labels on the grid of a file; every field that places them is that of the file."""
    array = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    write_labels(target, array, geometry_of_nifti(nib.load(source)))
    one, two = nib.load(source).header, nib.load(target).header
    for name in FIELDS:
        np.testing.assert_array_equal(one[name].astype(two[name].dtype), two[name], err_msg=name)
    np.testing.assert_array_equal(one["pixdim"][:4].astype("f4"), two["pixdim"][:4])
    return array


def itk_affine(path):
    """Where SimpleITK puts a file, in RAS."""
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    return np.diag([-1.0, -1, 1, 1]) @ nib.affines.from_matvec(direction, image.GetOrigin())


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)])
@pytest.mark.parametrize("affine", AFFINES)
def test_other_readers_see_the_geometry_of_the_image(tmp_path, affine, codes):
    source, target = write_forms(tmp_path / "image.nii", affine, codes=codes), tmp_path / "labels.nii.gz"
    array = write_like(source, target)
    np.testing.assert_array_equal(nib.load(target).affine, nib.load(source).affine)
    np.testing.assert_array_equal(np.asarray(nib.load(target).dataobj), array)
    assert nib.load(target).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(itk_affine(target), itk_affine(source))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(target))).transpose(), array)


def test_what_is_written_of_nifti_2_is_read_by_all_wherever_nifti_1_suffices(tmp_path):
    source = tmp_path / "image.nii"
    nib.save(nib.Nifti2Image(np.zeros(SHAPE, np.int16), ROTATED), source)
    array = write_like(source, tmp_path / "labels.nii")
    assert isinstance(nib.load(tmp_path / "labels.nii"), nib.Nifti1Image)
    np.testing.assert_allclose(nib.load(tmp_path / "labels.nii").affine, ROTATED, rtol=1e-6)
    np.testing.assert_allclose(itk_affine(tmp_path / "labels.nii"), ROTATED, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "labels.nii")).transpose(), array)
    long = np.zeros((32768, 1, 1), np.uint8)
    write_labels(tmp_path / "long.nii", long, geometry_of_affine(long.shape, ROTATED))
    assert isinstance(nib.load(tmp_path / "long.nii"), nib.Nifti2Image)
    assert nib.load(tmp_path / "long.nii").shape == long.shape


def test_byte_order_and_forms_that_differ_are_handed_on(tmp_path):
    big = nib.Nifti1Image(np.zeros(SHAPE, ">i2"), ROTATED, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "big.nii")
    write_like(tmp_path / "big.nii", tmp_path / "labels.nii")
    source = write_forms(tmp_path / "image.nii", LPS, np.diag([-1.0, 1.5, 2.0, 1.0]), codes=(2, 1))
    write_like(source, tmp_path / "labels.nii")


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
@pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_mm_whatever_the_unit(tmp_path, unit, per_mm, codes):
    scaled = np.diag([per_mm, per_mm, per_mm, 1.0]) @ ROTATED
    path = write_forms(tmp_path / "a.nii", scaled, codes=codes, unit=unit)
    geometry = geometry_of_nifti(nib.load(path))
    np.testing.assert_allclose(geometry.affine, ROTATED, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(geometry.affine, itk_affine(path), rtol=1e-5, atol=1e-6)
    assert geometry.voxel_ml == pytest.approx(0.5 * 1.2 * 3.0 / 1000)
    np.testing.assert_allclose(read_header(path).spacing_mm, (0.5, 1.2, 3.0), rtol=1e-5)
    assert len(geometry.warnings) == (unit in ("micron", "meter"))
    # The result is on the file's grid by each reader's own understanding, unit included.
    write_like(path, tmp_path / "labels.nii")
    np.testing.assert_allclose(itk_affine(tmp_path / "labels.nii"), itk_affine(path))


CT = np.diag([-0.78125, -0.78125, 1.25, 1.0])
TURNED = nib.affines.from_matvec(ROTATED[:3, :3], [1, 2, 3])
CENTRED = nib.affines.from_matvec(np.diag([-0.5, 1.2, 3]), [1, -3.6, -4.5])  # on voxel (n - 1) / 2
FORMS = {
    "one form in both": (ROTATED, ROTATED, (1, 1), None, ROTATED, True),
    "sform alone": (ROTATED, np.eye(4), (2, 0), (0.5, 1.2, 3), ROTATED, True),
    "qform alone": (np.eye(4), ROTATED, (0, 1), None, ROTATED, True),
    "a void qform beside rounded sizes": (CT, np.eye(4), (2, 0), (0.781, 0.781, 1.25), CT, False),
    "a void qform beside other sizes": (LPS, np.eye(4), (2, 0), (2.5, 1, 1), LPS, False),
    "both forms, and rounded sizes": (CT, CT, (1, 1), (0.781, 0.781, 1.25), CT, True),
    "both forms, turned": (ROTATED, TURNED, (1, 1), None, ROTATED, False),
    "no form": (np.eye(4), ROTATED, (0, 0), (0.5, 1.2, 3), CENTRED, False),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_reader_here_takes_the_form_that_counts(tmp_path, name):
    sform, qform, codes, zooms, expected, itk_agrees = FORMS[name]
    path = write_forms(tmp_path / "a.nii", sform, qform, codes=codes, zooms=zooms)
    np.testing.assert_allclose(nib.load(path).affine, expected, atol=1e-5)
    np.testing.assert_allclose(geometry_of_nifti(nib.load(path)).affine, expected, atol=1e-5)
    if itk_agrees:
        np.testing.assert_allclose(itk_affine(path), expected, atol=1e-3)
    canonical = nib.as_closest_canonical(nib.load(path)).affine
    readings = (read_header(path).oriented(), read_volume(path).oriented(), read_image([path], ("CT",)).grid)
    for reading in readings:
        np.testing.assert_allclose(reading.affine, canonical, atol=1e-6)


def moved(by):
    qform = LPS.copy()
    qform[0, 3] += by
    return qform


@pytest.mark.parametrize(
    ("forms", "told"),
    [
        ({"sform": np.eye(4), "codes": (0, 0)}, "neither sform nor qform"),
        ({"sform": np.eye(4), "unit": "micron"}, "got micron"),
        ({"sform": CT, "zooms": (0.781, 0.781, 1.25), "shape": (512, 512, 2)}, None),
        ({"sform": CT, "zooms": (0.781, 0.781, 1.25), "shape": (512, 512, 2), "codes": (2, 0)}, None),
        ({"sform": CT, "zooms": (0.771234, 0.78125, 1.25), "codes": (2, 0)}, "and 0.771234 x 0.78125 x 1.25 mm"),
        ({"sform": LPS, "qform": moved(0.9)}, None),  # the smallest edge is 1 mm
        ({"sform": LPS, "qform": moved(5.0), "codes": (2, 0)}, None),
        ({"sform": LPS, "qform": moved(1.1)}, "1.1 mm apart"),
    ],
)
def test_what_is_doubtful_is_said(tmp_path, forms, told):
    path = write_forms(tmp_path / "a.nii", **forms)
    doubts = doubts_of_nifti(nib.load(path))
    assert read_header(path).warnings == read_volume(path).warnings == doubts
    assert len(doubts) == (told is not None)
    assert told is None or told in doubts[0]


def test_a_quaternion_that_is_no_rotation_is_said(tmp_path):
    path = write_forms(tmp_path / "a.nii", LPS)
    header = nib.load(path).header.copy()
    header["quatern_b"] = 3
    path.write_bytes(header.structarr.tobytes() + path.read_bytes()[348:])
    (doubt,) = read_header(path).warnings
    assert "must be a rotation" in doubt


def test_maps_are_written_channels_last(tmp_path):
    maps = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    write_maps(tmp_path / "p.nii.gz", maps, geometry_of_affine(SHAPE, ROTATED))
    read = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(read.get_fdata(dtype=np.float32), maps.transpose(1, 2, 3, 0))
    np.testing.assert_allclose(read.affine, ROTATED, atol=1e-6)
    assert sitk.ReadImage(str(tmp_path / "p.nii.gz")).GetSize() == (*SHAPE, 3)


@pytest.mark.parametrize(("sine", "expected"), [(1.0, True), (2e-6, True), (5e-7, False), (0.0, False)])
def test_an_affine_is_invertible_where_its_axes_span_a_volume(sine, expected):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:2, 1] = 3 * np.sqrt(1 - sine**2), 3 * sine
    assert is_invertible(affine) == expected
    affine[2, 2] = np.nan
    assert not is_invertible(affine)


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("shear", [0.0, 0.3, -2.0])
def test_a_shear_does_not_change_the_volume_of_a_voxel(affine: np.ndarray, shear: float) -> None:
    """A parallelepiped has the volume of a box of its base and its height."""
    sheared = affine @ (np.eye(4) + shear * np.diag([1, 1, 0, 0]) @ np.eye(4, k=1))
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    assert voxel_ml_of(sheared) == pytest.approx(np.prod(edges) / 1000, rel=1e-12)
    assert geometry_of_affine(SHAPE, sheared).voxel_ml == voxel_ml_of(sheared)
