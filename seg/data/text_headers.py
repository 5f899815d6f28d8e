"""What the text headers of NRRD and MetaImage say, checked before ITK reads on: space, files of voxels, their size."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from seg.errors import DataError

CHUNK_BYTES = 1 << 20
AUTOMATIC = 47
"""What zlib calls the choice between its own format and that of gzip."""
HEADER_BYTES = 1 << 20
"""Headers are looked for at the beginning of a file, up to here."""
SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS")
"""Spaces of NRRD that ITK turns into its own, by name and by abbreviation."""
SCANNER = ("scanner-xyz",)
"""A space of NRRD that ITK takes for its own."""
MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres")
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    "float": 4,
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
}
META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}


@dataclass(frozen=True, kw_only=True)
class TextHeader:
    """A header of lines.

    Attributes:
        path: The file.
        fields: Values by name in small letters; of a name that comes again, the values in their order.
        begin: Where voxels begin in the file, where they are in it.
    """

    path: Path
    fields: dict[str, list[str]]
    begin: int

    def get(self, name: str) -> str:
        """Returns the last value of a field; empty where there is none."""
        return self.fields.get(name, [""])[-1]


def check_text_header(path: Path) -> tuple[str, ...]:
    """Checks the header of an NRRD or MetaImage file; what cannot be understood is left to who reads on.

    Returns:
        Sentences on what is doubtful about where the volume lies.

    Raises:
        DataError: The space of an NRRD file is none that is known, or not in mm; voxels lie in a file that is missing,
            or outside the folder of the header; or the file is too small for them.
    """
    header, is_nrrd = _read(path), path.name.lower().endswith(".nrrd")
    if is_nrrd and "sizes" not in header.fields:
        return ()
    warnings = tuple(_space_of_nrrd(header)) if is_nrrd else ()
    files = _check_folder(header)
    needed = _announced(header, _bytes_of_nrrd if is_nrrd else _bytes_of_meta)
    if needed and len(files) < 2:
        size = files[0].stat().st_size if files else path.stat().st_size - header.begin
        if needed > size:
            shape = " x ".join((header.get("sizes") or header.get("dimsize")).split())
            raise DataError(
                f"{files[0] if files else path}: file must hold the {needed} bytes of {shape} voxels, got a truncated "
                f"file with {max(0, size)} of them; copy or export it again."
            )
    if not is_nrrd and _is_packed(header) and len(files) < 2:
        _check_packed(header, files[0] if files else path, 0 if files else header.begin)
    return warnings


def _is_packed(header: TextHeader) -> bool:
    return header.get("compresseddata").lower() == "true"


def _check_packed(header: TextHeader, file: Path, begin: int) -> None:
    """Unpacks the voxels of a MetaImage once: where that fails, ITK goes on with whatever is in memory."""
    if not header.get("compresseddatasize"):
        raise DataError(f"{header.path}: CompressedDataSize must be in the header, got none; export it again.")
    unpacker, count = zlib.decompressobj(wbits=AUTOMATIC), 0
    try:
        with file.open("rb") as stream:
            stream.seek(begin)
            while not unpacker.eof and (packed := stream.read(CHUNK_BYTES)):
                while packed and not unpacker.eof:
                    count += len(unpacker.decompress(packed, CHUNK_BYTES))
                    packed = unpacker.unconsumed_tail
        wanted = _announced(header, _voxel_bytes_of_meta)
        if not unpacker.eof or (wanted and count != wanted):
            raise zlib.error(f"{count} bytes of {wanted}")
    except zlib.error as error:
        raise DataError(f"{file}: file is truncated or damaged ('{error}'); copy or export it again.") from error


def data_files(path: Path) -> tuple[Path, ...]:
    """Returns the files beside a header that hold its voxels; none where these are in the same file."""
    with contextlib.suppress(OSError):
        return tuple(path.parent / name for name in _names(_read(path)))
    return ()


def _read(path: Path) -> TextHeader:
    """Reads lines ``name: value`` up to an empty one (NRRD), or ``name = value`` up to ElementDataFile (MetaImage)."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    is_nrrd = path.name.lower().endswith(".nrrd")
    fields: dict[str, list[str]] = {}
    begin = 0
    for raw in content.splitlines(keepends=True):
        begin += len(raw)
        line = raw.decode("latin-1").strip()
        if is_nrrd and not line:
            break
        name, sign, value = line.partition(":" if is_nrrd else "=")
        if sign and not line.startswith("#"):
            name = name.strip().lower().replace("datafile", "data file") if is_nrrd else name.strip().lower()
            fields.setdefault(name, []).append(value.strip())
        elif not sign and fields:
            fields.setdefault("", []).append(line)  # names of files behind LIST
        if not is_nrrd and name == "elementdatafile" and value.strip().upper() != "LIST":
            break
    return TextHeader(path=path, fields=fields, begin=begin)


