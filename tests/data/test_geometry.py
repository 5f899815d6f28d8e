from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.data.geometry import doubts_of_nifti, geometry_of_affine, geometry_of_nifti
from seg.data.prepare import read_image
from seg.data.volumes import read_header, read_volume, write_labels, write_maps

sitk = pytest.importorskip("SimpleITK", reason="compares with SimpleITK; pip install SimpleITK")

SHAPE = (5, 7, 4)
COS, SIN = np.cos(0.4), np.sin(0.4)
ROTATED = nib.affines.from_matvec(
    np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]]) @ np.diag([0.5, 1.2, 3.0]), [7, -8, 9]
)
AFFINES = {
    "identity": np.eye(4),
    "anisotropic": np.diag([0.5, 0.7, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -1.5, 2.0, 1.0]),
    "permuted": np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1.0]]),
    "rotated": ROTATED,
    "rotated and flipped": ROTATED @ np.diag([-1.0, 1, -1, 1]),
}
FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def save(path, affine, codes=(1, 1), qform=None, units=("mm", "sec"), kind=nib.Nifti1Image):
    image = kind(np.zeros(SHAPE, np.int16), affine)
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine if qform is None else qform, code=codes[1])
    image.header.set_xyzt_units(*units)
    nib.save(image, path)
    return path


def write_like(source, target):
    array = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    write_labels(target, array, geometry_of_nifti(nib.load(source)))
    return array


def same_header(one, two):
    for name in FIELDS:
        np.testing.assert_array_equal(nib.load(one).header[name], nib.load(two).header[name], err_msg=name)
    np.testing.assert_array_equal(nib.load(one).header["pixdim"][:4], nib.load(two).header["pixdim"][:4])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)])
@pytest.mark.parametrize("name", AFFINES)
def test_other_readers_see_the_geometry_of_the_image(tmp_path, name, codes, ending):
    source = save(tmp_path / f"image{ending}", AFFINES[name], codes)
    target = tmp_path / f"labels{ending}"
    array = write_like(source, target)
    same_header(source, target)
    np.testing.assert_array_equal(nib.load(target).affine, nib.load(source).affine)
    np.testing.assert_array_equal(np.asarray(nib.load(target).dataobj), array)
    assert nib.load(target).get_data_dtype() == np.uint8
    one, two = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
    assert two.GetSize() == one.GetSize()
    assert two.GetSpacing() == one.GetSpacing()
    assert two.GetOrigin() == one.GetOrigin()
    assert two.GetDirection() == one.GetDirection()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(two).transpose(), array)


def test_forms_that_differ_are_both_handed_on(tmp_path):
    source = save(tmp_path / "image.nii.gz", AFFINES["LPS"], (2, 1), qform=np.diag([-1.0, 1.5, 2.0, 1.0]))
    write_like(source, tmp_path / "labels.nii.gz")
    same_header(source, tmp_path / "labels.nii.gz")
    assert not np.array_equal(nib.load(source).get_qform(), nib.load(source).get_sform())


def test_what_is_written_of_nifti_2_is_read_by_all_wherever_nifti_1_suffices(tmp_path):
    source = save(tmp_path / "image.nii", ROTATED, kind=nib.Nifti2Image)
    array = write_like(source, tmp_path / "labels.nii")
    assert isinstance(nib.load(tmp_path / "labels.nii"), nib.Nifti1Image)
    np.testing.assert_allclose(nib.load(tmp_path / "labels.nii").affine, ROTATED, rtol=1e-6)
    np.testing.assert_allclose(itk_affine(tmp_path / "labels.nii"), ROTATED, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "labels.nii")).transpose(), array)
    long = np.zeros((32768, 1, 1), np.uint8)
    write_labels(tmp_path / "long.nii", long, geometry_of_affine(long.shape, ROTATED))
    assert isinstance(nib.load(tmp_path / "long.nii"), nib.Nifti2Image)
    assert nib.load(tmp_path / "long.nii").shape == long.shape


