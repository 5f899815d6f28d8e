"""Damaged headers of every format: refused by name, or read as what stands in the file; no traceback, death or hang."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.data.formats import worker
from seg.data.volumes import read_volume
from seg.errors import DataError
from tests.data.formats.test_dicom import write_slice

sitk: Any = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
pydicom: Any = pytest.importorskip("pydicom", reason="reads DICOM; pip install pydicom")

MUTANTS = 50
"""Mutants of a file: a sample, as each takes some milliseconds, and much more where the reader dies or hangs."""
ARRAY = np.random.default_rng(0).integers(-500, 500, (5, 7, 9)).astype("<i2")


def write(folder, name):
    path = folder / name
    if name == "a.dcm":
        write_slice(path, ARRAY[0], (1, 2, 3), 0)
    elif name.startswith("second"):
        nib.save(nib.Nifti2Image(ARRAY, np.eye(4), dtype="i2"), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path), name.startswith("packed"))
    return path


def header_bytes(path, content):
    """Returns how many bytes of a file are its header."""
    if path.suffix == ".nii":
        return 540 if path.name.startswith("second") else 348
    if path.suffix == ".dcm":
        return content.index(b"\xe0\x7f\x10\x00") + 12
    end = b"\n\n" if path.suffix == ".nrrd" else b"LOCAL\n"
    return content.index(end) + len(end)


def mutant(random, content, size):
    """Damages a header, now and then the voxels, as disks, transfers and hurried programs do."""
    head, voxels = bytearray(content[:size]), content[size:]
    at = int(random.integers(size))
    match random.integers(8):
        case 0:
            head[at] ^= 1 << int(random.integers(8))
        case 1:
            head[at] = int(random.integers(256))
        case 2:
            head[at : at + 4] = bytes(random.choice([0, 127, 255], 4).astype(np.uint8))
        case 3:
            del head[at : at + int(random.integers(1, 9))]
        case 4:
            digits = [index for index, byte in enumerate(head) if chr(byte).isdigit()]
            if digits:
                head[int(random.choice(digits))] = int(random.choice(list(b"0123456789-e.")))
        case 5:
            lines = head.splitlines(keepends=True)
            line = int(random.integers(len(lines)))
            head = bytearray(b"".join([*lines[: line + 1], lines[line], *lines[line + 1 :]]))
        case 6:
            return content[: int(random.integers(len(content)))]
        case 7:
            damaged = bytearray(voxels)
            damaged[int(random.integers(len(voxels)))] ^= 1 << int(random.integers(8))
            voxels = bytes(damaged)
    return bytes(head) + voxels


def stored(path, content):
    """Returns what the voxels of a file may be a part of: its bytes, and what its packed parts hold."""
    found = [content]
    for start in (at for at in range(len(content) - 1) if content[at : at + 1] in (b"\x78", b"\x1f")):
        unpacker = zlib.decompressobj(wbits=47)
        try:
            found.append(unpacker.decompress(content[start:]) + unpacker.flush())
        except zlib.error:
            continue
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["a.nii", "second.nii", "a.nii.gz", "a.mha", "packed.mha", "a.nrrd", "packed.nrrd", "a.dcm"]
)
def test_a_damaged_file_is_refused_or_holds_its_voxels(tmp_path, monkeypatch, name):
    monkeypatch.setattr(worker, "SECONDS", 1.0)
    path = write(tmp_path, name)
    content = path.read_bytes()
    is_gzip = path.suffix == ".gz"
    plain = gzip.decompress(content) if is_gzip else content
    size = 348 if is_gzip else header_bytes(path, plain)
    random = np.random.default_rng(sum(name.encode()))
    read, named = 0, True
    for _ in range(MUTANTS):
        changed = mutant(random, plain, size)
        path.write_bytes(gzip.compress(changed, mtime=0) if is_gzip else changed)
        try:
            array = read_volume(path).array
        except DataError as error:
            named &= {problem.path for problem in error.problems} == {str(path)}
            continue
        read += 1
        kinds = {array.dtype, np.dtype("i2"), np.dtype("u2")}
        voxels = [
            cast.astype(kind.newbyteorder(order)).transpose(0, 3, 2, 1).tobytes()
            for kind in kinds
            for order in "<>"
            for cast in [array]
        ]
        if path.suffix in (".nii", ".gz"):
            own = nib.load(path)
            np.testing.assert_array_equal(array[0], np.asarray(own.dataobj).reshape(array.shape[1:]))
        else:
            assert any(part in whole for part in voxels for whole in stored(path, changed)), (
                changed[:size],
                array.shape,
                array.dtype,
            )
    assert named
    assert read  # some mutants are as good as the file
