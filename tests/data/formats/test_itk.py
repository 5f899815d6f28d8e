"""NRRD and MetaImage as SimpleITK reads them, or refused by what their headers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seg.data import memory
from seg.data.prepare import read_image
from seg.data.volumes import companion_files, format_of, read_header, read_volume
from tests.data.builders import problems_of

sitk = pytest.importorskip("SimpleITK", reason="reads files with SimpleITK; pip install SimpleITK")

SIZE = (4, 3, 2)
DIRECTIONS = "space directions: (0,0.9,0) (-0.8,0,0) (0,0,2)\nspace origin: (1,2,3)\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = {}\n"


def write_nrrd(path, fields=DIRECTIONS, *, shape=SIZE, more=b""):
    """Writes voxels 0, 1, 2, ... of 16 bits."""
    sizes = " ".join(map(str, shape))
    head = f"NRRD0004\n# made by hand\ntype: short\ndimension: {len(shape)}\nsizes: {sizes}\nendian: little\n"
    voxels = np.arange(np.prod(shape), dtype="<i2").tobytes()
    path.write_bytes(f"{head}encoding: raw\n{fields}\n".encode() + (more or voxels))
    return path


def agrees(path):
    """Every voxel has the values that SimpleITK finds at its place; gives the doubts."""
    read, expected = read_volume(path), sitk.ReadImage(str(path))
    assert read.array.shape == (expected.GetNumberOfComponentsPerPixel(), *expected.GetSize())
    assert read.array.dtype == sitk.GetArrayViewFromImage(expected).dtype
    for index in np.ndindex(read.array.shape[1:]):
        place = read.affine @ [*index, 1]
        there = expected.TransformPhysicalPointToIndex((-place[0], -place[1], place[2]))
        np.testing.assert_array_equal(np.atleast_1d(expected[there]), read.array[(slice(None), *index)])
    return read.warnings


def fault(*paths, channels=("CT",)):
    """Which file a refused image is told by, and which rule it breaks."""
    named, kind, _ = problems_of(read_image, list(paths), channels)[0]
    return named, kind


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS"]
)
def test_the_space_of_nrrd_is_heeded(tmp_path, space):
    path = write_nrrd(tmp_path / "a.NRRD", f"space: {space}\n{DIRECTIONS}")
    affine = read_header(path).affine
    # By the definition of the format: the first axis runs along the second one of space, and so on.
    signs = [1 if letter in "RAS" else -1 for letter in (space if len(space) == 3 else space.upper())[:1]]
    signs.append(1 if "anterior" in space or space[1] == "A" else -1)
    np.testing.assert_allclose(affine[0], [0, -0.8 * signs[0], 0, signs[0]])
    np.testing.assert_allclose(affine[1], [0.9 * signs[1], 0, 0, 2 * signs[1]])
    np.testing.assert_allclose(affine[2], [0, 0, 2, 3])
    assert agrees(path.rename(tmp_path / "a.nrrd")) == ()


@pytest.mark.parametrize(
    ("fields", "doubt"),
    [(f"space: scanner-xyz\n{DIRECTIONS}", "got scanner-xyz"), ("spacings: 1 2 3\n", "got no space"), ("", "no space")],
)
def test_a_doubtful_space_of_nrrd_is_said(tmp_path, fields, doubt):
    path = write_nrrd(tmp_path / "a.nrrd", fields)
    (said,) = agrees(path)
    assert doubt in said
    assert read_image([path], ("CT",)).geometry.warnings == (said,)


@pytest.mark.parametrize(
    ("fields", "kind", "value"),
    [
        ("space: 3D-left-handed\n", "space", "'3D-left-handed'"),
        ('space: LPS\nspace units: "mm" "um" "mm"\n', "unit", "'um'"),
    ],
)
def test_a_space_that_is_not_known_is_refused(tmp_path, fields, kind, value):
    path = write_nrrd(tmp_path / "a.nrrd", f"{fields}{DIRECTIONS}")
    assert problems_of(read_image, [path], ("CT",)) == [(str(path), kind, value)]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["vector", "list"])
def test_channels_of_nrrd_may_be_any_axis(tmp_path, kind, first):
    domains, axes = ["domain"] * 3, ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    place = 0 if first else 3
    domains.insert(place, kind)
    axes.insert(place, "none")
    fields = f"space: LPS\nkinds: {' '.join(domains)}\nspace directions: {' '.join(axes)}\nspace origin: (1,2,3)\n"
    path = write_nrrd(tmp_path / "a.nrrd", fields, shape=(5, *SIZE) if first else (*SIZE, 5))
    assert agrees(path) == ()
    assert read_image([path], tuple("abcde")).array.shape == (5, *SIZE)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_any_type_and_number_of_channels_is_read(tmp_path, ending, channels, dtype):
    array = np.random.default_rng(0).integers(0, 120, (*SIZE, channels)).astype(dtype)
    made = sitk.GetImageFromArray(array if channels > 1 else array[..., 0], isVector=channels > 1)
    made.SetSpacing((0.5, 2, 3))
    made.SetOrigin((10.0, -20.0, 30.0))
    made.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    for packed in (False, True):
        sitk.WriteImage(made, str(tmp_path / f"a{ending}"), packed)
        assert agrees(tmp_path / f"a{ending}") == ()
    assert read_image([tmp_path / f"a{ending}"], tuple("abcde"[:channels])).array.dtype == np.float32


def test_volumes_that_follow_one_another_are_channels(tmp_path):
    one, other = (sitk.GetImageFromArray(np.full(SIZE, value, "int16")) for value in (1, 2))
    sitk.WriteImage(sitk.JoinSeries([one, other]), str(tmp_path / "a.mha"))
    read = read_image([tmp_path / "a.mha"], ("a", "b")).array
    assert [float(channel.min()) for channel in read] == [float(channel.max()) for channel in read] == [1, 2]
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 3), "int16")), str(tmp_path / "flat.mha"))
    assert fault(tmp_path / "flat.mha")[1] == "axes"


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".mhd"])
def test_voxels_that_are_missing_are_counted(tmp_path, ending):
    path = told = tmp_path / f"a{ending}"
    if ending == ".nrrd":
        write_nrrd(path, f"space: LPS\n{DIRECTIONS}", more=bytes(47))
    elif ending == ".mha":
        path.write_bytes(META.format("LOCAL").encode() + bytes(47))
    else:
        path.write_text(META.format("a.raw"))
        told = tmp_path / "a.raw"
        told.write_bytes(bytes(47))
    assert fault(path) == (str(told), "truncated")
    told.write_bytes(told.read_bytes() + bytes(1))
    assert read_image([path], ("CT",)).array.size == 24


def test_packed_voxels_that_are_damaged_are_refused(tmp_path):
    path = tmp_path / "a.mha"
    made = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype("int16"))
    sitk.WriteImage(made, str(path), True)
    whole = path.read_bytes()
    damaged = whole[:-300] + bytes(1) + whole[-299:]
    for content in (
        whole[:-100],
        damaged,
        damaged.replace(b"CompressedData = True", b"CompressedData = 1"),
        whole.replace(b"DimSize = 9 9 9", b"DimSize = 8 9 9"),
    ):
        path.write_bytes(content)
        assert fault(path)[1] == "truncated"
    path.write_bytes(whole.replace(b"CompressedDataSize", b"Comment"))
    assert fault(path)[1] == "field"
    path.write_bytes(whole.replace(b"CompressedData = True", b"CompressedData = 1"))
    assert agrees(path) == ()


def test_fields_that_contradict_themselves_are_refused(tmp_path):
    path = tmp_path / "a.mha"
    content = META.format("LOCAL").replace("DimSize = 4 3 2", "DimSize = 4 3 2\nDimSize = 2 3 4").encode()
    path.write_bytes(content + bytes(48))
    assert fault(path)[1] == "field"
    path.write_bytes(content.replace(b"DimSize = 2", b"DimSize: 2") + bytes(48))
    assert fault(path)[1] == "field"
    # 8 bytes a voxel, as of a program whose long is that long; ITK reads 4.
    for kind in ("MET_ULONG", "MET_LONG"):
        head = META.format("LOCAL").replace("MET_SHORT", kind).encode()
        path.write_bytes(head + bytes(24 * 8))
        assert fault(path)[1] == "size"
        path.write_bytes(head + bytes(24 * 4))
        assert agrees(path) == ()


@pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
def test_voxels_lie_in_the_folder_of_their_header(tmp_path, ending):
    outside, path = tmp_path / "secret.raw", tmp_path / "in" / f"a{ending}"
    inside = tmp_path / "in" / "deep" / "a.raw"
    inside.parent.mkdir(parents=True)
    for file in (outside, inside):
        file.write_bytes(bytes(48))
    (tmp_path / "in" / "link.raw").symlink_to(outside)

    def name(data, sign=" = "):
        if ending == ".mhd":
            path.write_text(META.format(data).replace("File = ", f"File{sign}"))
        else:
            write_nrrd(path, f"space: LPS\n{DIRECTIONS}data file: {data}\n")

    for data in (str(outside), "../secret.raw", "link.raw"):
        for sign in (" = ", ": "):
            name(data, sign)
            assert fault(path)[1] == "folder"
    name("none.raw")
    assert fault(path) == (str(path), "missing")
    name("deep/a.raw")
    assert companion_files(path) == (inside,)
    assert read_image([path], ("CT",)).array.size == 24
    name("LIST\n../secret.raw\ndeep/a.raw")
    assert fault(path)[1] == "folder"


def test_channels_in_files_lie_on_one_grid(tmp_path):
    paths = [write_nrrd(tmp_path / f"a_000{n}.nrrd", f"space: LPS\n{DIRECTIONS}") for n in range(2)]
    assert read_image(paths, ("a", "b")).array.shape == (2, 3, 4, 2)
    write_nrrd(paths[1], f"space: RAS\n{DIRECTIONS}")
    assert fault(*paths, channels=("a", "b")) == (str(paths[1]), "grid")
    write_nrrd(paths[1], f"space: LPS\n{DIRECTIONS}", shape=(4, 3, 5))
    assert fault(*paths, channels=("a", "b")) == (str(paths[1]), "grid")


HUGE = {
    ".mha": "ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = {0} {0} {0}\nElementType = MET_SHORT\n"
    "ElementDataFile = LOCAL\n",
    ".nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: {0} {0} {0}\nendian: little\nencoding: gzip\n"
    "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n",
}


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_a_header_that_promises_more_than_there_is_memory_is_refused(tmp_path, monkeypatch, ending):
    path = tmp_path / f"a{ending}"
    path.write_text(HUGE[ending].format(10_000))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 40)
    ((_, kind, value),) = problems_of(read_image, [path], ("CT",))
    assert (kind, value.split(" with")[0]) == ("memory", "6.52e+03 GiB")  # 5 bytes for each voxel, and 2 of the reader
    path.write_text(HUGE[ending].format(10))  # what is missing of a volume that fits is found in reading
    assert fault(path)[1] in ("damaged", "truncated")


def test_content_and_names(tmp_path):
    (tmp_path / "a.nrrd").write_text("no header")
    assert fault(tmp_path / "a.nrrd") == (str(tmp_path / "a.nrrd"), "damaged")
    kinds: list[Any] = [format_of(tmp_path / name) for name in ("a.NRRD", "a.mha", "a.nii.gz")]
    assert [kind.name for kind in kinds] == ["NRRD", "MetaImage", "NIfTI"]
    assert format_of(tmp_path) is format_of(tmp_path / "a.txt") is None