def test_byte_order_does_not_matter(tmp_path):
    big = nib.Nifti1Image(np.zeros(SHAPE, ">i2"), ROTATED, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "big.nii")
    write_like(tmp_path / "big.nii", tmp_path / "labels.nii")
    same_header(tmp_path / "big.nii", tmp_path / "labels.nii")


def test_what_is_doubtful_is_said(tmp_path):
    source = save(tmp_path / "a.nii", np.eye(4), (0, 0))
    assert geometry_of_nifti(nib.load(source)).warnings == (
        "the file must say how it is oriented, got neither sform nor qform; left and right may be swapped.",
    )
    source = save(tmp_path / "b.nii", np.eye(4), units=("micron", "sec"))
    assert geometry_of_nifti(nib.load(source)).warnings == (
        "the unit of length must be mm, got micron; sizes were turned into mm.",
    )


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
@pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_mm_whatever_the_unit(tmp_path, unit, per_mm, codes):
    scaled = np.diag([per_mm, per_mm, per_mm, 1.0]) @ ROTATED
    path = save(tmp_path / "a.nii", scaled, codes, units=(unit, "sec"))
    geometry = geometry_of_nifti(nib.load(path))
    np.testing.assert_allclose(geometry.affine, ROTATED, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(geometry.affine, itk_affine(path), rtol=1e-5, atol=1e-6)
    assert geometry.voxel_ml == pytest.approx(0.5 * 1.2 * 3.0 / 1000)
    np.testing.assert_allclose(read_header(path).spacing_mm, (0.5, 1.2, 3.0), rtol=1e-5)
    assert [text for text in geometry.warnings if "must be mm" not in text] == []
    # The result is on the file's grid by each reader's own understanding, unit included.
    write_like(path, tmp_path / "labels.nii")
    same_header(path, tmp_path / "labels.nii")
    np.testing.assert_allclose(itk_affine(tmp_path / "labels.nii"), itk_affine(path))
    np.testing.assert_allclose(read_image([path], ("CT",)).grid.affine, read_header(path).oriented().affine, atol=1e-6)


def write_forms(path, sform, qform, *, codes, zooms=None, shape=SHAPE):
    """A file whose forms, codes and voxel sizes are whatever is asked for; nibabel would make them agree."""
    image = nib.Nifti1Image(np.zeros(shape, np.int16), sform)
    header = image.header
    header.set_sform(sform, codes[0])
    header.set_qform(qform, codes[1])
    if zooms is not None:
        header["pixdim"][1:4] = zooms
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.structarr.tobytes() + bytes(4) + image.get_fdata().astype("<i2").tobytes(order="F"))
    return path


def itk_affine(path):
    """Where SimpleITK puts a file, in RAS."""
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    return np.diag([-1.0, -1, 1, 1]) @ nib.affines.from_matvec(direction, image.GetOrigin())


