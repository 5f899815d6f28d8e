"""Planning: published plans as oracles, properties over random data sets, and plans of real ones."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from seg.cli import load_config
from seg.config import BottleneckConfig, DataConfig, NetworkConfig
from seg.config.rules import problems
from seg.data.fingerprint import Fingerprint, fingerprint_dataset
from seg.data.intensity import ChannelIntensity
from seg.data.readers import read_dataset
from seg.errors import ConfigError, DataError
from seg.networks.bottleneck import Bottleneck
from seg.networks.plan import Plan as Stages
from seg.networks.unet import UNet
from seg.planning import plan_dataset, plan_experiment
from seg.planning.cost import grid, step_cost
from seg.planning.geometry import plan_geometry
from seg.planning.header import describe_plan
from seg.planning.planner import Plan, detect_patient_pattern, experiment_name, plan_steps
from seg.planning.topology import plan_topology, round_up

SIZES = st.tuples(*[st.integers(1, 400)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 12)] * 3)


def fingerprint(
    shapes: list[tuple[int, int, int]],
    spacings: list[tuple[float, float, float]],
    *,
    extents: list[tuple[int, int, int]] | None = None,
    channels: tuple[str, ...] = ("MRI",),
) -> Fingerprint:
    """A data set of two classes, whose foreground fills the volumes unless told otherwise."""
    return Fingerprint(
        case_ids=tuple(f"case_{index:03d}" for index in range(len(shapes))),
        shapes=tuple(shapes),
        spacings_mm=tuple(spacings),
        foreground_extents=tuple(extents or shapes),
        channels=channels,
        intensities=tuple(
            ChannelIntensity(p00_5=-50.0 - index, median=20.0, p99_5=250.0, mean=40.0, std=60.0)
            for index in range(len(channels))
        ),
        class_names=("organ", "tumour"),
        class_volumes_ml=tuple((10.0, 0.0) for _ in shapes),
        digest="ab" * 32,
    )


def plan(data: Fingerprint, memory_gib: float = 4.0, root: str = "data/x") -> Plan:
    return plan_experiment(data, DataConfig(root=root), name="x", memory_gib=memory_gib)


# Topology: nnU-Net's own plans, from the paper's supplement, with the axes turned to X, Y, Z.


def test_topology_of_nnunets_hippocampus() -> None:
    topology = plan_topology((40, 56, 40), (1.0, 1.0, 1.0))
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes == ((3, 3, 3),) * 4


def test_topology_of_nnunets_acdc() -> None:
    topology = plan_topology((224, 256, 20), (1.56, 1.56, 5.0))
    assert topology.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))
    assert topology.kernel_sizes == ((3, 3, 1), *((3, 3, 3),) * 5)


def test_topology_of_nnunets_brain_tumours() -> None:
    topology = plan_topology((128, 128, 128), (1.0, 1.0, 1.0))
    assert topology.strides == ((1, 1, 1), *((2, 2, 2),) * 5)


def test_limit_keeps_an_axis_from_being_pooled_away() -> None:
    free = plan_topology((160, 160, 16), (1.5, 1.5, 9.0))
    held = plan_topology((160, 160, 16), (1.5, 1.5, 9.0), (160, 160, 6))
    assert free.divisors[2] == 4
    assert held.divisors == (32, 32, 1)


def test_flat_axis_has_flat_kernels() -> None:
    topology = plan_topology((64, 64, 1), (1.0, 1.0, 1.0))
    assert {kernel[2] for kernel in topology.kernel_sizes} == {1}
    assert {stride[2] for stride in topology.strides} == {1}


def test_volumes_too_small_to_pool_still_make_two_stages() -> None:
    assert plan_topology((6, 7, 5), (1.0, 1.0, 4.0)).strides == ((1, 1, 1), (1, 2, 1))


def test_short_fine_axis_does_not_flatten_the_other_kernels() -> None:
    topology = plan_topology((5, 64, 64), (1.0, 3.0, 3.0))
    assert topology.strides[1] == (1, 2, 2)
    assert topology.kernel_sizes[0] == (3, 3, 3)


@given(size=SIZES, spacing=SPACINGS)
def test_topology_properties(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    topology = plan_topology(size, spacing)
    patch = round_up(size, topology.divisors)
    assert len(topology.strides) == len(topology.kernel_sizes) <= 6
    assert len(topology.strides) >= 2
    assert topology.strides[0] == (1, 1, 1)
    for axis in range(3):
        divisor = topology.divisors[axis]
        assert 0 <= patch[axis] - size[axis] < divisor
        assert patch[axis] % divisor == 0
        assert patch[axis] / divisor >= 4 or divisor == 1 or len(topology.strides) == 2
        kernels = [kernel[axis] for kernel in topology.kernel_sizes]
        assert kernels == sorted(kernels)
    for stride, kernel in zip(topology.strides[1:], topology.kernel_sizes, strict=False):
        for axis in range(3):
            # No voxels are dropped unseen: an axis is halved only where the kernels above it span it.
            assert stride[axis] == 1 or kernel[axis] == 3 or size[axis] < 3 or max(size) < 8
            assert stride[axis] == 1 or size[axis] >= 8 or max(size) < 8


# Cost.


@pytest.mark.parametrize(
    ("bottlenecks", "gmac", "millions"),
    [({}, 19.14, 5.60), ({"skip_bottleneck": 0.25, "decoder_bottleneck": 0.5}, 7.44, 4.03)],
)
def test_cost_of_known_networks(bottlenecks: dict[str, float], gmac: float, millions: float) -> None:
    network = NetworkConfig(
        channels=(32, 64, 128, 256), **{name: BottleneckConfig(ratio=ratio) for name, ratio in bottlenecks.items()}
    )
    cost = step_cost(network, (40, 56, 40), 1, 1, 3)
    assert cost.gmac == pytest.approx(gmac, abs=0.005)
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("plain", [True, False])
def test_cost_is_what_torch_counts(plain: bool) -> None:
    config = NetworkConfig(
        channels=(16, 32, 64),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        skip_bottleneck=None if plain else BottleneckConfig(ratio=(0.25, 0.5)),
        decoder_bottleneck=None if plain else BottleneckConfig(ratio=0.5),
    )
    network = UNet(
        2,
        4,
        plan=Stages(channels=config.channels, strides=config.strides, kernel_sizes=config.kernel_sizes),
        skip_bottleneck=None if plain else Bottleneck(ratio=(0.25, 0.5)),
        decoder_bottleneck=None if plain else Bottleneck(ratio=0.5),
    )
    cost = step_cost(config, (32, 32, 8), 2, 2, 4)
    assert cost.parameters == sum(weight.numel() for weight in network.parameters() if weight.ndim > 1)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.zeros(2, 2, 32, 32, 8))
    held = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert output.shape == (2, 4, 32, 32, 8)
    assert counter.get_total_flops() == pytest.approx(2e9 * cost.gmac, rel=1e-6)
    assert held == pytest.approx(4 * cost.activations, rel=0.15)


def test_bf16_takes_less_memory_than_fp32() -> None:
    cost = step_cost(NetworkConfig(), (64, 64, 64), 2, 1, 3)
    assert 1 < cost.memory_gib("bf16") < cost.memory_gib("fp32")


def test_grid_of_a_stage_rounds_up() -> None:
    assert grid(NetworkConfig(), (9, 8, 7), 1) == (5, 4, 4)


# From files to text, and real data.


def write_acdc_like(root: Path) -> None:
    """Ten thin volumes of five patients in nnU-Net's layout, 48 x 40 x 6 or 7 voxels of 1.5 x 1.5 x 9 mm."""
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "numTraining": 10}
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii.gz"}))
    random = np.random.default_rng(0)
    for index in range(10):
        name = f"patient{index // 2}_frame{index % 2:02d}"
        shape = (48, 40, 6 + index % 2)
        label = np.zeros(shape, dtype=np.uint8)
        label[10:30, 10:30] = 1
        for folder, file, array in (
            ("imagesTr", f"{name}_0000.nii.gz", random.normal(size=shape).astype(np.float32)),
            ("labelsTr", f"{name}.nii.gz", label),
        ):
            (root / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 9.0, 1.0])), root / folder / file)


