from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.data.geometry import geometry_of_affine, geometry_of_nifti
from seg.data.writing import write_labels, write_maps

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


def test_a_nifti_2_file_stays_one_and_byte_order_does_not_matter(tmp_path):
    source = save(tmp_path / "image.nii", ROTATED, kind=nib.Nifti2Image)
    write_like(source, tmp_path / "labels.nii")
    assert isinstance(nib.load(tmp_path / "labels.nii"), nib.Nifti2Image)
    same_header(source, tmp_path / "labels.nii")
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
        "the unit of length must be mm, got micron; sizes were read as mm, volumes may be wrong.",
    )
    image = nib.load(save(tmp_path / "c.nii", np.eye(4)))
    image.header["srow_x"][0] = 2.5
    image = nib.Nifti1Image.from_bytes(image.header.structarr.tobytes() + bytes(4) + bytes(2 * np.prod(SHAPE)))
    geometry = geometry_of_nifti(image)
    assert geometry.warnings == (
        "voxel sizes of sform and header must agree, got 2.5 x 1 x 1 and 1 x 1 x 1 mm; the qform was used.",
    )
    np.testing.assert_array_equal(geometry.affine, np.eye(4))


def test_maps_are_written_channels_last(tmp_path):
    maps = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    write_maps(tmp_path / "p.nii.gz", maps, geometry_of_affine(SHAPE, ROTATED))
    read = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(read.get_fdata(dtype=np.float32), maps.transpose(1, 2, 3, 0))
    np.testing.assert_allclose(read.affine, ROTATED, atol=1e-6)
    assert sitk.ReadImage(str(tmp_path / "p.nii.gz")).GetSize() == (*SHAPE, 3)


def test_the_volume_of_a_voxel():
    assert geometry_of_affine(SHAPE, ROTATED).voxel_ml == pytest.approx(0.5 * 1.2 * 3.0 / 1000)