LPS = AFFINES["LPS"]
CT = np.diag([-0.78125, -0.78125, 1.25, 1.0])
TURNED = nib.affines.from_matvec(ROTATED[:3, :3], [1, 2, 3])
FORMS = {
    "one form in both": (ROTATED, ROTATED, (1, 1), None, "s", True),
    "sform alone": (ROTATED, np.eye(4), (2, 0), (0.5, 1.2, 3), "s", True),
    "qform alone": (np.eye(4), ROTATED, (0, 1), None, "q", True),
    "a void qform beside rounded sizes": (CT, np.eye(4), (2, 0), (0.781, 0.781, 1.25), "s", False),
    "a void qform beside other sizes": (LPS, np.eye(4), (2, 0), (2.5, 1, 1), "s", False),
    "both forms, and rounded sizes": (CT, CT, (1, 1), (0.781, 0.781, 1.25), "s", True),
    "both forms, turned": (ROTATED, TURNED, (1, 1), None, "s", False),
    "no form": (np.eye(4), ROTATED, (0, 0), (0.5, 1.2, 3), "b", False),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_reader_here_takes_the_form_that_counts(tmp_path, name):
    sform, qform, codes, zooms, counts, itk_agrees = FORMS[name]
    path = write_forms(tmp_path / "a.nii", sform, qform, codes=codes, zooms=zooms)
    expected = {"s": sform, "q": qform}.get(counts)
    if counts == "b":
        expected = nib.affines.from_matvec(np.diag([-0.5, 1.2, 3]), [1, -3.6, -4.5])  # centred on voxel (n - 1) / 2
    np.testing.assert_allclose(nib.load(path).affine, expected, atol=1e-5)
    np.testing.assert_allclose(geometry_of_nifti(nib.load(path)).affine, expected, atol=1e-5)
    if itk_agrees:
        np.testing.assert_allclose(itk_affine(path), expected, atol=1e-3)
    canonical = nib.as_closest_canonical(nib.load(path)).affine
    for affine in (
        read_header(path).oriented().affine,
        read_volume(path).oriented().affine,
        read_image([path], ("CT",)).grid.affine,
    ):
        np.testing.assert_allclose(affine, canonical, atol=1e-6)


def doubts(path, shape=SHAPE, **forms):
    image = nib.load(write_forms(path, **forms, shape=shape))
    assert read_header(path).warnings == read_volume(path).warnings == doubts_of_nifti(image)
    return doubts_of_nifti(image)


@pytest.mark.parametrize("codes", [(1, 1), (2, 0)])
def test_rounded_voxel_sizes_are_no_contradiction(tmp_path, codes):
    rounded = {"zooms": (0.781, 0.781, 1.25), "shape": (512, 512, 2)}
    assert doubts(tmp_path / "a.nii", sform=CT, qform=CT, codes=codes, **rounded) == ()


@pytest.mark.parametrize("codes", [(1, 1), (2, 0)])
def test_other_voxel_sizes_are_said_with_all_their_digits(tmp_path, codes):
    assert doubts(tmp_path / "a.nii", sform=CT, qform=CT, codes=codes, zooms=(0.771234, 0.78125, 1.25)) == (
        "voxel sizes of sform and header must agree, got 0.78125 x 0.78125 x 1.25 and 0.771234 x 0.78125 x 1.25 mm; "
        "the sform was used.",
    )


def test_forms_that_contradict_one_another_are_said_where_both_are_meant(tmp_path):
    def shifted(by, codes=(1, 1)):
        qform = LPS.copy()
        qform[0, 3] += by
        return doubts(tmp_path / "a.nii", sform=LPS, qform=qform, codes=codes)

    assert shifted(0.9) == shifted(5.0, (2, 0)) == ()  # the smallest edge is 1 mm
    assert shifted(1.1) == (
        "sform and qform must agree, got forms that put a corner of the volume 1.1 mm apart; the sform was used, other "
        "programs may use the qform.",
    )


def test_a_quaternion_that_is_no_rotation_is_said(tmp_path):
    path = write_forms(tmp_path / "a.nii", LPS, LPS, codes=(1, 1))
    header = nib.load(path).header.copy()
    header["quatern_b"] = 3
    path.write_bytes(header.structarr.tobytes() + path.read_bytes()[348:])
    assert read_header(path).warnings == ("the qform must be a rotation, got none; the sform was used.",)


def test_maps_are_written_channels_last(tmp_path):
    maps = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    write_maps(tmp_path / "p.nii.gz", maps, geometry_of_affine(SHAPE, ROTATED))
    read = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(read.get_fdata(dtype=np.float32), maps.transpose(1, 2, 3, 0))
    np.testing.assert_allclose(read.affine, ROTATED, atol=1e-6)
    assert sitk.ReadImage(str(tmp_path / "p.nii.gz")).GetSize() == (*SHAPE, 3)


def test_the_volume_of_a_voxel():
    assert geometry_of_affine(SHAPE, ROTATED).voxel_ml == pytest.approx(0.5 * 1.2 * 3.0 / 1000)
