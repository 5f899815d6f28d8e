"""What maps are predicted to lose: against closed forms, against explicit projections, and what intervals cover."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seg.compression import calibration
from seg.compression.calibration import LEAST, calibrate, narrowed_at, predict_maps, scaled
from seg.compression.sites import (
    DICE_FOR_NATS,
    Curve,
    Measured,
    Site,
    find_sites,
    measure_sites,
    predict_losses,
    projection_of,
    widths_together,
    with_widths,
)
from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import network_from_config
from tests.compression.test_moments import predicted_loss

PLAIN = NetworkConfig(channels=(4, 6, 8), strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)), kernel_sizes=((3, 3, 3),) * 3)
BIAS = -1.0
LEAKY = {"norm": True, "activation": "leaky_relu"}
NETWORKS = {
    "plain": {},
    "linear": {"upsample": "linear"},
    "bottleneck": {"decoder_bottleneck": BottleneckConfig(ratio=0.5), "upsample": "linear"},
    "normed": {"decoder_bottleneck": BottleneckConfig(ratio=1.0, **LEAKY), "deep_supervision": True},
    "skip": {"skip_bottleneck": BottleneckConfig(ratio=(0.5, 1.0))},
    "wide skip": {"skip_bottleneck": BottleneckConfig(ratio=2.0)},
    "add": {"merge": "add"},
    "add, narrow": {"merge": "add", "skip_bottleneck": BottleneckConfig(ratio=0.5)},
    "residual": {"residual": True},
}


def _site(channels, form="mixtures", part="skip"):
    return Site(name="map", part=part, stage=0, channels=channels, module="features", form=form)


def _positive(*shape, seed=0):
    factor = torch.randn(*shape, 2 * shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.mT


class _Linear(nn.Module):
    """A linear head on the image itself, of two classes: the log odds are w h + b."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Identity()
        self.head = nn.Conv3d(6, 2, 1)
        with torch.no_grad():
            self.head.weight *= 0.3
            self.head.bias.copy_(torch.tensor([0.0, BIAS]))

    def forward(self, x):
        return self.head(self.features(x))


def test_the_loss_of_a_projection_in_a_linear_network_is_that_of_the_closed_form():
    net, site = _Linear(), _site(6)
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    images = []
    for seed in range(4):
        noise = torch.randn(1, 6, 24, 24, 24, generator=torch.Generator().manual_seed(seed))
        images.append(torch.einsum("ab,nbxyz->naxyz", mix, noise) + 2)
    measured = measure_sites(net, [site], images)["map"]
    weight = (net.head.weight[1] - net.head.weight[0]).flatten().double()
    values = torch.cat([image.flatten(2) for image in images], 2)[0].double()
    logit = weight @ values + BIAS
    p = logit.sigmoid()
    closed = (p * (1 - p)).sum() / p.sum() * torch.outer(weight, weight)
    found = measured.pooled(range(4))
    largest = float(closed.detach().max())
    torch.testing.assert_close(found.fisher, closed.detach(), rtol=0.05, atol=0.02 * largest)
    centre = (values * p * (1 - p)).sum(1) / (p * (1 - p)).sum()
    torch.testing.assert_close(measured.mean, centre.detach(), rtol=0.05, atol=0.05)
    for rank in (1, 3, 5):
        projection = torch.zeros(6, 6, dtype=torch.float64)
        projection[:rank, :rank] = torch.eye(rank)  # the first channels alone
        moved = measured.mean[:, None] + projection @ (values - measured.mean[:, None])
        q = (weight @ moved + BIAS).sigmoid()
        nats = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / p.sum()
        assert float(predicted_loss(found, projection)) == pytest.approx(float(nats.detach()), rel=0.15)


@pytest.mark.parametrize("form", ["mixtures", "channels"])
def test_no_patient_judges_a_choice_that_was_made_for_it(form):
    measured = Measured(mean=torch.zeros(5), second=_positive(3, 2, 5), fisher=_positive(3, 2, 5, seed=1))
    site, patients = _site(5, form), ["a", "b", "a"]
    curve = predict_losses(site, measured, patients)
    assert curve.widths == (1, 2, 3, 4, 5)
    for width in (1, 3, 5):
        by_patient = []
        for tested, fitted in (([0, 2], [1]), ([1], [0, 2])):
            rest = torch.eye(5, dtype=torch.float64) - projection_of(site, measured.pooled(fitted), width)
            lost = [
                [float((measured.fisher[n, k] @ rest @ measured.second[n, k] @ rest.T).trace()) / 2 for k in (0, 1)]
                for n in tested
            ]
            by_patient.append(np.mean(lost, 0))
        expected = DICE_FOR_NATS * np.mean(by_patient, 0)
        assert curve.lost[curve.at(width)] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("form", ["mixtures", "channels"])