def _names(header: TextHeader) -> list[str]:
    """Lists the names of files with voxels; a pattern with a number in it stands for its files."""
    values = [*header.fields.get("data file", []), *header.fields.get("elementdatafile", [])]
    found = []
    for value in values:
        if value.upper() == "LOCAL" or not value:
            continue
        if value.split()[0].upper() == "LIST":
            found += [name for name in header.fields.get("", []) if name]
        else:
            found.append(value.split()[0] if "%" in value else value)
    return found


def _check_folder(header: TextHeader) -> list[Path]:
    """Checks that files with voxels lie in the folder of their header, or below it, and are there."""
    folder = header.path.parent.resolve()
    found = []
    for name in _names(header):
        file = header.path.parent / name
        if not file.resolve().is_relative_to(folder):
            raise DataError(
                f"{header.path}: voxels must lie in the header's folder, got {name}; put both into one folder and name "
                "the file alone."
            )
        if "%" not in name and not file.is_file():
            raise DataError(f"{header.path}: the file of its voxels must exist, got no {name}; copy it beside it.")
        found.append(file)
    return [] if any("%" in name for name in _names(header)) else found


def _space_of_nrrd(header: TextHeader) -> Iterator[str]:
    space = header.get("space")
    if not space:
        yield "the file must say how it is oriented, got no space; left and right may be swapped."
    elif space.lower() in SCANNER:
        yield f"the space must be that of the patient, got {space}; left and right may be swapped."
    elif space.lower() not in [known.lower() for known in SPACES]:
        raise DataError(
            f"{header.path}: space must be one of {', '.join(SPACES[:3])}, got '{space}'; export it in one of these."
        )
    for unit in header.get("space units").split('"')[1::2]:
        if unit and unit not in MILLIMETRES:
            raise DataError(f"{header.path}: space units must be mm, got '{unit}'; export it in mm.")


def _announced(header: TextHeader, count: Callable[[TextHeader], int]) -> int:
    """Returns the bytes of all voxels; 0 where the file does not say, or packs them and does not say how well."""
    try:
        return count(header)
    except (ValueError, KeyError):
        return 0


def _bytes_of_nrrd(header: TextHeader) -> int:
    if header.get("encoding").lower() != "raw":
        return 0
    return NRRD_BYTES[header.get("type").lower()] * math.prod(int(size) for size in header.get("sizes").split())


def _bytes_of_meta(header: TextHeader) -> int:
    if header.get("binarydata").lower() == "false":
        return 0
    return int(header.get("compresseddatasize") or 0) if _is_packed(header) else _voxel_bytes_of_meta(header)


def _voxel_bytes_of_meta(header: TextHeader) -> int:
    channels = int(header.get("elementnumberofchannels") or 1)
    edges = [int(size) for size in header.get("dimsize").split()]
    return META_BYTES[header.get("elementtype")] * channels * math.prod(edges)
