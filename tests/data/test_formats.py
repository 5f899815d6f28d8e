from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from seg.data import memory
from seg.data.formats import DICOM, DISTRIBUTIONS, FORMATS, META, NRRD, format_of
from seg.data.images import read_image
from seg.errors import DataError

sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")

ROOT = Path(__file__).parents[2]
SHAPE = (9, 7, 5)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def image():
    """An image of SimpleITK, and its voxels (X, Y, Z)."""
    array = np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.int16)
    made = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    made.SetSpacing((0.5, 1.5, 3.0))
    made.SetOrigin((10.0, -20.0, 30.0))
    made.SetDirection(DIRECTION)
    return made, array


def needs(*packages):
    if missing := [package for package in packages if not importlib.util.find_spec(package)]:
        pytest.skip(f"needs {' and '.join(missing)}; pip install '.[formats]'")


def only(monkeypatch, *packages):
    """Hides the readers that are not of these packages."""
    needs(*packages)
    find = importlib.util.find_spec
    hidden = {package for kind in FORMATS for package in kind.packages} - set(packages)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))


def test_the_environment_of_tests_has_every_reader_at_its_exact_version():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    readers = {re.split("[>=]", line)[0] for line in extras["formats"]}
    assert readers == {DISTRIBUTIONS.get(package, package) for kind in FORMATS for package in kind.packages}
    assert set(extras["formats"]) <= set(extras["dev"])
    assert readers <= set(re.findall(r"^([\w-]+)==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def check(path):
    """Voxel values lie where SimpleITK puts them in space; ITK counts in LPS."""
    made, array = image()
    read = read_image([path], ("CT",))
    for index in ((0, 0, 0), (8, 6, 4), (3, 5, 1)):
        lps = np.array(made.TransformIndexToPhysicalPoint(index))
        place = np.linalg.solve(read.affine, [-lps[0], -lps[1], lps[2], 1])[:3]
        assert read.array[(0, *np.rint(place).astype(int))] == array[index]
        own = np.linalg.solve(read.geometry.affine, [-lps[0], -lps[1], lps[2], 1])[:3]
        assert (np.rint(own) >= 0).all()
        assert (np.rint(own) < read.geometry.shape).all()
    assert (np.diag(read.affine)[:3] > 0).all()  # axes are RAS


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_nrrd_and_meta_image(tmp_path, ending):
    needs("itk")
    sitk.WriteImage(image()[0], str(tmp_path / f"a{ending}"))
    check(tmp_path / f"a{ending}")


def write_series(folder, series="1.2.3.4"):
    folder.mkdir()
    made, _ = image()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    common = {"0020|000e": series, "0008|0060": "MR", "0020|0037": "0\\1\\0\\-1\\0\\0", "0018|0050": "3.0"}
    for z in range(SHAPE[2]):
        part = made[:, :, z]
        origin = made.TransformIndexToPhysicalPoint((0, 0, z))
        tags = {
            **common,
            "0020|0032": "\\".join(map(str, origin)),
            "0020|0013": str(z),
            "0008|0018": f"1.2.3.4.{z + 1}",
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"slice_{(z * 3) % 5}.dcm"))
        writer.Execute(part)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["pydicom", "itk"])
def test_a_series_of_dicom_slices(tmp_path, monkeypatch, package):
    only(monkeypatch, package)
    folder = write_series(tmp_path / "series")
    assert format_of(folder) is DICOM
    check(folder)


def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch):
    only(monkeypatch)
    (tmp_path / "a.nrrd").write_text("NRRD0004\n")
    assert problem(tmp_path / "a.nrrd") == (
        f"{tmp_path / 'a.nrrd'}: a package that reads NRRD must be installed, got none; pip install itk-io, or "
        "convert the file to NIfTI."
    )


def test_a_grid_that_cannot_be_is_named(tmp_path):
    needs("pydicom")
    pydicom = importlib.import_module("pydicom")
    path = write_series(tmp_path / "series")
    for slice_path in path.iterdir():
        file = pydicom.dcmread(slice_path)
        file.PixelSpacing = [0, 1]
        file.save_as(slice_path)
    assert problem(path).startswith(f"{path}: affine must be invertible, got [[")


HUGE = {
    ".mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {0} {0} {0}\nElementType = MET_SHORT\n"
    "ElementDataFile = LOCAL\n",
    ".nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: {0} {0} {0}\nendian: little\nencoding: raw\n"
    "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n",
}


def problem(path):
    with pytest.raises(DataError) as caught:
        read_image([path], ("CT",))
    return str(caught.value)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_a_header_that_promises_more_than_there_is_memory_is_refused(tmp_path, monkeypatch, ending):
    needs("itk")
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 40)
    path = tmp_path / f"a{ending}"
    packed = {".mha": ("BinaryData = True", "BinaryData = False"), ".nrrd": ("raw", "gzip")}[ending]
    path.write_text(HUGE[ending].format(10_000).replace(*packed))
    assert problem(path) == (  # 8 bytes for each of 1e12 voxels
        f"{path}: volume of shape (10000, 10000, 10000) must fit in memory, got 7.45e+03 GiB with 1.02e+03 GiB "
        "available; crop the volume or take a machine with more."
    )
    # A header alone, of a volume that fits: what is missing is found in reading.
    path.write_text(HUGE[ending].format(10).replace(*packed))
    assert problem(path).startswith(f"{path}: must be a readable ")


@pytest.mark.parametrize(("package", "size"), [("pydicom", "9.05e+03"), ("itk", "2.41e+03")])
def test_dicom_that_promises_more_than_there_is_memory_is_refused(tmp_path, monkeypatch, package, size):
    needs("pydicom")
    pydicom = importlib.import_module("pydicom")
    only(monkeypatch, package)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 40)
    path = write_series(tmp_path / "series") / "slice_0.dcm"
    file = pydicom.dcmread(path)
    file.Rows = file.Columns = 60_000
    file.NumberOfFrames = 90
    file.save_as(path)
    assert problem(path).startswith(f"{path}: volume of shape (60000, 60000, 90) must fit in memory, got {size} GiB")


@pytest.mark.parametrize("package", ["pydicom", "itk"])
def test_slices_count_together_and_are_of_one_series(tmp_path, monkeypatch, package):
    only(monkeypatch, package)
    folder = write_series(tmp_path / "series")
    monkeypatch.setattr(memory, "available_bytes", lambda: 6 * 9 * 7)
    assert problem(folder).startswith(f"{folder / 'slice_0.dcm'}: volume of shape (9, 7")
    assert " and 4 more must fit in memory, got " in problem(folder)
    other = write_series(tmp_path / "other", series="1.2.3.5") / "slice_0.dcm"
    other.rename(folder / "z.dcm")
    assert problem(folder) == (
        f"{folder}: slices must be of one DICOM series, got 2: 1.2.3.4, 1.2.3.5; give each series a folder of its own."
    )


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    needs("itk")
    (tmp_path / "a.nrrd").write_text("no header")
    assert problem(tmp_path / "a.nrrd").startswith(f"{tmp_path / 'a.nrrd'}: must be a readable NRRD image, got '")


def test_kinds_are_known_by_ending(tmp_path):
    assert format_of(tmp_path / "a.NRRD") is NRRD
    assert format_of(tmp_path / "a.mha") is META
    assert format_of(tmp_path / "a.nii.gz") is None
    assert format_of(tmp_path) is None