def test_a_narrower_map_is_predicted_to_lose_more(form):
    measured = Measured(mean=torch.zeros(7), second=_positive(3, 2, 7), fisher=_positive(3, 2, 7, seed=1))
    pooled = measured.pooled(range(3))
    lost = [float(predicted_loss(pooled, projection_of(_site(7, form), pooled, width))) for width in range(1, 8)]
    assert all(a > b for a, b in itertools.pairwise(lost))
    assert lost[-1] == pytest.approx(0, abs=1e-6)


def test_a_class_that_a_case_lacks_is_left_out_there():
    fisher = _positive(3, 2, 4, seed=1)
    fisher[0, 1] = torch.nan
    measured = Measured(mean=torch.zeros(4), second=_positive(3, 2, 4), fisher=fisher)
    curve = predict_losses(_site(4), measured, ["a", "b", "c"])
    fewer = Measured(mean=torch.zeros(4), second=measured.second[1:], fisher=fisher[1:])
    assert np.isfinite(curve.high).all()
    only = Measured(mean=torch.zeros(4), second=fewer.second, fisher=torch.full_like(fewer.fisher, torch.nan))
    only.fisher[0, 0] = fisher[1, 0]
    once = predict_losses(_site(4), only, ["b", "c"])
    assert np.isinf(once.high[:-1, 0]).all()  # one patient has no spread
    assert np.isnan(once.lost[:-1, 1]).all()
    assert once.safe(0.5) == 4


def test_no_width_is_safe_for_a_class_that_no_patient_has():
    fisher = _positive(3, 2, 4, seed=1)
    fisher[:, 1] = torch.nan
    curve = predict_losses(_site(4), Measured(mean=torch.zeros(4), second=_positive(3, 2, 4), fisher=fisher), "abc")
    assert np.isfinite(curve.high[:, 0]).all()
    assert (curve.low[:, 1] == 0).all()
    assert np.isinf(curve.high[:-1, 1]).all()
    assert curve.safe(1e9) == 4
    assert curve.worst(1) == 1


def test_intervals_cover_the_mean_of_all_patients():
    generator = torch.Generator().manual_seed(0)
    covered, repeats = 0, 400
    fisher = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
    for _ in range(repeats):
        sizes = torch.exp(0.5 * torch.randn(10, 1, 1, dtype=torch.float64, generator=generator))
        second = sizes * torch.eye(2, dtype=torch.float64)
        measured = Measured(mean=torch.zeros(2), second=second[:, None], fisher=fisher.expand(10, 1, 2, 2))
        curve = predict_losses(_site(2), measured, [str(n) for n in range(10)])
        true = DICE_FOR_NATS * 0.1 * np.exp(0.125) / 2  # the mean of a log-normal size
        covered += bool(curve.low[0, 0] <= true <= curve.high[0, 0])
    assert 0.89 <= covered / repeats <= 0.98


def _curve(name, high):
    values = np.array(high, dtype=float)[:, None]
    site = Site(name=name, part="skip", stage=0, channels=len(high), module="m")
    return Curve(site=site, widths=tuple(range(1, len(high) + 1)), lost=values / 2, low=0 * values, high=values)


def test_a_width_is_safe_where_all_wider_ones_are():
    curve = _curve("map", [0.5, 0.003, 0.02, 0.004, 0.0])
    assert [curve.safe(margin) for margin in (0.001, 0.005, 0.03, 0.6)] == [5, 4, 2, 1]
    safe = [curve.safe(margin) for margin in np.geomspace(1e-4, 1, 50)]
    assert all(a >= b for a, b in itertools.pairwise(safe))


