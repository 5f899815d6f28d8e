"""Images that are no NIfTI: NRRD, MetaImage and DICOM series, by MONAI's readers and the packages that these need."""

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

from seg.data.dicom import by_position
from seg.data.endings import NIFTI_ENDINGS
from seg.data.foreign_headers import check_announced
from seg.errors import DataError

DECODER_LOG = "monai.data.nvimgcodec_pydicom_plugin"
"""Logger that warns whenever a loader of MONAI is made where one of several decoders of DICOM is not installed."""
DICOM_MARK = b"DICM"
DICOM_OFFSET = 128


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        name: What it is called.
        endings: Endings of its names; none for a folder of slices.
        readers: Readers of MONAI with the package that each needs, the preferred first.
    """

    name: str
    endings: tuple[str, ...]
    readers: tuple[tuple[str, str], ...]


NRRD = Format(name="NRRD", endings=(".nrrd",), readers=(("NrrdReader", "nrrd"), ("ITKReader", "itk")))
META = Format(name="MetaImage", endings=(".mha", ".mhd"), readers=(("ITKReader", "itk"),))
DICOM = Format(name="DICOM", endings=(".dcm",), readers=(("PydicomReader", "pydicom"), ("ITKReader", "itk")))
FORMATS = (NRRD, META, DICOM)
DISTRIBUTIONS = {"nrrd": "pynrrd", "itk": "itk-io"}
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
    with path.open("rb") as file:
        return file.read(DICOM_OFFSET + len(DICOM_MARK))[DICOM_OFFSET:] == DICOM_MARK


def read_foreign(paths: Sequence[Path], kind: Format) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Reads the channels of an image that is no NIfTI.

    Args:
        paths: A file, a file for each channel, or the folder of a series.
        kind: What they are.

    Returns:
        Voxels (C, X, Y, Z) in the order of the file's axes, and the affine (4, 4) to RAS, in mm.

    Raises:
        DataError: The package that reads them is not installed, the files cannot be read or do not fit in memory, or a
            folder holds slices of several series or such that make up no volume.
    """
    reader, package = next(((name, needed) for name, needed in kind.readers if _installed(needed)), (None, ""))
    if reader is None:
        packages = " or ".join(DISTRIBUTIONS.get(package, package) for _, package in kind.readers)
        raise DataError(
            f"{paths[0]}: a package that reads {kind.name} must be installed, got none; pip install {packages}, "
            "or convert the file to NIfTI."
        )
    with _faults_named(paths[0], kind):
        if kind is DICOM:
            for path in paths:
                check_announced(_slices(path) if path.is_dir() else [path], package, dicom=True)
        else:
            check_announced(paths, package)
    logging.getLogger(DECODER_LOG).setLevel(logging.ERROR)
    # Takes seconds, which NIfTI files have no use for.
    from monai.transforms import EnsureChannelFirst, LoadImage

    with _faults_named(paths[0], kind):
        by_name = by_position() if reader == "PydicomReader" else reader
        loaded: Any = LoadImage(reader=by_name, image_only=True)([str(path) for path in paths])
        image = loaded[None] if kind is DICOM and loaded.ndim == 3 else EnsureChannelFirst()(loaded)
        while image.ndim > 4 and image.shape[-1] == 1:
            image = image.squeeze(-1)
    if image.ndim != 4:
        raise DataError(
            f"{paths[0]}: must have 3 axes, and channels beside them, got shape {tuple(loaded.shape)}; export volumes."
        )
    return np.asarray(image, dtype=np.float32), np.asarray(loaded.affine, dtype=np.float64)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


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
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"{path}: must be a readable {kind.name} image, got '{reason}'; export it again, or convert it."
        ) from error
