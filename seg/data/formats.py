"""Images that are no NIfTI: NRRD, MetaImage and DICOM series, by the packages that read them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.data.dicom import by_position, distances
from seg.data.endings import NIFTI_ENDINGS
from seg.data.foreign_headers import check_announced
from seg.data.itk_images import read_itk
from seg.data.text_headers import check_text_header
from seg.errors import DataError

DECODER_LOG = "monai.data.nvimgcodec_pydicom_plugin"
"""Logger that warns whenever a loader of MONAI is made where one of several decoders of DICOM is not installed."""
DICOM_MARK = b"DICM"
DICOM_OFFSET = 128
DIRECTORY = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""The attribute by which a DICOMDIR says that it lists files and holds no image: Media Storage SOP Class UID."""
DIRECTORY_BYTES = 1024
"""Where it stands: among the first attributes."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        name: What it is called.
        endings: Endings of its names; none for a folder of slices.
        packages: Packages that read it, the preferred first.
    """

    name: str
    endings: tuple[str, ...]
    packages: tuple[str, ...]


NRRD = Format(name="NRRD", endings=(".nrrd",), packages=("itk",))
META = Format(name="MetaImage", endings=(".mha", ".mhd"), packages=("itk",))
DICOM = Format(name="DICOM", endings=(".dcm",), packages=("pydicom", "itk"))
FORMATS = (NRRD, META, DICOM)
DISTRIBUTIONS = {"itk": "itk-io"}
ENDINGS = (*NIFTI_ENDINGS, *(ending for kind in FORMATS for ending in kind.endings))


def format_of(path: Path) -> Format | None:
    """Returns the kind of a file or a folder of slices; None for NIfTI and what is not known."""
    if path.is_dir():
        return DICOM if holds_dicom(path) else None
    return next((kind for kind in FORMATS if path.name.lower().endswith(kind.endings)), None)


def holds_dicom(folder: Path) -> bool:
    """Says whether a folder's own files are slices of a DICOM series: one bears the mark, and none is NIfTI."""
    with contextlib.suppress(OSError):
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return not any(file.name.lower().endswith(NIFTI_ENDINGS) for file in files) and any(map(_marked, files))
    return False


def _slices(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".") and _marked(path)
    )


def _marked(path: Path) -> bool:
    """Says whether a file is DICOM, and no DICOMDIR."""
    with path.open("rb") as file:
        start = file.read(DIRECTORY_BYTES)
    return start[DICOM_OFFSET:].startswith(DICOM_MARK) and DIRECTORY not in start


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreign:
    """A volume that is no NIfTI, in memory.

    Attributes:
        array: Voxels f32 (C, X, Y, Z), in the order of the file's axes.
        affine: Affine (4, 4) to RAS, in mm.
        warnings: Sentences on what is doubtful about where it lies.
    """

    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def read_foreign(path: Path, kind: Format) -> Foreign:
    """Reads a volume that is no NIfTI.

    Args:
        path: A file, or the folder of a series.
        kind: What it is.

    Raises:
        DataError: The package that reads it is not installed, it cannot be read or does not fit in memory, it does not
            lie in space in a way that is known, or a folder holds slices of several series or such that make up no
            volume.
    """
    package = next((name for name in kind.packages if importlib.util.find_spec(name) is not None), None)
    if package is None:
        packages = " or ".join(DISTRIBUTIONS.get(name, name) for name in kind.packages)
        raise DataError(
            f"{path}: a package that reads {kind.name} must be installed, got none; pip install {packages}, "
            "or convert the file to NIfTI."
        )
    with _faults_named(path, kind):
        if kind is not DICOM:
            warnings = check_text_header(path)
            (header,) = check_announced([path], package)
            if header.axes not in (3, 4) or (header.axes == 4 and header.channels > 1):
                raise DataError(
                    f"{path}: must have 3 axes, and channels beside them, got shape {header.shape}; export volumes."
                )
            array, affine = read_itk([path], header.axes, header.channels)
            return Foreign(array=array, affine=affine, warnings=warnings)
        files = _slices(path) if path.is_dir() else [path]
        headers = check_announced(files, package, dicom=True)
        if package == "pydicom":
            return _by_pydicom(path, files)
        order = np.argsort(distances([header.place for header in headers if header.place is not None]))
        array, affine = read_itk([files[index] for index in order], 3, headers[0].channels)
        return Foreign(array=array, affine=affine)


def _by_pydicom(path: Path, files: Sequence[Path]) -> Foreign:
    logging.getLogger(DECODER_LOG).setLevel(logging.ERROR)
    # Takes seconds, which other files have no use for.
    from monai.transforms import LoadImage

    loaded: Any = LoadImage(reader=by_position(files), image_only=True)(str(path))
    array = np.asarray(loaded, dtype=np.float32)
    # Slices of several values for each voxel have these last; a single slice has no axis of its own.
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise DataError(f"{path}: must have 3 axes, and channels beside them, got shape {array.shape}; export volumes.")
    return Foreign(array=array[None], affine=np.asarray(loaded.affine, dtype=np.float64))


@contextlib.contextmanager
def _faults_named(path: Path, kind: Format) -> Iterator[None]:
    """Turns whatever a package says of a file into a sentence; its warnings are of no use to who predicts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        # ITK says where in its source it was before it says why.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[-1] if lines else ''}".strip(": ")
        raise DataError(
            f"{path}: must be a readable {kind.name} image, got '{reason}'; export it again, or convert it."
        ) from error
