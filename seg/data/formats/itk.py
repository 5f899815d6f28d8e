"""NRRD and MetaImage by SimpleITK, with checks of what it takes at its word or reads as garbage."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seg.data.formats.base import Block, Format, Header, OpenVolume, fault, header_of_affine
from seg.files import real_path
from seg.words import dimensions

CHUNK_BYTES = 1 << 20
AUTOMATIC = 47
"""What zlib calls the choice between its own format and that of gzip."""
HEADER_BYTES = 1 << 20
"""Headers are looked for at the beginning of a file, up to here."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK counts from right to left and from front to back."""
SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
"""Spaces of NRRD that ITK turns into its own, by name and by abbreviation."""
SCANNER = "scanner-xyz"
"""A space of NRRD that ITK takes for its own."""
MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres")
DOUBT = "left and right may be swapped."
DTYPES = {
    **{f"{name}Int{bits}": f"{kind}{bits // 8}" for name, kind in (("U", "u"), ("", "i")) for bits in (8, 16, 32, 64)},
    "Float32": "f4",
    "Float64": "f8",
}
AXES_RULE = "must have 3 axes, and channels beside them"
GZIP_WORDS = ("gzip", "gz")
UNSURE = ("MET_LONG", "MET_ULONG")
"""Types of 4 bytes a voxel for ITK, and of 8 for programs that take them for the machine's."""


@dataclass(frozen=True, kw_only=True)
class TextHeader:
    """The lines of a header.

    Attributes:
        fields: Values by name, of NRRD in small letters; of a name that comes again, the values in their order.
        begin: Where voxels begin in the file that holds them; 0 in a file of their own.
        files: Files that hold the voxels; empty where the header's own does.
        is_pattern: Whether the name of the files has a number for a placeholder.
        is_plain: Whether the lines have no control characters.
    """

    path: Path
    fields: dict[str, list[str]]
    begin: int
    files: tuple[Path, ...] = ()
    is_pattern: bool = False
    is_plain: bool = True

    @property
    def is_nrrd(self) -> bool:
        """Whether the header is of NRRD; else it is of MetaImage."""
        return self.path.name.lower().endswith(NRRD.endings)

    @property
    def voxels_file(self) -> Path:
        """The file that holds the voxels, or the first of several."""
        return self.files[0] if self.files else self.path

    @property
    def skips(self) -> bool:
        """Whether the voxels of an NRRD file begin behind something else."""
        return any(name.replace(" ", "") in ("lineskip", "byteskip") for name in self.fields)

    def get(self, name: str) -> str:
        """Returns the last value of a field; empty where there is none."""
        return self.fields.get(name, [""])[-1]


