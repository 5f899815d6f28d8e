"""NRRD and MetaImage as SimpleITK reads them, or refused by what their headers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg.data.formats import format_of, read_foreign
from seg.data.images import read_image
from seg.data.text_headers import data_files
from seg.errors import DataError
from tests.data.test_formats import needs

sitk = pytest.importorskip("SimpleITK", reason="reads files with SimpleITK; pip install SimpleITK")

SIZE = (4, 3, 2)
DIRECTIONS = "space directions: (0,0.9,0) (-0.8,0,0) (0,0,2)\nspace origin: (1,2,3)\n"
DOUBT = "; left and right may be swapped."


@pytest.fixture(autouse=True)
def reader() -> None:
    needs("itk")


def write_nrrd(path: Path, fields: str = DIRECTIONS, *, shape: tuple[int, ...] = SIZE, more: bytes = b"") -> Path:
    """Writes voxels 0, 1, 2, ... of 16 bits."""
    sizes = " ".join(map(str, shape))
    head = f"NRRD0004\n# made by hand\ntype: short\ndimension: {len(shape)}\nsizes: {sizes}\nendian: little\n"
    voxels = np.arange(np.prod(shape), dtype="<i2").tobytes()
    path.write_bytes(f"{head}encoding: raw\n{fields}\n".encode() + (more or voxels))
    return path


def agrees(path: Path) -> tuple[str, ...]:
    """Every voxel has the values that SimpleITK finds at its place; gives the doubts."""
    kind = format_of(path)
    assert kind is not None
    read, expected = read_foreign(path, kind), sitk.ReadImage(str(path))
    assert read.array.shape == (expected.GetNumberOfComponentsPerPixel(), *expected.GetSize())
    for index in np.ndindex(read.array.shape[1:]):
        place = read.affine @ [*index, 1]
        there = expected.TransformPhysicalPointToIndex((-place[0], -place[1], place[2]))
        np.testing.assert_array_equal(np.atleast_1d(expected[there]), read.array[(slice(None), *index)])
    return read.warnings


@pytest.mark.parametrize(
    "space",
    ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS"],
)
def test_the_space_of_nrrd_is_heeded(tmp_path: Path, space: str) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", f"space: {space}\n{DIRECTIONS}")
    assert agrees(path) == ()
    # By the definition of the format, beside SimpleITK: the first axis runs along the second one of space, and so on.
    signs = [1 if letter in "RAS" else -1 for letter in (space if len(space) == 3 else space.upper())[:1]]
    signs.append(1 if "anterior" in space or space[1] == "A" else -1)
    affine = read_foreign(path, format_of(path)).affine  # type: ignore[arg-type]
    np.testing.assert_allclose(affine[0], [0, -0.8 * signs[0], 0, signs[0]])
    np.testing.assert_allclose(affine[1], [0.9 * signs[1], 0, 0, 2 * signs[1]])
    np.testing.assert_allclose(affine[2], [0, 0, 2, 3])


@pytest.mark.parametrize(
    ("fields", "doubt"),
    [
        (f"space: scanner-xyz\n{DIRECTIONS}", f"the space must be that of the patient, got scanner-xyz{DOUBT}"),
        ("spacings: 1 2 3\n", f"the file must say how it is oriented, got no space{DOUBT}"),
        ("", f"the file must say how it is oriented, got no space{DOUBT}"),
    ],
)
def test_a_doubtful_space_of_nrrd_is_said(tmp_path: Path, fields: str, doubt: str) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", fields)
    assert agrees(path) == (doubt,)
    assert read_image([path], ("CT",)).geometry.warnings == (doubt,)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["vector", "list"])
def test_channels_of_nrrd_may_be_any_axis(tmp_path: Path, kind: str, first: bool) -> None:
    domains, axes = ["domain"] * 3, ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    place = 0 if first else 3
    domains.insert(place, kind)
    axes.insert(place, "none")
    fields = f"space: LPS\nkinds: {' '.join(domains)}\nspace directions: {' '.join(axes)}\nspace origin: (1,2,3)\n"
    path = write_nrrd(tmp_path / "a.nrrd", fields, shape=(5, *SIZE) if first else (*SIZE, 5))
    assert agrees(path) == ()
    assert read_image([path], tuple("abcde")).array.shape == (5, *SIZE)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_any_type_and_number_of_channels_is_read(tmp_path: Path, ending: str, channels: int, dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 200, (*SIZE, channels)).astype(dtype)
    made = sitk.GetImageFromArray(array if channels > 1 else array[..., 0], isVector=channels > 1)
    made.SetSpacing((1, 2, 3))
    sitk.WriteImage(made, str(tmp_path / f"a{ending}"))
    agrees(tmp_path / f"a{ending}")


def test_volumes_that_follow_one_another_are_channels(tmp_path: Path) -> None:
    one, other = (sitk.GetImageFromArray(np.full(SIZE, value, "int16")) for value in (1, 2))
    sitk.WriteImage(sitk.JoinSeries([one, other]), str(tmp_path / "a.mha"))
    read = read_image([tmp_path / "a.mha"], ("a", "b")).array
    assert [float(channel.min()) for channel in read] == [float(channel.max()) for channel in read] == [1, 2]


def problem(*paths: Path, channels: tuple[str, ...] = ("CT",)) -> str:
    with pytest.raises(DataError) as caught:
        read_image(list(paths), channels)
    return str(caught.value)


def test_a_space_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", f"space: 3D-left-handed\n{DIRECTIONS}")
    assert problem(path) == (
        f"{path}: space must be one of left-posterior-superior, right-anterior-superior, left-anterior-superior, got "
        "'3D-left-handed'; export it in one of these."
    )
    write_nrrd(path, f'space: LPS\nspace units: "mm" "um" "mm"\n{DIRECTIONS}')
    assert problem(path) == f"{path}: space units must be mm, got 'um'; export it in mm."


META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = {}\n"


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".mhd"])
def test_voxels_that_are_missing_are_counted(tmp_path: Path, ending: str) -> None:
    path = told = tmp_path / f"a{ending}"
    if ending == ".nrrd":
        write_nrrd(path, f"space: LPS\n{DIRECTIONS}", more=bytes(47))
    elif ending == ".mha":
        path.write_bytes(META.format("LOCAL").encode() + bytes(47))
    else:
        path.write_text(META.format("a.raw"))
        told = tmp_path / "a.raw"
        told.write_bytes(bytes(47))
    assert problem(path) == (
        f"{told}: file must hold the 48 bytes of 4 x 3 x 2 voxels, got a truncated file with 47 of them; copy or "
        "export it again."
    )
    told.write_bytes(told.read_bytes() + bytes(1))
    assert read_image([path], ("CT",)).array.size == 24


def test_packed_voxels_that_are_missing_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    made = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype("int16"))
    sitk.WriteImage(made, str(path), True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert " of 9 x 9 x 9 voxels, got a truncated file with " in problem(path)
    for damaged in (whole[:-300] + bytes(1) + whole[-299:], whole.replace(b"DimSize = 9 9 9", b"DimSize = 8 9 9")):
        path.write_bytes(damaged)
        assert problem(path).startswith(f"{path}: file is truncated or damaged ('")
    path.write_bytes(whole.replace(b"CompressedDataSize", b"Comment"))
    assert problem(path) == f"{path}: CompressedDataSize must be in the header, got none; export it again."
    path.write_bytes(whole)
    assert agrees(path) == ()


def make(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
def test_voxels_lie_in_the_folder_of_their_header(tmp_path: Path, ending: str) -> None:
    outside = make(tmp_path / "secret.raw", bytes(48))
    path = make(tmp_path / "in" / f"a{ending}", b"")
    inside = make(tmp_path / "in" / "deep" / "a.raw", bytes(48))

    def name(data: str) -> None:
        if ending == ".mhd":
            path.write_text(META.format(data))
        else:
            write_nrrd(path, f"space: LPS\n{DIRECTIONS}data file: {data}\n")

    for data in (str(outside), "../secret.raw"):
        name(data)
        assert problem(path) == (
            f"{path}: voxels must lie in the header's folder, got {data}; put both into one folder and name the file "
            "alone."
        )
    name("none.raw")
    assert problem(path) == f"{path}: the file of its voxels must exist, got no none.raw; copy it beside it."
    name("deep/a.raw")
    assert data_files(path) == (inside,)
    assert read_image([path], ("CT",)).array.size == 24
    name("LIST\n../secret.raw\ndeep/a.raw")
    assert "voxels must lie in the header's folder, got ../secret.raw" in problem(path)


def test_channels_in_files_lie_on_one_grid(tmp_path: Path) -> None:
    paths = [write_nrrd(tmp_path / f"a_000{n}.nrrd", f"space: LPS\n{DIRECTIONS}") for n in range(2)]
    assert read_image(paths, ("a", "b")).array.shape == (2, 3, 4, 2)
    write_nrrd(paths[1], f"space: RAS\n{DIRECTIONS}")
    assert problem(*paths, channels=("a", "b")).startswith(f"{paths[1]}: channel affine differs from image affine by ")
    write_nrrd(paths[1], f"space: LPS\n{DIRECTIONS}", shape=(4, 3, 5))
    assert problem(*paths, channels=("a", "b")) == (
        f"{paths[1]}: channel shape (4, 3, 5) differs from image shape (4, 3, 2); export the channel on the image's "
        "grid."
    )