def test_widths_of_several_maps_share_the_margin():
    curves = [_curve("a", [0.5, 0.02, 0.009, 0.0]), _curve("b", [0.9, 0.008, 0.001, 0.0])]
    together = widths_together(curves, 0.01)
    lost = sum(float(curve.lost[curve.at(together[curve.site.name])].max()) for curve in curves)
    assert lost < 0.01
    assert together == {"a": 3, "b": 2}
    assert widths_together(curves, 1e-6) == {"a": 4, "b": 4}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_configuration_with_these_widths_builds_a_network_that_has_them(name):
    config = replace(PLAIN, **NETWORKS[name])
    sites = find_sites(network_from_config(config, 1, 3))
    wanted = {
        site: max(1, site.channels - 1 - (site.part in ("skip", "up"))) for site in sites if site.part != "kernel"
    }
    small = network_from_config(with_widths(config, wanted), 1, 3).eval()
    found = {site.name: site.channels for site in find_sites(small)}
    expected = {
        # A skip that is added has the width of its stage.
        site.name: config.channels[site.stage] - 1 if config.merge == "add" and site.part == "skip" else width
        for site, width in wanted.items()
    }
    assert {name: found.get(name, 1) for name in expected} == expected
    assert small(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
    kernels = {site: 2 for site in sites if site.part == "kernel"}
    assert network_from_config(with_widths(config, kernels), 1, 3).eval()(torch.zeros(1, 1, 8, 8, 8)).shape[1] == 3
    whole = {site: site.channels for site in sites}
    assert with_widths(config, whole) == config


def test_narrowing_every_map_of_every_network_is_measured():
    for options in NETWORKS.values():
        network = network_from_config(replace(PLAIN, **options), 1, 3).eval()
        sites = find_sites(network)
        images = [torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
        measured = measure_sites(network, sites, images)
        assert list(measured) == [site.name for site in sites]
        for site in sites:
            for moments in (measured[site.name].fisher, measured[site.name].second):
                assert moments.shape == (2, 2, site.channels, site.channels)


def test_the_factor_is_what_cuts_lose_over_what_is_predicted(monkeypatch):
    network = network_from_config(PLAIN, 1, 3).eval()
    sites = [site for site in find_sites(network) if site.part != "kernel"]
    windows = [
        (torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.zeros(8, 8, 8))
        for seed in range(3)
    ]
    # Labels are what the network says, so that every change of a label is an error.
    with torch.no_grad():
        windows = [(image, network(image)[0].argmax(0)) for image, _ in windows]
    measured = measure_sites(network, sites, [image for image, _ in windows])
    curves = [predict_losses(site, measured[site.name], ["a", "b", "c"]) for site in sites]
    twice = calibrate(network, curves, measured, windows, 0.05)
    monkeypatch.setattr(calibration, "ROUNDS", 1)
    factor = calibrate(network, curves, measured, windows, 0.05)
    assert factor > LEAST
    # The second round cuts where what was scaled by the first loses the margin.
    again = calibrate(network, [scaled(curve, factor) for curve in curves], measured, windows, 0.05)
    assert again != pytest.approx(1)
    assert twice == pytest.approx(factor * again)
    doubled = [scaled(curve, 2) for curve in curves]
    same = {curve.site.name: curve.lost / 2 for curve in doubled}
    assert all(np.array_equal(same[curve.site.name], curve.lost, equal_nan=True) for curve in curves)
    # What is predicted twice as high at the same widths makes the factor half of it.
    assert calibrate(network, doubled, measured, windows, 0.1) == pytest.approx(factor / 2)
    assert calibrate(network, [scaled(curve, 1e6) for curve in curves], measured, windows, 5e4) == LEAST


@pytest.mark.parametrize("part", ["skip", "encoder"])
def test_a_map_is_narrowed_by_what_was_measured_and_only_meanwhile(part):
    network = network_from_config(PLAIN, 1, 3).eval()
    site = next(site for site in find_sites(network) if site.part == part)
    image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, eye = torch.ones(site.channels), torch.eye(site.channels)
    with torch.no_grad():
        before = network(image)
        with narrowed_at(network, site, mean, eye):
            torch.testing.assert_close(network(image), before)
        with narrowed_at(network, site, mean, 0 * eye):
            constant = network(image)
            seen = []
            hook = network.get_submodule(site.module).register_forward_hook(lambda *found: seen.append(found[2]))
            network(image)
            hook.remove()
    assert not torch.allclose(constant, before)
    assert torch.equal(seen[0], torch.ones_like(seen[0]))
    with torch.no_grad():
        assert torch.equal(network(image), before)


def test_kernels_are_predicted_but_no_part_of_the_correction():
    torch.manual_seed(1)
    network = network_from_config(PLAIN, 1, 3).eval().requires_grad_(False)
    windows = [(torch.randn(1, 1, 16, 16, 16), torch.randint(3, (16, 16, 16))) for _ in range(3)]
    sites = find_sites(network)
    maps = [site for site in sites if site.part != "kernel"]
    about = {"margin": 0.05, "seed": 0}
    whole, alone = (predict_maps(network, some, windows, ["a", "b", "c"], **about) for some in (sites, maps))
    assert [curve.site for curve in whole.curves] == list(sites)
    assert whole.factor == alone.factor
    assert whole.checked == 3