def read_text_header(path: Path) -> TextHeader:
    """Reads lines ``name: value`` up to an empty one (NRRD), or ``name = value`` up to ElementDataFile (MetaImage)."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    is_nrrd = path.name.lower().endswith(NRRD.endings)
    fields: dict[str, list[str]] = {}
    names: list[str] = []
    begin, is_plain = 0, True
    for raw in content.splitlines(keepends=True):
        begin += len(raw)
        line = raw.decode("latin-1").strip()
        is_plain &= not any(character < " " and character != "\t" for character in line)
        if is_nrrd and not line:
            break
        name, *rest = re.split(r":" if is_nrrd else r"[=:]", line, maxsplit=1)
        name = name.strip().lower().replace("datafile", "data file") if is_nrrd else name.strip()
        if rest and not line.startswith("#"):
            fields.setdefault(name, []).append(rest[0].strip())
        elif not rest and fields:
            names.append(line)  # behind LIST
        if not is_nrrd and rest and name == "ElementDataFile" and rest[0].strip().upper() != "LIST":
            break
    values = [*fields.get("data file", []), *fields.get("ElementDataFile", [])]
    values = [value for value in values if value and value.upper() != "LOCAL"]
    listed = any(value.split()[0].upper() == "LIST" for value in values)
    is_pattern = any("%" in value for value in values)
    files = [name for name in names if name] if listed else [v.split()[0] if "%" in v else v for v in values]
    return TextHeader(
        path=path,
        fields=fields,
        begin=0 if files else begin,
        files=tuple(path.parent / name for name in files),
        is_pattern=is_pattern,
        is_plain=is_plain,
    )


def companions(path: Path) -> tuple[Path, ...]:
    """Returns the files beside a header that hold its voxels; none where these are in the same file."""
    with contextlib.suppress(OSError):
        return read_text_header(path).files if path.is_file() else ()  # reading a pipe would wait for ever
    return ()


@contextmanager
def open_itk(path: Path) -> Iterator[OpenVolume]:
    """Opens a file, which is refused where it contradicts itself, holds no volume or lies elsewhere.

    Raises:
        DataError: It does.
        RuntimeError: ITK cannot read the file.
    """
    import SimpleITK

    sitk: Any = SimpleITK
    text = read_text_header(path)
    warnings = tuple(_space_of_nrrd(text)) if text.is_nrrd else ()
    _check_fields(text)
    _check_folder(text)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if text.is_nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    sizes, parts = reader.GetSize(), reader.GetNumberOfComponents()
    if len(sizes) not in (3, 4) or (len(sizes) == 4 and parts > 1):
        shape = (*sizes, parts) if parts > 1 else sizes
        raise fault(path, "axes", AXES_RULE, f"shape {shape}", "export volumes")
    x, y, z, volumes = (*sizes, 1)[:4]
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (len(sizes), len(sizes)))[:3, :3]
    affine[:3, :3] = direction * np.asarray(reader.GetSpacing())[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    dtype = _dtype(sitk, path, reader.GetPixelID())
    header = header_of_affine(path, (x, y, z), parts * volumes, dtype, LPS_TO_RAS @ affine, warnings)
    _check_size(text, header)

    def blocks() -> Iterator[Block]:
        _check_packed(text, header)
        image = reader.Execute()
        # Axes of numpy are those of ITK in reverse: channels of a vector come last, further volumes first.
        array = sitk.GetArrayViewFromImage(image)
        array = np.moveaxis(array, -1, 0) if parts > 1 else array.reshape(volumes, z, y, x)
        yield Block(channel=0, z=0, array=array.transpose(0, 3, 2, 1))

    yield OpenVolume(path=path, header=header, blocks=blocks)


def _dtype(sitk: Any, path: Path, number: int) -> np.dtype[Any]:
    for name, dtype in DTYPES.items():
        if number in (getattr(sitk, f"sitk{name}"), getattr(sitk, f"sitkVector{name}")):
            return np.dtype(dtype)
    kind = sitk.GetPixelIDValueAsString(number)
    raise fault(path, "dtype", "must hold real numbers", kind, "export one number per voxel")


def _space_of_nrrd(text: TextHeader) -> Iterator[str]:
    """Gives what is doubtful about the space of a file; refuses one that ITK does not know, or that is not in mm."""
    space = text.get("space")
    if not space:
        yield f"the file must say how it is oriented, got no space; {DOUBT}"
    elif space.lower() == SCANNER:
        yield f"the space must be that of the patient, got {space}; {DOUBT}"
    elif space.lower() not in SPACES:
        rule, value = f"must lie in one of the spaces {', '.join(SPACES[:3])}", f"'{space}'"
        raise fault(text.path, "space", rule, value, "export it in one of these")
    for unit in text.get("space units").split('"')[1::2]:
        if unit and unit not in MILLIMETRES:
            raise fault(text.path, "unit", "must have space units of mm", f"'{unit}'", "export it in mm")


def _check_fields(text: TextHeader) -> None:
    """Refuses a number of axes that no volume has, fields given twice, and characters that end a word for ITK alone.

    ITK hangs or dies at absurd numbers of axes. Of two sizes it takes one for its memory and another for the voxels.
    """
    axes = text.fields.get("dimension" if text.is_nrrd else "NDims", ["3"])[-1]
    if axes not in ("3", "4"):
        raise fault(text.path, "axes", AXES_RULE, f"'{axes}' axes", "export volumes")
    if not text.is_plain:
        raise fault(text.path, "damaged", "must be a header of text", "control characters", "copy or export it again")
    for name, values in text.fields.items():
        if not text.is_nrrd and len(values) > 1:
            raise fault(text.path, "field", f"must give {name} once", f"{len(values)} of them")


def _check_folder(text: TextHeader) -> None:
    """Checks that files with voxels lie in the folder of their header, or below it, and are there."""
    folder = real_path(text.path.parent)
    for file in text.files:
        name = str(file.relative_to(text.path.parent)) if file.is_relative_to(text.path.parent) else str(file)
        if not real_path(file).is_relative_to(folder):
            rule, remedy = "must have its voxels in its own folder", "put both into one folder and name the file alone"
            raise fault(text.path, "folder", rule, name, remedy)
        if not text.is_pattern and not file.is_file():
            remedy = "copy it beside it"
            raise fault(text.path, "missing", "must have the file of its voxels beside it", f"no {name}", remedy)


def _is_packed(text: TextHeader) -> bool:
    """Says whether the voxels of a MetaImage are packed, in the words that ITK takes for yes."""
    return not text.is_nrrd and text.get("CompressedData")[:1] in ("T", "t", "1")


def _check_size(text: TextHeader, header: Header) -> None:
    """Compares the size of the one file that holds the voxels with what the header announces."""
    if len(text.files) > 1 or text.is_pattern:
        if _is_packed(text):
            raise fault(text.path, "packed", "must have its packed voxels in one file", "several", "write it unpacked")
        return
    if text.is_nrrd:
        needed = header.voxels_bytes if text.get("encoding").lower() == "raw" else 0
    elif text.get("BinaryData")[:1] in ("F", "f", "0"):
        needed = 0
    elif _is_packed(text):
        if not text.get("CompressedDataSize").isdecimal():
            raise fault(text.path, "field", "must give CompressedDataSize", "none")
        needed = int(text.get("CompressedDataSize"))
    else:
        needed = header.voxels_bytes
    got = max(0, text.voxels_file.stat().st_size - text.begin)
    shape = dimensions(header.shape)
    if needed > got:
        rule, value = f"must hold the {needed} bytes of {shape} voxels", f"a truncated file with {got} of them"
        raise fault(text.voxels_file, "truncated", rule, value, "copy or export it again")
    if text.get("ElementType") in UNSURE and not _is_packed(text) and got != needed:
        rule = f"must hold the {needed} bytes of {shape} voxels of {text.get('ElementType')}, 4 bytes each"
        remedy = "export it as MET_INT, MET_LONG_LONG or their unsigned kind"
        raise fault(text.voxels_file, "size", rule, str(got), remedy)


def _check_packed(text: TextHeader, header: Header) -> None:
    """Unpacks packed voxels once: where that fails, ITK goes on with whatever is in memory.

    Of NRRD, fields that skip a part of the file leave the check to ITK, which counts the bytes.
    """
    if _is_packed(text):
        left = int(text.get("CompressedDataSize"))
    elif text.is_nrrd and text.get("encoding").lower() in GZIP_WORDS and len(text.files) < 2 and not text.skips:
        left = text.voxels_file.stat().st_size - text.begin
    else:
        return
    unpacker, count = zlib.decompressobj(wbits=AUTOMATIC), 0
    try:
        with text.voxels_file.open("rb") as stream:
            stream.seek(text.begin)
            while not unpacker.eof and (packed := stream.read(min(left, CHUNK_BYTES))):
                left -= len(packed)
                while packed and not unpacker.eof:
                    count += len(unpacker.decompress(packed, CHUNK_BYTES))
                    packed = unpacker.unconsumed_tail
        if not unpacker.eof or count != header.voxels_bytes:
            raise zlib.error(f"{count} bytes of {header.voxels_bytes}")
    except zlib.error as error:
        rule = f"is truncated or damaged ('{error}')"
        raise fault(text.voxels_file, "truncated", rule, remedy="copy or export it again") from error


PACKAGES = ("SimpleITK",)
NRRD = Format(name="NRRD", open=open_itk, endings=(".nrrd",), packages=PACKAGES, companions=companions)
META = Format(name="MetaImage", open=open_itk, endings=(".mha", ".mhd"), packages=PACKAGES, companions=companions)
