"""Cut networks against the original at full rank, the choice of widths against every other one, least squares."""

import itertools

import pytest
import torch

from seg.compression.cuts import choose, cut, kernel_macs, least_macs, project, solve_anew
from seg.compression.widths import Moments, Place, measure
from seg.config import BottleneckConfig, NetworkConfig
from seg.errors import ConfigError
from seg.networks import network_from_config
from seg.networks.complexity import checked_complexity

SHAPE = (8, 8, 8)
OPTIONS = [
    {},
    {"residual": True, "merge": "add", "upsample": "linear"},
    {"decoder_bottleneck": BottleneckConfig(ratio=0.5, norm=True, activation="leaky_relu"), "upsample": "linear"},
    {"skip_bottleneck": BottleneckConfig(ratio=0.5), "deep_supervision": True},
]


def _network(**options):
    config = NetworkConfig(
        channels=(4, 6, 8),
        strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
        kernel_sizes=((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        **options,
    )
    torch.manual_seed(0)
    return network_from_config(config, 2, 3).double().requires_grad_(False).eval()


def _images(count, size=SHAPE):
    stream = torch.Generator().manual_seed(7)
    return [torch.randn(1, 2, *size, dtype=torch.float64, generator=stream) for _ in range(count)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_at_full_rank_a_cut_network_computes_the_same_function(options):
    net, (image, *others) = _network(**options), _images(3)
    places = measure(net, [image, *others])
    ranks = {place.name: (place.before.channels, place.behind.channels) for place in places}
    whole = cut(net, ranks, project(places))
    torch.testing.assert_close(whole(image), net(image), rtol=1e-5, atol=1e-6)
    only_before = {name: (one, 0) for name, (one, _) in ranks.items()}
    torch.testing.assert_close(cut(net, only_before, project(places))(image), net(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_work_of_a_cut_network_is_what_torch_counts(options):
    net = _network(**options)
    places = measure(net, _images(2))
    projections = project(places)
    whole = sum(map(kernel_macs, places))
    most = whole - least_macs(places, projections)
    choice = choose(places, projections, 0.6 * most)
    small = cut(net, choice.ranks, projections)
    before = checked_complexity(2, 3, net.config, shape=SHAPE)
    after = checked_complexity(2, 3, small.config, shape=SHAPE)
    assert whole - choice.macs >= 0.6 * most
    assert before.macs - after.macs == pytest.approx(512 * (whole - choice.macs))
    assert after.parameters == sum(p.numel() for p in small.parameters())
    assert after.parameters < before.parameters


@pytest.mark.parametrize("ranks", [(1, 0), (0, 2), (2, 3)])
def test_work_of_a_kernel_counts_its_1x1_where_they_stand(ranks):
    net = _network()
    places = measure(net, _images(1))
    small = cut(net, {place.name: ranks for place in places}, project(places))
    saved = sum(kernel_macs(place) - kernel_macs(place, ranks) for place in places)
    before, after = (checked_complexity(2, 3, n.config, shape=SHAPE).macs for n in (net, small))
    assert before - after == pytest.approx(512 * saved)


def _place(name, read, written, seed):
    def positive(channels, seed):
        factor = torch.randn(channels, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return (factor @ factor.T)[None]

    def moments(channels, seed):
        return Moments(second=positive(channels, seed), fisher=positive(channels, seed + 1))

    return Place(
        name=name, taps=27, voxels=0.5, voxels_read=1.0, before=moments(read, seed), behind=moments(written, seed + 2)
    )


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_no_other_widths_with_as_little_work_lose_less(share):
    places = [_place("a", 5, 4, 0), _place("b", 3, 6, 10)]
    projections = project(places)
    whole = sum(map(kernel_macs, places))
    choice = choose(places, projections, share * (whole - least_macs(places, projections)))

    def lost(place, ranks):
        return sum(float(p.loss[r]) for p, r in zip(projections[place.name], ranks, strict=True) if r)

    found = [
        [(kernel_macs(place, ranks), lost(place, ranks)) for ranks in itertools.product(range(a), range(b))]
        for place, a, b in zip(places, (5, 3), (4, 6), strict=True)
    ]
    others = [one[1] + other[1] for one in found[0] for other in found[1] if one[0] + other[0] <= choice.macs + 1e-9]
    assert choice.loss == pytest.approx(min(others))
    assert choice.macs == pytest.approx(sum(kernel_macs(p, choice.ranks.get(p.name, (0, 0))) for p in places))


def test_widths_are_multiples_where_asked():
    places = [_place("a", 8, 16, 0), _place("b", 12, 8, 10)]
    projections = project(places)
    whole = sum(map(kernel_macs, places))
    choice = choose(places, projections, 0.3 * whole, multiple=4)
    assert choice.ranks
    assert all(rank % 4 == 0 for ranks in choice.ranks.values() for rank in ranks)


def test_more_than_there_is_cannot_be_saved():
    places = [_place("a", 5, 4, 0)]
    with pytest.raises(ConfigError) as caught:
        choose(places, project(places), kernel_macs(places[0]))
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == ("macs", "range")


def test_a_kernel_is_solved_from_its_inputs_and_the_outputs_of_the_original():
    net, images = _network(), _images(3)
    changed = cut(net, {}, {})
    for kernel in (changed.encoder[0][0].conv, changed.encoder[1][0].conv):
        kernel.weight.copy_(torch.randn(kernel.weight.shape, generator=torch.Generator().manual_seed(1)))
    solve_anew(net, changed, images)
    for stage in (0, 1):
        found, wanted = (n.encoder[stage][0].conv.weight for n in (changed, net))
        assert float((found - wanted).norm() / wanted.norm()) < 0.05
        norms = [n.encoder[stage][0].norm.weight for n in (changed, net)]
        torch.testing.assert_close(*norms, rtol=0.02, atol=0)


def test_what_fits_already_stays_as_it_is():
    net, images = _network(), _images(2)
    places = measure(net, images)
    ranks = {place.name: (place.before.channels, place.behind.channels) for place in places}
    whole = cut(net, ranks, project(places))
    solve_anew(net, whole, images)
    torch.testing.assert_close(whole(images[0]), net(images[0]), rtol=1e-3, atol=1e-3)


def test_solving_anew_lessens_what_a_cut_costs_on_other_images():
    net, images = _network(), _images(6, (16, 16, 16))
    places = measure(net, images[:4])
    projections = project(places)
    choice = choose(places, projections, 0.5 * sum(map(kernel_macs, places)))

    def divergence(other):
        total = 0.0
        for image in images[4:]:
            p, q = (n(image).log_softmax(1) for n in (net, other))
            total += float((p.exp() * (p - q)).sum(1).mean())
        return total

    small = cut(net, choice.ranks, projections)
    before = divergence(small)
    solve_anew(net, small, images[:4])
    assert divergence(small) < 0.9 * before
