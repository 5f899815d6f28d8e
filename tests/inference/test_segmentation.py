from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.data.geometry import Geometry
from seg.inference.arrays import most_likely
from seg.inference.segmentation import LabelMap


@pytest.mark.parametrize("classes", [1, 2, 7, 300])
def test_the_first_of_the_largest_scores_wins(classes):
    torch.manual_seed(0)
    scores = torch.randint(0, 5, (classes, 6, 5, 4)).float()
    # NumPy's argmax is the first of equals by contract.
    expected = scores.numpy().argmax(0)
    np.testing.assert_array_equal(most_likely(scores).numpy(), expected)
    np.testing.assert_array_equal(most_likely(scores.numpy()), expected)
    assert most_likely(scores.numpy()).dtype == most_likely(scores).numpy().dtype


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA", "IRP"])
def test_blocks_are_written_in_the_order_of_axes_of_the_file(codes):
    orientation = nib.orientations.axcodes2ornt(tuple(codes))
    scores = torch.rand(3, 4, 5, 6)
    as_file = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    expected = nib.orientations.apply_orientation(scores.argmax(0).numpy(), as_file)
    affine = nib.orientations.inv_ornt_aff(as_file, (4, 5, 6))
    labels = LabelMap(Geometry(shape=expected.shape, affine=affine, header=None), 3, probabilities=True, logits=True)
    assert labels.shape == (4, 5, 6)
    labels.write((0, 0, 0), scores[:, :2])
    labels.write((2, 0, 0), scores[:, 2:])
    np.testing.assert_array_equal(labels.labels, expected)
    softmax = scores.softmax(0).numpy()
    for index in range(3):
        single = nib.orientations.apply_orientation(softmax[index], as_file)
        np.testing.assert_allclose(labels.probabilities[index], single, rtol=1e-6)
    assert labels.labels.flags.f_contiguous
    assert np.moveaxis(labels.probabilities, 0, -1).flags.f_contiguous
