"""From a case's files to a label map on the image's own grid."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seg.config import ExperimentConfig
from seg.data.cases import Case
from seg.data.nifti import read_volume
from seg.data.transforms import preparation
from seg.inference import Grid, Prepared, model_from_config, segment


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
    prepared = Prepared(image.as_tensor(), image.affine.numpy(), Grid(own.shape[:3], own.affine))
    model = model_from_config(network, config, device=device, precision=precision)
    return segment([model], prepared).labels, own.affine


def _prepared_image(case: Case, config: ExperimentConfig) -> Any:
    try:
        return preparation(config.data, with_label=False)({"image": [str(path) for path in case.images]})["image"]
    except Exception:
        for path in case.images:
            read_volume(path)  # A file that cannot be read becomes a sentence here.
        raise