def test_plan_is_text_that_reads_back(tmp_path: Path) -> None:
    root = tmp_path / "Dataset999_Hearts"
    write_acdc_like(root)
    file = tmp_path / "plan.yaml"
    file.write_text(plan_dataset(root))
    config = load_config([file])
    assert (config.name, config.data.root) == ("hearts", str(root))
    assert config.data.patient_pattern == detect_patient_pattern(
        [f"patient{i}_frame{j}" for i in range(5) for j in "01"]
    )
    assert config.patches.size == (32, 32, 7)
    assert config.network.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert config.training.steps == 1_000
    assert (
        config
        == plan_experiment(fingerprint_dataset(read_dataset(root)), config.data, name="hearts", memory_gib=4.0).config
    )
    assert file.read_text().startswith("# Planned from 10 cases, fingerprint ")


def test_given_pattern_comes_first(tmp_path: Path) -> None:
    root = tmp_path / "hearts"
    write_acdc_like(root)
    assert r"patient_pattern: (patient\d)" in plan_dataset(root, patient_pattern=r"(patient\d)").replace("'", "")


@pytest.mark.parametrize(
    ("name", "patch", "divisors"),
    [
        ("Task04_Hippocampus", (40, 56, 40), (8, 8, 8)),
        ("Dataset027_ACDC", (160, 160, 9), (32, 32, 1)),
        ("Dataset013_BraTS2013", (96, 128, 80), (16, 16, 16)),
    ],
)
def test_real_data_sets(
    data_root: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    patch: tuple[int, int, int],
    divisors: tuple[int, int, int],
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(plan_dataset(data_root(name)))
    config = load_config([file])
    assert (config.patches.size, config.patches.batch, config.data.spacing_mm) == (patch, 2, None)
    assert tuple(prod(axis) for axis in zip(*config.network.strides, strict=True)) == divisors


# Grid.


def test_equal_spacings_are_kept() -> None:
    geometry = plan_geometry(fingerprint([(40, 40, 40), (44, 40, 40)], [(1.0, 1.0, 1.2), (1.0, 1.0, 1.2001)]))
    assert not geometry.resampled
    assert plan(fingerprint([(40, 40, 40)] * 3, [(1.0, 1.0, 1.2)] * 3)).config.data.spacing_mm is None


def test_spacing_is_the_median() -> None:
    geometry = plan_geometry(fingerprint([(40, 40, 40)] * 3, [(1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (2.0, 1.0, 1.0)]))
    assert geometry.resampled
    assert geometry.spacing_mm == (1.2, 1.0, 1.0)
    assert geometry.median_shape == (40, 40, 40)
    assert geometry.min_shape == (33, 40, 40)


def test_thick_axis_takes_the_tenth_percentile() -> None:
    spacings = [(1.5, 1.5, 5.0)] + [(1.5, 1.5, 10.0)] * 10
    geometry = plan_geometry(fingerprint([(200, 200, 10)] * 11, spacings))
    assert geometry.thick_axis == 2
    assert geometry.spacing_mm == (1.5, 1.5, 10.0)
    geometry = plan_geometry(fingerprint([(200, 200, 10)] * 4, [(1.5, 1.5, 5.0), *[(1.5, 1.5, 10.0)] * 3]))
    assert geometry.spacing_mm == (1.5, 1.5, pytest.approx(6.5))


def test_thick_axis_with_many_slices_takes_the_median() -> None:
    geometry = plan_geometry(fingerprint([(200, 200, 100)] * 3, [(1.0, 1.0, 5.0), (1.0, 1.0, 5.0), (1.0, 1.0, 4.0)]))
    assert geometry.thick_axis is None
    assert geometry.spacing_mm == (1.0, 1.0, 5.0)


# Whole plans.


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(SIZES, min_size=1, max_size=4),
    spacing=SPACINGS,
    memories=st.tuples(st.floats(1.5, 40), st.floats(1.5, 40)).map(sorted),
)
def test_plans_keep_their_promises(
    shapes: list[tuple[int, int, int]], spacing: tuple[float, float, float], memories: list[float]
) -> None:
    small, large = (plan(fingerprint(shapes, [spacing] * len(shapes)), memory) for memory in memories)
    for made, memory in zip((small, large), memories, strict=True):
        assert problems(made.config) == []
        patch, divisors = made.sampling.patch, made.sampling.topology.divisors
        assert made.cost.memory_gib("fp32") <= memory
        assert made.sampling.batch >= 2
        assert all(edge % divisor == 0 for edge, divisor in zip(patch, divisors, strict=True))
        channels = made.config.network.channels
        assert channels == (16, 32, 64, 128, 128, 128)[: len(channels)]
        thick = made.geometry.thick_axis
        if thick is not None:
            assert divisors[thick] * 4 <= max(4, made.geometry.min_shape[thick] + divisors[thick])
    assert prod(small.sampling.patch) <= prod(large.sampling.patch)


def test_thin_volumes_keep_their_slices() -> None:
    shapes = [(216, 256, slices) for slices in range(6, 19)]
    made = plan(fingerprint(shapes, [(1.5, 1.5, 9.0)] * 13, extents=[(90, 90, slices) for slices in range(6, 19)]))
    assert made.sampling.patch == (160, 160, 12)
    assert made.config.network.strides == ((1, 1, 1), *((2, 2, 1),) * 5)
    assert made.config.network.kernel_sizes[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert made.config.augmentation.spatial.rotation_deg == (0.0, 0.0, 30.0)
    assert made.config.augmentation.spatial.mirror_axes == ()


def test_batch_grows_with_memory() -> None:
    data = fingerprint([(35, 50, 36)] * 200, [(1.0, 1.0, 1.0)] * 200)
    assert [plan(data, memory).sampling.batch for memory in (4, 8, 24)] == [2, 5, 7]
    assert plan(data).sampling.patch == (40, 56, 40)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=re.escape(
            "memory_gib must hold a training step on 2 patches of the smallest size, got 0.5; allow more memory."
        ),
    ):
        plan(fingerprint([(40, 40, 40)], [(1.0, 1.0, 1.0)]), 0.5)


def test_ct_is_windowed_and_other_channels_standardised() -> None:
    data = fingerprint([(64, 64, 64)] * 4, [(1.0, 1.0, 1.0)] * 4, channels=("CT", "MRI", "noNorm"))
    config = plan(data).config.data
    assert config.normalization == ("ct", "zscore", "none")
    assert config.ct is not None
    assert (config.ct.lower[0], config.ct.upper[0], config.ct.mean[0], config.ct.std[0]) == (-50.0, 250.0, 40.0, 60.0)
    assert problems(plan(data).config) == []
    assert plan(fingerprint([(64, 64, 64)], [(1.0, 1.0, 1.0)])).config.data.ct is None


def test_constant_ct_is_refused() -> None:
    data = fingerprint([(64, 64, 64)] * 4, [(1.0, 1.0, 1.0)] * 4, channels=("CT",))
    flat = ChannelIntensity(p00_5=7.0, median=7.0, p99_5=7.0, mean=7.0, std=0.0)
    message = (
        "channel CT: foreground intensities must differ to give a CT window, got 7 throughout; look at the images, or "
        "name the channel otherwise to standardise it."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        plan(dataclasses.replace(data, intensities=(flat,)))


def test_steps_follow_the_number_of_cases() -> None:
    assert plan_steps(4, 2) == 1_000
    assert plan_steps(120, 2) == 2_400
    assert plan_steps(200, 2) == 4_000
    assert plan_steps(100_000, 2) == 25_000


def test_plan_keeps_where_the_data_are() -> None:
    data = DataConfig(root="somewhere", layout="msd", patient_pattern="(p..)")
    made = plan_experiment(fingerprint([(40, 40, 40)], [(1.0, 1.0, 1.0)]), data, name="n", memory_gib=4).config
    assert (made.name, made.data.root, made.data.layout, made.data.patient_pattern) == (
        "n",
        "somewhere",
        "msd",
        "(p..)",
    )


def test_patients_are_found_in_case_ids() -> None:
    ids = ["patient001_frame01", "patient001_frame12", *(f"patient00{number}_Frame01" for number in range(2, 6))]
    pattern = detect_patient_pattern(ids)
    assert pattern is not None
    match = re.match(pattern, "patient002_Frame01")
    assert match is not None
    assert match.group(1) == "patient002"
    assert detect_patient_pattern(ids[1:]) is None  # every patient has one case
    assert detect_patient_pattern([*ids, "other"]) is None
    assert detect_patient_pattern([f"mr_scan_{number}" for number in range(9)]) is None  # fewer "patients" than folds
    assert detect_patient_pattern(["hippocampus_001", "hippocampus_002"]) is None


def test_name_comes_from_the_folder() -> None:
    assert experiment_name(Path("/x/Dataset027_ACDC")) == "acdc"
    assert experiment_name(Path("/x/Task04_Hippocampus")) == "hippocampus"
    assert experiment_name(Path("/x/My scans (2)")) == "my_scans_2"


def test_header_says_what_was_found_and_what_it_takes() -> None:
    data = fingerprint([(216, 256, 8), (216, 256, 6)], [(1.5, 1.5, 9.0)] * 2, extents=[(90, 80, 8), (90, 80, 6)])
    made = plan(data)
    text = describe_plan(made, data, 4.0)
    assert "Planned from 2 cases, fingerprint abababababababab." in text
    assert "shape, voxels: median 216 x 256 x 7, 216 x 256 x 6 to 216 x 256 x 8" in text
    assert "class 1 organ: median 10 ml, in 2 of 2 cases" in text
    assert "class 2 tumour: no voxel, in 0 of 2 cases" in text
    assert "every volume has 1.5 x 1.5 x 9 mm; nothing is resampled." in text
    assert "Z is pooled only as far as the thinnest volume (6 voxels) bears." in text
    assert re.search(r"Estimated peak of training: \d\.\d GiB in bf16, \d\.\d GiB in fp32, of 4 GiB allowed\.", text)
    assert f"about {3 * made.cost.gmac:.0f} GMAC a training step of 2 patches" in text
