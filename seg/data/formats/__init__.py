"""The formats that volumes are read from; a new format is a module here and an entry in ``FORMATS``."""

from __future__ import annotations

from seg.data.formats.dicom import DICOM
from seg.data.formats.itk import META, NRRD
from seg.data.formats.nifti import NIFTI

__all__ = ["FORMATS", "NIFTI"]

FORMATS = (NIFTI, NRRD, META, DICOM)
