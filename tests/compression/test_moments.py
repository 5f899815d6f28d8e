"""Predicted losses against closed forms, against least squares, and against what a network really loses."""

import pytest
import torch
from torch import nn

from seg.compression.moments import Moments, best_channels, best_projection, class_odds, drawn_loss, measure
from seg.config import NetworkConfig
from seg.networks import network_from_config

CONFIG = NetworkConfig(channels=(4, 6), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (1, 3, 3)))


def _positive(*shape, seed=0):
    factor = torch.randn(*shape, 2 * shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.mT


def predicted_loss(moments, projection):
    """Predicts what a projection of shape (C, C) costs, in the units of the Fisher matrix."""
    rest = torch.eye(moments.channels, dtype=projection.dtype) - projection
    return torch.einsum("ab,bc,cd,ad->", moments.fisher, rest, moments.second, rest) / 2


@pytest.fixture
def moments():
    return Moments(second=_positive(7), fisher=_positive(7, seed=1))


def test_the_loss_of_a_projection_is_the_mean_square_of_what_it_changes():
    generator = torch.Generator().manual_seed(2)
    h = torch.randn(5, 1000, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    projection = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    moments = Moments(second=h @ h.T / 1000, fisher=weight.T @ weight)
    found = predicted_loss(moments, projection)
    expected = (weight @ (h - projection @ h)).square().sum(0).mean() / 2
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_unweighted_the_best_projection_is_that_of_principal_components(moments):
    plain = Moments(second=moments.second, fisher=torch.eye(7, dtype=torch.float64))
    values = torch.linalg.eigvalsh(moments.second)
    expected = [float(values[: 7 - rank].sum()) / 2 for rank in range(8)]
    assert best_projection(plain).loss.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_no_projection_of_a_rank_loses_less_than_the_best(moments, rank):
    best = best_projection(moments)
    projection = best.left[:, :rank] @ best.right[:, :rank].T
    torch.testing.assert_close(projection @ projection, projection)
    lost = float(predicted_loss(moments, projection))
    assert lost == pytest.approx(float(best.loss[rank]), rel=1e-6)
    generator = torch.Generator().manual_seed(3)
    for size in (1e-3, 1e-1, 1.0):
        moved = best.left[:, :rank] + size * torch.randn(7, rank, dtype=torch.float64, generator=generator)
        other = moved @ torch.linalg.pinv(moved)
        near = moved @ (best.right[:, :rank].T + size * torch.randn(rank, 7, dtype=torch.float64, generator=generator))
        assert float(predicted_loss(moments, other)) > lost
        assert float(predicted_loss(moments, near)) > lost


def test_at_full_rank_a_projection_is_the_identity(moments):
    best = best_projection(moments)
    torch.testing.assert_close(best.left @ best.right.T, torch.eye(7, dtype=torch.float64))
    assert float(best.loss[7]) == 0


def test_substitutes_are_those_of_least_squares_and_the_loss_is_what_they_leave(moments):
    second = moments.second
    table = best_channels(moments)
    assert sorted(table) == list(range(1, 8))
    for width, subset in table.items():
        kept = list(subset.kept)
        assert len(kept) == width
        expected = second[:, kept] @ torch.linalg.inv(second[kept][:, kept])
        torch.testing.assert_close(subset.substitutes, expected, rtol=1e-4, atol=1e-4)
        spread = torch.zeros(7, 7, dtype=torch.float64)
        spread[:, kept] = subset.substitutes
        assert subset.loss == pytest.approx(float(predicted_loss(moments, spread)), rel=1e-3, abs=1e-4)


def test_a_channel_that_others_determine_is_left_out_first():
    generator = torch.Generator().manual_seed(4)
    h = torch.randn(4, 500, dtype=torch.float64, generator=generator)
    h[2] = 3 * h[0] - h[3]
    table = best_channels(Moments(second=h @ h.T / 500, fisher=_positive(4)))
    assert len({0, 2, 3} & set(table[3].kept)) == 2
    assert table[3].loss < 1e-3 * table[2].loss


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_odds_are_those_of_each_class_against_all_others(classes):
    logits = 5 * torch.randn(2, classes, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(class_odds(logits).sigmoid(), logits.softmax(1)[:, 1:])


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_odds_of_a_network_that_is_certain_are_no_less_exact(classes):
    logits = 100 * torch.randn(2, classes, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    found, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    rest = [exact[:, [j for j in range(classes) if j != k]].logsumexp(1) for k in range(1, classes)]
    odds = exact[:, 1:] - torch.stack(rest, 1)
    torch.testing.assert_close(class_odds(found), odds.float(), rtol=1e-5, atol=1e-4)
    for one in (class_odds(found), odds):
        one.square().sum().backward()
    torch.testing.assert_close(found.grad, exact.grad.float(), rtol=1e-4, atol=1e-2)


def test_no_label_of_a_structure_is_drawn_where_it_is_all_but_impossible():
    logits = torch.zeros(1, 2, 128, 128, 128)
    logits[:, 0] = 25
    logits[0, :, :2, :2, :3] = 0
    logits[0, 1, :2, :2, :3] = 0.1
    logits.requires_grad_()
    drawn_loss(logits, torch.Generator().manual_seed(3)).backward()  # in float32 a number of this seed is 0
    logits.grad[0, :, :2, :2, :3] = 0
    assert logits.grad.abs().max() < 1e-3


def test_a_class_that_is_most_likely_nowhere_is_left_out():
    logits = torch.tensor([2.0, 1.0, 0.0]).view(1, 3, 1, 1, 1).repeat(1, 1, 4, 4, 4)
    logits[0, 1, 0] = 3
    merged = torch.stack((logits[:, [0, 2]].logsumexp(1), logits[:, 1]), 1)  # as if it were background
    gradients = []
    for one in (logits, merged):  # labels of the first class are drawn first, so they are the same
        drawn_loss(one.requires_grad_(), torch.Generator().manual_seed(0)).backward()
        gradients.append(one.grad)
    whole, two = gradients
    assert two.any()
    torch.testing.assert_close(whole[:, 1], two[:, 1])
    torch.testing.assert_close(whole[:, [0, 2]].sum(1), two[:, 0])


class _Linear(nn.Module):
    """Features by a 3x3 convolution, read by a linear head: losses are exact to second order."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(2, 6, 3, padding=1, bias=False)
        self.head = nn.Conv3d(6, 3, 1)
        self.projection = torch.eye(6)
        with torch.no_grad():
            self.head.weight *= 0.3
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(torch.einsum("ab,nbxyz->naxyz", self.projection, self.conv(x)))


def test_fisher_matrix_is_that_of_each_class_and_the_loss_is_what_the_network_loses():
    net = _Linear()
    images = [torch.randn(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    (place,) = measure(net, images)
    assert (place.name, place.taps, place.voxels) == ("conv", 27, 1)
    with torch.no_grad():
        p = torch.cat([net(image).softmax(1).flatten(2) for image in images])
    assert set(p.argmax(1).flatten().tolist()) == {0, 1, 2}
    voxels = p.sum(2)
    weight, expected = net.head.weight.detach().flatten(1), torch.zeros(6, 6)
    for k in (1, 2):
        # The log-odds of a class change with its own logit, and with those of the others by their shares of the rest.
        slope = -p / (1 - p[:, k : k + 1])
        slope[:, k] = 1
        variance = p[:, k] * (1 - p[:, k]) / voxels[:, k, None]
        expected += weight.T @ torch.einsum("nv,nav,nbv->ab", variance, slope, slope) @ weight / len(p)
    largest = float(expected.max())
    torch.testing.assert_close(place.behind.fisher.float(), expected, rtol=0.1, atol=0.02 * largest)
    best = best_projection(place.behind)
    for rank in (1, 2, 3, 4, 5):
        projection = best.left[:, :rank] @ best.right[:, :rank].T
        net.projection = projection.float()
        with torch.no_grad():
            q = torch.cat([net(image).softmax(1).flatten(2) for image in images])
        nats = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(2) / voxels
        measured = float(nats[:, 1:].sum(1).mean())
        predicted = float(predicted_loss(place.behind, projection))
        assert measured == pytest.approx(predicted, rel=0.15, abs=1e-6)


def test_gradients_of_a_skip_are_those_of_its_own_reader():
    torch.manual_seed(0)
    net = network_from_config(CONFIG, 1, 2).double().eval()
    image = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    places = {place.name: place for place in measure(net, [image], seed=5)}
    assert list(places) == [
        *("encoder.0.0.conv", "encoder.0.1.conv", "encoder.1.0.conv", "encoder.1.1.conv"),
        *("decoder.0.block.0.conv", "decoder.0.block.1.conv"),
    ]
    assert places["encoder.1.0.conv"].voxels == 1 / 8
    assert places["encoder.1.0.conv"].taps == 9
    # The same gradient by torch alone: the lower stage reads the sum of the feature map and a zero of its own.
    zero = torch.zeros(1, 4, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    hook = net.encoder[1].register_forward_pre_hook(lambda _module, inputs: (inputs[0] + zero,))
    logits = net(image)
    hook.remove()
    drawn_loss(logits, torch.Generator().manual_seed(5)).backward()
    g = zero.grad[0].flatten(1)
    assert g.any()
    torch.testing.assert_close(places["encoder.1.0.conv"].before.fisher, g @ g.T / 512)
