"""From a case's files to a label map on the image's own grid."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from torch import Tensor, nn

from seg.config import ExperimentConfig
from seg.data.cases import Case
from seg.data.nifti import read_volume
from seg.data.transforms import preparation
from seg.inference import predict_logits


def predict_case(
    network: nn.Module, case: Case, config: ExperimentConfig, *, device: torch.device, precision: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Segments one case.

    Args:
        network: Network in evaluation mode, on the device.
        case: Image files; the label is not read.
        config: The experiment that the network was trained in.
        device: Where to compute.
        precision: ``fp32`` or ``bf16``.

    Returns:
        Label map (X, Y, Z) on the grid of the case's first image, and that grid's affine.

    Raises:
        DataError: A file cannot be read.
    """
    image = _prepared_image(case, config)
    own: Any = nib.load(case.images[0])
    with autocast(device, precision):
        logits = predict_logits(
            network,
            image.as_tensor()[None].to(device),
            config.patches.size,
            config.inference,
            mirror_axes=config.augmentation.spatial.mirror_axes if config.inference.tta else (),
        )
    labels = logits_to_labels(logits[0], image.affine.numpy(), own.shape[:3], own.affine)
    return labels, own.affine


def _prepared_image(case: Case, config: ExperimentConfig) -> Any:
    try:
        return preparation(config.data, with_label=False)({"image": [str(path) for path in case.images]})["image"]
    except Exception:
        for path in case.images:
            read_volume(path)  # A file that cannot be read becomes a sentence here.
        raise


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context in which a network computes with the given precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def logits_to_labels(
    logits: Tensor, affine: npt.NDArray[np.float64], shape: tuple[int, ...], target_affine: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """Carries logits from the prepared grid to the image's own grid and takes the most likely class.

    Args:
        logits: Logits (K, X, Y, Z) on a grid oriented to RAS.
        affine: Affine of that grid, in mm.
        shape: Shape of the image's own grid.
        target_affine: Its affine, in mm.

    Returns:
        Class indices of the given shape.
    """
    to_ras = nib.orientations.io_orientation(target_affine)
    ras_shape = tuple(int(shape[int(axis)]) for axis in np.argsort(to_ras[:, 0]))
    ras_affine = target_affine @ nib.orientations.inv_ornt_aff(to_ras, shape)
    if ras_shape != tuple(logits.shape[1:]) or not np.allclose(ras_affine, affine, atol=1e-4):
        resample = SpatialResample(mode="bilinear", padding_mode="border")
        source = MetaTensor(logits.cpu(), affine=torch.as_tensor(affine))
        resampled: Any = resample(source, dst_affine=torch.as_tensor(ras_affine), spatial_size=ras_shape)
        logits = resampled.as_tensor()
    labels = logits.argmax(0).to(torch.uint8).cpu().numpy()
    from_ras = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to_ras)
    restored: npt.NDArray[np.uint8] = nib.orientations.apply_orientation(labels, from_ras)
    return restored
