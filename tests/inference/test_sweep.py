"""Segmentation in pieces against MONAI's sliding window, its resampling, and argmax, all of the whole volume."""

from __future__ import annotations

import itertools
from fractions import Fraction

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import SpatialResample

from seg.inference.model import Model
from seg.inference.sweep import segment
from tests.inference.sweeps import STREAMED, image, in_numpy, network, prepared

WINDOW = (8, 12, 10)
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.1, 0.3), [4, -7, 11])


def mirrored(net, axes):
    def forward(windows):
        outputs = []
        for flips in itertools.product((False, True), repeat=len(axes)):
            dims = [2 + axis for axis, flip in zip(axes, flips, strict=True) if flip]
            outputs.append(net(windows.flip(dims)).flip(dims))
        return torch.stack(outputs).mean(0)

    return forward


def oracle(models, case):
    """Labels and scores of the whole volume on the image's own grid."""
    scores = []
    for model in models:
        with torch.no_grad():
            logits = sliding_window_inference(
                case.image[None],
                model.window,
                model.batch,
                mirrored(model.network, model.mirror_axes),
                overlap=model.overlap,
                mode=model.blend,
            )[0]
        scores.append(logits if len(models) == 1 else logits.softmax(0))
    mean = torch.stack(scores).mean(0)
    target = case.target
    ornt = nib.orientations.io_orientation(target.affine)
    shape = nib.orientations.apply_orientation(np.empty(target.shape, bool), ornt).shape
    affine = target.affine @ nib.orientations.inv_ornt_aff(ornt, target.shape)
    source = affine @ np.diag([*map(float, case.step), 1])
    resampled = SpatialResample(mode="bilinear", padding_mode="border")(
        MetaTensor(mean, affine=torch.as_tensor(source)),
        dst_affine=torch.as_tensor(affine),
        spatial_size=shape,
    ).as_tensor()
    probabilities = resampled.softmax(0).numpy() if len(models) == 1 else resampled.numpy()
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt)
    labels = nib.orientations.apply_orientation(resampled.argmax(0).numpy(), back)
    return labels, np.stack([nib.orientations.apply_orientation(single, back) for single in probabilities])


def check(models, case, resident_mib=STREAMED):
    labels, probabilities = oracle(models, case)
    done = segment(models, case, probabilities=True, resident_mib=resident_mib)
    without_torch = segment(*in_numpy(models, case), probabilities=True, resident_mib=resident_mib)
    for each in (done, without_torch):
        assert each.labels.shape == case.target.shape == labels.shape
        np.testing.assert_allclose(each.probabilities, probabilities, atol=2e-5)
        differing = np.count_nonzero(each.labels != labels)
        assert differing <= 1e-5 * labels.size
    assert without_torch.labels.dtype == done.labels.dtype
    assert without_torch.held_mib == done.held_mib
    return done


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(25, 17, 12), (12, 33, 13), (9, 14, 29), (5, 22, 9), (3, 4, 5), WINDOW])
def test_labels_are_those_of_the_plain_sliding_window(shape, overlap, blend):
    model = Model(network=network(), window=WINDOW, overlap=overlap, blend=blend, batch=2)
    check([model], prepared(image(*shape)))


@pytest.mark.parametrize("classes", [2, 3, 40, 300])
@pytest.mark.parametrize("resident_mib", [0.0, 1000.0])
def test_any_number_of_classes(classes, resident_mib):
    model = Model(network=network(classes), window=WINDOW)
    done = check([model], prepared(image(21, 14, 12)), resident_mib)
    assert done.labels.dtype == (np.uint8 if classes <= 256 else np.uint16)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirrored_copies_of_each_window_are_averaged(axes):
    check([Model(network=network(), window=WINDOW, mirror_axes=axes)], prepared(image(20, 15, 12)))


@pytest.mark.parametrize("resident_mib", [0.0, 1000.0])
def test_probabilities_of_models_with_windows_of_their_own_are_averaged(resident_mib):
    models = [
        Model(network=network(seed=2), window=WINDOW),
        Model(network=network(seed=3), window=(10, 10, 10), overlap=0.25, blend="constant", batch=3),
        Model(network=network(seed=4), window=(40, 16, 8)),
    ]
    check(models, prepared(image(31, 17, 15)), resident_mib)


TARGETS = {
    "twice as fine": (2, 2, 2),
    "coarser": (Fraction(10, 17), Fraction(10, 23), Fraction(5, 7)),
    "anisotropic": (Fraction(5, 3), Fraction(10, 9), Fraction(10, 31)),
    "along one axis": (1, 1, Fraction(4, 3)),
}
"""Voxels of the image that a voxel of the network spans."""
BEYOND = 3
"""Voxels by which the image is larger than what the network saw."""


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR"])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("base", [np.eye(4), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("resident_mib", [0.0, 1000.0])
def test_labels_are_resampled_to_the_grid_of_the_image(base, name, orientation, resident_mib):
    step = tuple(map(Fraction, TARGETS[name]))
    volume = image(29, 13, 17)
    shape = tuple(int(np.ceil(n * part)) + BEYOND for n, part in zip(volume.shape[1:], step, strict=True))
    turn = nib.orientations.axcodes2ornt(orientation)
    turned = nib.Nifti1Image(np.empty(shape, np.uint8), base).as_reoriented(turn)
    case = prepared(volume, step, turned.shape, turned.affine)
    check([Model(network=network(), window=WINDOW)], case, resident_mib)


def test_a_resampled_ensemble():
    models = [Model(network=network(seed=seed), window=WINDOW, overlap=0.25) for seed in (1, 2)]
    step = (Fraction(4, 3), Fraction(2), Fraction(5, 7))
    check(models, prepared(image(30, 14, 16), step, (40, 28, 12)))


def test_time_is_told_by_stage():
    seconds = segment([Model(network=network(), window=WINDOW)], prepared(image(20, 15, 12))).seconds
    assert set(seconds) == {"network", "sums", "labels"}
    assert all(value > 0 for value in seconds.values())
