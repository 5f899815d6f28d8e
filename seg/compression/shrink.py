"""Fewer channels and narrow 1x1 together: chosen place by place, cut in turns, each measured anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log, nan, prod
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from seg.compression.channels import MeasuredMap, cut_channels, feature_maps, measure_maps, with_channels
from seg.compression.cuts import (
    BY_MACS,
    Ends,
    Number,
    Prices,
    cut,
    ends_of,
    kernel_work,
    project,
    ranks_of,
    solve_anew,
    with_ranks,
)
from seg.compression.moments import Place, Projection, measure
from seg.config import NetworkConfig
from seg.errors import ConfigError, Problem
from seg.networks import UNet, complexity, map_elements, padded
from seg.networks.conv import Triple
from seg.networks.layout import PLAIN, Ranks, layout

Kind = Literal["channels", "ranks"]
KINDS: tuple[Kind, ...] = ("channels", "ranks")
DEFAULT: tuple[Kind, ...] = ("ranks",)
"""Channels beside 1x1 measured no better at equal multiply-accumulates: docs/results/compression.md."""
TURN = 0.7
"""One turn keeps at least this share of the work; then everything is measured again."""


class BeyondReachError(ConfigError):
    """A network cannot become so small.

    Attributes:
        least: Work of the narrowest network; another order of cuts may end at a little more or less.
    """

    def __init__(self, problems: Problem | Sequence[Problem], least: float = nan) -> None:
        super().__init__(problems)
        self.least = least


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """What one turn cuts.

    Attributes:
        widths: Channels of the maps that become narrower, by name.
        ranks: Channels of the 1x1 before and behind each kernel where they change, by the name of the convolution.
        work: Work of an image that is left, as the cuts were chosen by.
        loss: Predicted loss of the turn, in nats for each voxel of a class, summed over classes.
    """

    widths: Mapping[str, int]
    ranks: Mapping[str, Ranks]
    work: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """A smaller network.

    Attributes:
        network: The network.
        loss: Predicted losses of all turns, in nats for each voxel of a class, summed over classes.
    """

    network: UNet
    loss: float


def shrink(
    network: UNet,
    images: Sequence[Tensor],
    work: Iterable[float],
    *,
    kinds: Sequence[Kind] = DEFAULT,
    prices: Prices = BY_MACS,
    multiple: int = 1,
    seed: int = 0,
) -> Iterator[Shrunk]:
    """Yields networks of less and less work, each made from the one before.

    Every turn measures what is left, cuts what costs least for the work it saves, and solves all layers anew towards
    the original.

    Args:
        network: A trained network, in evaluation mode.
        images: Images of shape (1, C, X, Y, Z) and of one size, one for each case.
        work: Work of one such image to keep at most, from much to little; each gives one network.
        kinds: What may be cut: channels of maps, 1x1 around kernels, or both.
        prices: Weights of what counts as work. Fewer channels save numbers of feature maps, 1x1 add some.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number, >= 1.
        seed: Seed of labels and voxels that are drawn.

    Raises:
        BeyondReachError: The narrowest network still needs more than is to be kept.
    """
    x, y, z = images[0].shape[2:]
    shape = (x, y, z)
    smaller, loss, kept = network, 0.0, _everything(network)
    for wanted in work:
        while (left := work_of(smaller, smaller.config, shape, prices)) > wanted:
            turns = ceil(log(wanted / left) / log(TURN) - 1e-9)
            maps = measure_maps(smaller, images, seed=seed) if "channels" in kinds else {}
            places = _named(smaller, measure(smaller, images, seed=seed)) if "ranks" in kinds else {}
            projections = dict(zip(places, project(places.values()).values(), strict=True))
            most = left * (wanted / left) ** (1 / turns) if turns > 1 else wanted
            cuts = choose_cuts(smaller, shape, most, maps, places, projections, prices=prices, multiple=multiple)
            smaller = cut_channels(cut(smaller, cuts.ranks, projections), maps, cuts.widths)
            loss += cuts.loss
            for name, width in cuts.widths.items():
                subset = maps[name].subsets[width]
                for writer in maps[name].map.writers:
                    kept[writer] = [kept[writer][channel] for channel in subset.kept]
            solve_anew(network, smaller, images, kept=kept, seed=seed)
        yield Shrunk(network=smaller, loss=loss)


def choose_cuts(
    network: UNet,
    shape: Triple,
    work: float,
    maps: Mapping[str, MeasuredMap],
    places: Mapping[str, Place],
    projections: Mapping[str, tuple[Projection, Projection]],
    *,
    prices: Prices = BY_MACS,
    multiple: int = 1,
) -> Cuts:
    """Chooses cuts one after the other: that of least predicted loss for the work it saves comes first.

    What a cut saves depends on the cuts before it, for the work of a convolution is a product of two widths.

    Args:
        network: The network.
        shape: Voxels of an image along X, Y and Z.
        work: Work of an image to keep at most.
        maps: Maps whose channels may be cut.
        places: Kernels that may get narrower 1x1, by the names of their convolutions.
        projections: Best projections before and behind each of these kernels, in the order of `places`.
        prices: Weights of what counts as work.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number.

    Raises:
        BeyondReachError: The narrowest network still needs more than is to be kept.
    """
    state = _State(network, shape, maps, places, projections, prices, multiple)
    while (left := state.work()) > work:
        found = state.options()
        best = [one.least_for_each() for one in found if bool((one.saved > 0).any())]
        if not best:
            rule, value = f"must keep work of at least {left:.0f}", f"{work:.0f}"
            raise BeyondReachError(Problem("work", "range", rule, value, "give a larger share"), left)
        move = min(best, key=lambda one: one.loss / one.saved)
        if move.saved >= left - work:  # the last cut: the mildest that is enough
            enough = [one.least_of_all(left - work) for one in found if bool((one.saved >= left - work).any())]
            move = min(enough, key=lambda one: one.loss)
        state.take(move)
    return state.cuts()


@dataclass(frozen=True)
class _Move:
    saved: float
    loss: float
    name: str
    to: int | Ranks


@dataclass(frozen=True)
class _Options:
    """Cuts of one map or kernel: what each saves and costs, shape (N,), and the widths that it leaves."""

    name: str
    saved: Tensor
    loss: Tensor
    to: Callable[[int], int | Ranks]

    def least_for_each(self) -> _Move:
        """Returns the cut with the smallest ratio of predicted loss to work saved."""
        return self._move(torch.where(self.saved > 0, self.loss / self.saved, torch.inf))

    def least_of_all(self, needed: float) -> _Move:
        """Returns the cut with the smallest predicted loss among those that save `needed` work or more."""
        return self._move(torch.where(self.saved >= needed, self.loss, torch.inf))

    def _move(self, costs: Tensor) -> _Move:
        index = int(costs.argmin())
        return _Move(float(self.saved[index]), float(self.loss[index]), self.name, self.to(index))


class _State:
    """Widths of maps and ranks of kernels while cuts are chosen."""

    def __init__(
        self,
        network: UNet,
        shape: Triple,
        maps: Mapping[str, MeasuredMap],
        places: Mapping[str, Place],
        projections: Mapping[str, tuple[Projection, Projection]],
        prices: Prices,
        multiple: int,
    ) -> None:
        self.network, self.shape, self.maps, self.places = network, shape, maps, places
        self.widths = {name: one.map.channels for name, one in maps.items()}
        self.losses = {
            name: torch.tensor(
                [torch.inf] + [one.subsets[width].loss for width in range(1, one.map.channels + 1)], dtype=torch.float64
            )
            for name, one in maps.items()
        }
        self.before = {name: ranks_of(network.get_submodule(name)) for name in places}
        self.ranks = dict(self.before)
        self.sides = {
            name: ((place.before.channels, pair[0].loss), (place.behind.channels, pair[1].loss))
            for (name, place), pair in zip(places.items(), projections.values(), strict=True)
        }
        self.whole = {name: ends_of(network, name) for name in places}
        self.touching = {}
        for name, ends in self.whole.items():
            reads = [one.map for one in maps.values() if name in dict(one.map.readers)]
            writes = [one.map for one in maps.values() if name.removesuffix(".conv") in one.map.writers]
            self.touching[name] = reads, writes, [one for one in reads if ends.enlarged and one.where[0] == "up"]
        self.prices, self.multiple = prices, multiple
        self.known: dict[str, tuple[tuple[Ends, Ranks], _Options]] = {}

    def work(self, changed: Mapping[str, int] = MappingProxyType({})) -> float:
        """Returns the work of the network at the widths chosen so far; `changed` gives other widths of maps by name."""
        where = {self.maps[name].map.where: width for name, width in (self.widths | dict(changed)).items()}
        config = with_channels(with_ranks(self.network.config, self.ranks), where)
        return work_of(self.network, config, self.shape, self.prices)

    def ends(self, name: str) -> Ends:
        """Returns how many channels a convolution reads and writes at the widths chosen so far."""
        read, written, enlarged = (
            sum(one.channels - self.widths[one.name] for one in maps) for maps in self.touching[name]
        )
        ends = self.whole[name]
        return replace(ends, read=ends.read - read, written=ends.written - written, enlarged=ends.enlarged - enlarged)

    def work_at(self, name: str, ends: Ends, ranks: tuple[Number, Number]) -> Number:
        """Returns what it costs to apply one kernel and the 1x1 around it, as a sum weighted by `self.prices`."""
        return kernel_work(self.places[name], ends, ranks, prod(self.shape), self.prices)

    def saved(self, name: str, narrow: Tensor) -> Tensor:
        """Returns how much work narrower widths of a map save, shape of `narrow`.

        Readers save with each channel, and writers with each vector of channels.
        """
        width, vector = self.widths[name], self.prices.vector
        whole = padded(width, vector)
        at_whole = self.work({name: whole})
        channel = at_whole - self.work({name: whole - 1})
        further = self.work({name: whole + 1}) - at_whole - channel  # what one more vector costs the writers
        return channel * (width - narrow).double() + further * ((whole - padded(narrow, vector)) // vector).double()

    def options(self) -> list[_Options]:
        """Lists for each feature map and kernel the cuts that remain, with the work that each saves."""
        found = []
        for name, width in self.widths.items():
            one, losses = self.maps[name].map, self.losses[name]
            to = [w for w in range(self.multiple, width, self.multiple) if w >= one.least]
            if to:
                narrow = torch.tensor(to)
                found.append(_Options(name, self.saved(name, narrow), losses[narrow] - losses[width], to.__getitem__))
        for name in self.places:
            ends, now = self.ends(name), self.ranks[name]
            if name not in self.known or self.known[name][0] != (ends, now):
                self.known[name] = (ends, now), self._rank_options(name, ends, now)
            found.append(self.known[name][1])
        return found

    def _rank_options(self, name: str, ends: Ends, now: Ranks) -> _Options:
        sides = []
        steps = (1, self.multiple)  # engines read channels one by one, and write vectors of them
        for (inner, losses), width, rank, before, step in zip(
            self.sides[name], (ends.read, ends.written), now, self.before[name], steps, strict=True
        ):
            ranks, lost = torch.tensor([rank]), losses.new_zeros(1)
            if rank or not before:  # a 1x1 that was folded in this turn stays folded
                narrower = torch.tensor(range(step, min(rank or inner, width), step), dtype=torch.int64)
                ranks = torch.cat((ranks, narrower))
                lost = torch.cat((lost, losses[narrower] - losses[rank or inner]))
            sides.append((ranks, lost))
        (reads, lost), (writes, too) = sides
        work = self.work_at(name, ends, (reads[:, None].double(), writes[None].double()))
        saved = self.work_at(name, ends, now) - work

        def to(index: int) -> Ranks:
            return int(reads[index // len(writes)]), int(writes[index % len(writes)])

        return _Options(name, saved.flatten(), (lost[:, None] + too).flatten(), to)

    def take(self, move: _Move) -> None:
        """Makes a cut, and folds each 1x1 that saves nothing any more into its kernel."""
        if isinstance(move.to, int):
            self.widths[move.name] = move.to
        else:
            self.ranks[move.name] = move.to
        for name in self.places:
            ends, (reads, writes) = self.ends(name), self.ranks[name]
            left = [(0, 0), (0, writes), (reads, 0), (reads, writes)]  # of those with as little work, the first
            self.ranks[name] = min(left, key=lambda ranks: self.work_at(name, ends, ranks))

    def cuts(self) -> Cuts:
        """Returns all cuts that were taken, with the work that is left and the predicted loss."""
        widths = {name: width for name, width in self.widths.items() if width != self.maps[name].map.channels}
        ranks = {name: found for name, found in self.ranks.items() if found != self.before[name]}
        loss = sum(float(self.losses[name][width]) for name, width in widths.items())
        loss += sum(
            float(losses[rank])
            for name, found in ranks.items()
            for rank, (_, losses) in zip(found, self.sides[name], strict=True)
            if rank
        )
        return Cuts(widths=widths, ranks=ranks, work=self.work(), loss=loss)


def work_of(network: UNet, config: NetworkConfig, shape: Triple, prices: Prices = BY_MACS) -> float:
    """Adds up the work of a network on one image: multiply-accumulates, numbers in feature maps, and parameters.

    Each of the three is weighted by its price.

    Args:
        network: A network with the same inputs and classes.
        config: The architecture.
        shape: Voxels of an image along X, Y and Z.
        prices: Weights of what counts as work.
    """
    cost = complexity(network.in_channels, network.out_channels, config, shape=shape)
    return prices.work(cost.vector_macs(prices.vector), map_elements(config, shape=shape), cost.parameters)


def _named(network: UNet, places: Sequence[Place]) -> dict[str, Place]:
    """Returns places by the names of their convolutions, whether 1x1 stand around the kernels or not."""
    inner = ".conv.conv"  # the kernel of a convolution that has 1x1, or of a bottleneck
    found = {}
    for place in places:
        parent = place.name.removesuffix(".conv")
        factored = place.name.endswith(inner) and ranks_of(network.get_submodule(parent)) != PLAIN
        found[parent if factored else place.name] = place
    return found


def _everything(network: UNet) -> dict[str, list[int]]:
    """Returns the indices of all channels that a module writes, by the module's name."""
    return {writer: list(range(one.channels)) for one in feature_maps(network) for writer in one.writers}


def kinds_cut(before: NetworkConfig, behind: NetworkConfig) -> set[Kind]:
    """Tells in which ways a smaller network was cut from the original: fewer channels, 1x1 around kernels, or both.

    Args:
        before: Architecture of the original.
        behind: Architecture of the smaller network.
    """
    whole, small = layout(before), layout(behind)
    with_ranks = replace(whole, encoder_ranks=small.encoder_ranks, decoder_ranks=small.decoder_ranks)
    cut: dict[Kind, bool] = {"ranks": with_ranks != whole, "channels": with_ranks != small}
    return {kind for kind, found in cut.items() if found}
