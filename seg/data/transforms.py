"""From the files of a case to the arrays that a network sees."""

from __future__ import annotations

import gzip
import logging
import warnings
from collections.abc import Hashable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import nibabel
import torch
from monai.data import NibabelReader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    Orientationd,
    Spacingd,
)
from monai.utils import ensure_tuple

from seg.config import CtConfig, DataConfig
from seg.data.formats.nifti import is_gzip
from seg.data.geometry import Affine, affine_of_nifti
from seg.data.normalization import normalize

nib: Any = nibabel  # only parts of it are annotated
NIFTI_2 = b"n+2\0"
DECODER_LOG = "monai.data.nvimgcodec_pydicom_plugin"
"""Logger that warns whenever a loader of MONAI is made where one of several decoders of DICOM is not installed."""
RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def _open(name: str) -> Any:
    """Reads the header of a NIfTI file; unlike nibabel's own, whatever the case of the letters in its ending."""
    with gzip.open(name) if is_gzip(Path(name)) else open(name, "rb") as file:
        second = file.read(8)[4:] == NIFTI_2
    kind = nib.Nifti2Image if second else nib.Nifti1Image
    return kind.from_file_map({"image": nib.fileholders.FileHolder(filename=name)})


class SharedReader(NibabelReader):
    """MONAI's reader of NIfTI files, made fit for several threads, and true to where files say they lie.

    MONAI's own keeps the names of the files last read, by any thread, and takes no more images of a case than there
    are names: a thread that reads a label meanwhile costs an image its further channels. It also puts the qform, even
    one declared void, in the place of an sform whose voxel sizes differ from the header's in the fifth digit.
    """

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Opens files; returns one image of nibabel, or a list of several."""
        images = [_open(str(name)) for name in ensure_tuple(data)]
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the array of images that were read and what their headers say."""
        own = copy(self)
        own.filenames = tuple(image.get_filename() for image in ensure_tuple(img))
        data: tuple[Any, dict[str, Any]] = super(SharedReader, own).get_data(img)
        return data

    def _get_affine(self, img: Any) -> Affine:
        return affine_of_nifti(img)


class Trimmedd(MapTransform):
    """Drops axes of length 1 behind (C, X, Y, Z), which some programs write."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns a copy of the dictionary with volumes of four axes."""
        output = dict(data)
        for key in self.key_iterator(output):
            while output[key].ndim > 4 and output[key].shape[-1] == 1:
                output[key] = output[key].squeeze(-1)
        return output


class Normalized(MapTransform):
    """Brings the intensities of each channel to a common scale.

    Args:
        key: Entry of the dictionary to change, of shape (C, X, Y, Z).
        modes: One mode per channel, or one for all.
        ct: Window of the channels in mode ``ct``.
    """

    def __init__(self, key: str, modes: tuple[str, ...], ct: CtConfig | None) -> None:
        super().__init__([key])
        self.modes = modes
        self.ct = ct

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns a copy of the dictionary with the image normalised."""
        output = dict(data)
        for key in self.key_iterator(output):
            normalize(output[key], self.modes, self.ct)
        return output


class RoundedLabeld(MapTransform):
    """Turns labels stored as floats into uint8 class indices."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns a copy of the dictionary with integer labels."""
        output = dict(data)
        for key in self.key_iterator(output):
            output[key] = output[key].round().to(torch.uint8)
        return output


def _loader(keys: list[str]) -> LoadImaged:
    """Makes MONAI's loader without its warnings on decoders of DICOM, which it looks for whatever it is to read."""
    logging.getLogger(DECODER_LOG).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        return LoadImaged(keys, reader=SharedReader, image_only=True)


def preparation(config: DataConfig, *, with_label: bool) -> Compose:
    """Builds the deterministic part of the pipeline: load, orient, resample, normalise.

    Args:
        config: Orientation is always RAS; spacing and normalisation come from here.
        with_label: Whether the item has a ``label`` entry beside ``image``.

    Returns:
        A transform from ``{"image": [paths], "label": path}`` to ``{"image": f32 (C, X, Y, Z), "label": u8
        (1, X, Y, Z)}``, both MONAI meta tensors that know their affine.
    """
    keys = ["image", "label"] if with_label else ["image"]
    steps: list[Any] = [
        _loader(keys),
        EnsureChannelFirstd(keys),
        Trimmedd(keys),
        EnsureTyped(keys, dtype=torch.float32),
        Orientationd(keys, axcodes="RAS", labels=RAS),
    ]
    if config.spacing_mm is not None:
        modes = ["bilinear", "nearest"][: len(keys)]
        steps.append(Spacingd(keys, pixdim=config.spacing_mm, mode=modes, padding_mode="border"))
    steps.append(Normalized("image", config.normalization, config.ct))
    if with_label:
        steps.append(RoundedLabeld(["label"]))
    return Compose(steps)
