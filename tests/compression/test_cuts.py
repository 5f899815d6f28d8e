"""Cut networks against the original at full rank, their work as it is counted, and least squares."""

from math import prod

import pytest
import torch

from seg.compression.cuts import BY_MACS, BY_PARAMETERS, Prices, cut, ends_of, kernel_work, project, solve_anew
from seg.compression.moments import measure
from seg.compression.shrink import choose_cuts
from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import map_elements, network_from_config
from tests.costs import checked_complexity

SHAPE = (8, 8, 8)
OPTIONS = [
    {},
    {"residual": True, "merge": "add", "upsample": "linear"},
    {"upsample": "linear"},
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


def kernel_cost(net, place, ranks=(0, 0), *, shape=SHAPE, prices=BY_MACS):
    """Returns what a kernel with its 1x1 costs on an image, at the channels that it reads and writes."""
    return kernel_work(place, ends_of(net, place.name), ranks, prod(shape), prices)


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
    before = checked_complexity(2, 3, net.config, shape=SHAPE)
    projections = project(places)
    choice = choose_cuts(net, SHAPE, 0.7 * before.macs, {}, {place.name: place for place in places}, projections)
    small = cut(net, choice.ranks, projections)
    after = checked_complexity(2, 3, small.config, shape=SHAPE)
    saved = sum(
        kernel_cost(net, place) - kernel_cost(net, place, choice.ranks.get(place.name, (0, 0))) for place in places
    )
    assert after.macs == choice.work <= 0.7 * before.macs
    assert before.macs - after.macs == pytest.approx(saved)
    assert after.parameters == sum(p.numel() for p in small.parameters())
    assert after.parameters < before.parameters


@pytest.mark.parametrize(
    ("prices", "count"),
    [
        (BY_MACS, lambda net: checked_complexity(2, 3, net.config, shape=SHAPE).macs),
        (BY_PARAMETERS, lambda net: sum(parameter.numel() for parameter in net.parameters())),
        (Prices(mac=0, element=1), lambda net: map_elements(net.config, shape=SHAPE)),
        (Prices(vector=4), lambda net: checked_complexity(2, 3, net.config, shape=SHAPE).vector_macs(4)),
        (
            Prices(element=3, parameter=5, vector=4),
            lambda net: (
                checked_complexity(2, 3, net.config, shape=SHAPE).vector_macs(4)
                + 3 * map_elements(net.config, shape=SHAPE)
                + 5 * sum(parameter.numel() for parameter in net.parameters())
            ),
        ),
    ],
    ids=["macs", "parameters", "elements", "vectors", "all"],
)
@pytest.mark.parametrize("ranks", [(1, 0), (0, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_work_of_a_kernel_counts_its_1x1_where_they_stand(options, ranks, prices, count):
    net = _network(**options)
    places = measure(net, _images(1))
    choice = {
        place.name: (min(ranks[0], place.before.channels), min(ranks[1], place.behind.channels)) for place in places
    }
    small = cut(net, choice, project(places))
    saved = sum(
        kernel_cost(net, place, prices=prices) - kernel_cost(net, place, choice[place.name], prices=prices)
        for place in places
    )
    assert count(net) - count(small) == pytest.approx(saved)


def test_a_kernel_is_solved_from_its_inputs_and_the_outputs_of_the_original():
    net, images = _network(), _images(3)
    changed = cut(net, {}, {})
    for kernel in (changed.encoder[0][0].conv, changed.encoder[1][0].conv):
        kernel.weight.copy_(torch.randn(kernel.weight.shape, generator=torch.Generator().manual_seed(1)))
    solve_anew(net, changed, images, kept={})
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
    solve_anew(net, whole, images, kept={})
    torch.testing.assert_close(whole(images[0]), net(images[0]), rtol=1e-3, atol=1e-3)


def test_solving_anew_lessens_what_a_cut_costs_on_other_images():
    net, images = _network(), _images(6, (16, 16, 16))
    places = measure(net, images[:4])
    projections = project(places)
    most = 0.5 * checked_complexity(2, 3, net.config, shape=(16, 16, 16)).macs
    choice = choose_cuts(net, (16, 16, 16), most, {}, {place.name: place for place in places}, projections)

    def divergence(other):
        total = 0.0
        for image in images[4:]:
            p, q = (n(image).log_softmax(1) for n in (net, other))
            total += float((p.exp() * (p - q)).sum(1).mean())
        return total

    small = cut(net, choice.ranks, projections)
    before = divergence(small)
    solve_anew(net, small, images[:4], kept={})
    assert divergence(small) < 0.9 * before
