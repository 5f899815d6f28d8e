"""Checks the comparison of predicted losses with networks that are trained from scratch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from seg.ablation.study import plan_study
from seg.compression.sites import Site
from seg.config import NetworkConfig
from seg.networks import UNet
from tests.compression.law import (
    Draw,
    calibration,
    correlation,
    covariances,
    design,
    judge,
    maps_of,
    networks_of,
    partial_spearman,
    study_yaml,
    variance_lost,
)


@pytest.fixture
def config() -> NetworkConfig:
    return NetworkConfig(channels=(16, 32), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3)))


@pytest.mark.parametrize("least", [1 / 8, 1 / 3])
def test_each_axis_of_the_design_has_each_level_once(config: NetworkConfig, least: float) -> None:
    maps = maps_of(UNet(1, 3, config))
    points = design([replace(site, channels=8**6) for site in maps], Draw(count=12, least=least))
    levels = sorted(8**6 * least ** ((number + 0.5) / 12) for number in range(12))
    axes: dict[tuple[str, int], list[Site]] = {}
    for site in points[0]:
        axes.setdefault((site.part, site.stage), []).append(site)
    assert len(axes) == 5  # encoder 0 and bottom, up, skip, decoder
    columns = []
    for sites in axes.values():
        found = [[point[site] for point in points] for site in sites]
        assert all(column == found[0] for column in found)
        assert sorted(found[0]) == pytest.approx(levels, abs=0.5)
        columns.append(tuple(found[0]))
    assert len(set(columns)) == len(columns)


def test_the_networks_have_the_widths_of_the_design(config: NetworkConfig) -> None:
    draw = Draw(count=4, seed=1)
    points = design(maps_of(UNet(1, 3, config)), draw)
    for point, network in zip(points, networks_of(config, 1, 3, draw), strict=True):
        own = {site.name: width for site, width in point.items()}
        assert network.channels == (own["encoder 0 second"], own["bottom second"])
        assert UNet(1, 3, network)(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_the_study_is_one_that_can_be_planned(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = study_yaml(Path("configs/phantom.yaml"), 1, 7, Draw(count=3))
    file.write_text(text)
    study = plan_study(file, {})
    assert [trial.variant.name for trial in study.trials] == ["baseline", "point_0", "point_1", "point_2"]
    assert study.trials[0].config.network.decoder_bottleneck is None
    assert yaml.safe_load(text)["seeds"] == [0]


def test_the_variance_beyond_the_first_components_is_lost() -> None:
    basis = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    covariance = basis @ torch.tensor([6.0, 3.0, 1.0]).double().diag() @ basis.T
    assert [variance_lost(covariance, width) for width in (1, 2, 3)] == pytest.approx([0.4, 0.1, 0.0])
    assert correlation(covariance).diagonal().tolist() == pytest.approx([1.0] * 3)


def test_covariances_are_those_of_the_maps(config: NetworkConfig) -> None:
    network = UNet(1, 3, config).eval()
    images = [torch.randn(1, 1, 8, 8, 8) for _ in range(2)]
    site = next(site for site in maps_of(network) if site.name == "encoder 0 second")
    found = covariances(network, [site], images)[site]
    with torch.no_grad():
        values = [network.encoder[0](image)[0].flatten(1).numpy() for image in images]
    assert found.numpy() == pytest.approx(np.mean([np.cov(own, ddof=0) for own in values], 0), abs=1e-5)


def test_what_ranks_as_the_loss_does_has_a_coefficient_of_1() -> None:
    stream = np.random.default_rng(0)
    lost, noise = stream.random(24), stream.random((5, 24))
    names = ("width", "macs", "parameters", "variance", "r2")
    rows = [
        {"predicted": float(np.exp(lost[i])), "dice_lost": float(lost[i])}
        | {name: float(noise[k][i]) for k, name in enumerate(names)}
        for i in range(24)
    ]
    found = judge(rows)
    assert found["predicted"] == pytest.approx((1.0, 1.0), abs=0.02)
    assert abs(found["variance"][0]) < 0.5
    rows = [row | {"width": -float(row["dice_lost"])} for row in rows]
    assert judge(rows)["width"][0] == pytest.approx(1.0)


def test_a_power_law_has_its_exponent() -> None:
    rows = [{"predicted": p, "dice_lost": 3 * p**0.5} for p in (0.01, 0.1, 1.0)] + [
        {"predicted": 1.0, "dice_lost": -0.1}
    ]
    assert calibration(rows) == pytest.approx((3 / 0.1**0.5, 0.5))


def test_the_partial_coefficient_is_that_of_the_closed_form() -> None:
    stream = np.random.default_rng(1)
    a, b, c = stream.permutation(30), stream.permutation(30), stream.permutation(30)
    ab, ac, bc = (np.corrcoef(*pair)[0, 1] for pair in ((a, b), (a, c), (b, c)))
    expected = (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))
    assert partial_spearman(a, b, c) == pytest.approx(expected)
