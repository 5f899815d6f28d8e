"""Other ways to choose what a trained network loses, in the loop of `seg compress`, judged without tuning."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from seg.compression import shrink as loop
from seg.compression.channels import MeasuredMap, measure_maps
from seg.compression.moments import Moments, Place, Projection, best_channels, best_projection, measure
from seg.compression.original import changes_of_dice, cost, dice_of, window
from seg.compression.widths import read_trained
from seg.data.splits import spread_over
from seg.files import table_text, write_text
from seg.networks import UNet

Pair = tuple[Projection, Projection]
Row = dict[str, float | str]


def pca(place: Place, kernel: Tensor) -> Pair:
    """Keeps the directions of most variance; the loss is half the share of variance that is gone."""
    return _by_variance(place.before.second), _by_variance(place.behind.second)


def tucker(place: Place, kernel: Tensor) -> Pair:
    """Keeps what changes the kernel's own output least: Tucker-2 weighted by the covariance of the inputs.

    References:
        The weighting is that of arXiv:2511.04494. Before the kernel (O, I, taps) the error of the output is
        tr(G (I - P) S (I - P)^T) with the Gram matrix G of the kernel over its inputs; behind it, that of the output.
    """
    second = place.before.second
    gram = torch.einsum("oat,obt->ab", kernel, kernel)
    energy = (gram * second).sum()
    before = best_projection(Moments(second=second, fisher=gram / energy))
    return before, _by_variance(place.behind.second)


def eigendamage(place: Place, kernel: Tensor) -> Pair:
    """Keeps eigenvectors of the factors of the kernel's own curvature, by what removing each is predicted to cost.

    References:
        C. Wang et al., "EigenDamage", 2019, arXiv:1905.05934. The curvature of the weights is taken as the product of
        the covariance of the inputs and the Fisher matrix of the outputs; a direction costs its squared weights in
        both eigenbases times both eigenvalues, halved.
    """
    into, a = torch.linalg.eigh(place.before.second)
    out, b = torch.linalg.eigh(place.behind.fisher)
    turned = torch.einsum("oit,op,iq->pqt", kernel, b, a).square().sum(2)
    cost_of = turned * out.clamp_min(0)[:, None] * into.clamp_min(0) / 2
    return _ranked(a, cost_of.sum(0)), _ranked(b, cost_of.sum(1))


def random(place: Place, kernel: Tensor) -> Pair:
    """Keeps random directions; each counts as the same share of its map."""
    stream = torch.Generator().manual_seed(place.before.channels + 1000 * place.behind.channels)
    sizes = (place.before.channels, place.behind.channels)
    bases = [torch.linalg.qr(torch.randn(size, size, generator=stream).double())[0] for size in sizes]
    before, behind = (_ranked(basis, torch.full((len(basis),), 1 / len(basis)).double()) for basis in bases)
    return before, behind


BASES: dict[str, Callable[[Place, Tensor], Pair]] = {
    "pca": pca,
    "tucker": tucker,
    "eigendamage": eigendamage,
    "random": random,
}
"""Ways to choose linear 1x1."""
METHODS = ("ours", *BASES, "ours_channels", "variance_channels")


def variance_channels(network: UNet, images: Iterable[Tensor], *, seed: int = 0) -> dict[str, MeasuredMap]:
    """Chooses the channels from which the others follow best, whatever reads them; the loss is a share of variance.

    References:
        J. Chee et al., "Model preserving compression for neural networks", 2022, arXiv:2108.00065.
        Deviation: channels are left out one after the other, and not chosen by a pivoted QR.
    """
    found = {}
    for name, one in measure_maps(network, images, seed=seed).items():
        second = one.moments.second
        plain = Moments(second=second / second.trace(), fisher=torch.eye(len(second)).double())
        found[name] = replace(one, moments=plain, subsets=best_channels(plain))
    return found


@contextmanager
def chosen_by(method: str, *, solved: bool) -> Iterator[tuple[loop.Kind, ...]]:
    """Lets `shrink` choose by a method, and leaves layers as they were cut where they are not solved anew."""
    networks: list[UNet] = []

    def measured(network: UNet, images: Iterable[Tensor], *, seed: int = 0) -> tuple[Place, ...]:
        networks.append(network)
        return measure(network, images, seed=seed)

    def projected(places: Iterable[Place]) -> dict[str, Pair]:
        kernels = {place: networks[-1].get_submodule(place.name) for place in places}
        return {
            place.name: BASES[method](place, _weight(kernel).flatten(2).double()) for place, kernel in kernels.items()
        }

    with ExitStack() as changed:
        if method in BASES:
            changed.enter_context(patch.object(loop, "measure", measured))
            changed.enter_context(patch.object(loop, "project", projected))
        if method == "variance_channels":
            changed.enter_context(patch.object(loop, "measure_maps", variance_channels))
        if not solved:
            changed.enter_context(patch.object(loop, "solve_anew", lambda *_, **__: None))
        yield ("channels",) if method.endswith("channels") else ("ranks",)


def compare(
    run_dir: Path, data_root: Path | None, shares: Sequence[float], count: int, methods: Sequence[str] = METHODS
) -> Iterator[Row]:
    """Yields what a trained network loses by each method, with and without layers solved anew.

    Args:
        run_dir: Finished run of one fold.
        data_root: Folder of the data set, where it moved.
        shares: Shares of the multiply-accumulates that are kept, falling.
        count: Training cases that are measured, one window each.
        methods: Methods, of `METHODS`.

    Yields:
        A row for each network: mean change of Dice of each class over one window of each held-out case, its standard
        error over cases, and what the network needs.
    """
    run, split, dataset, network = read_trained(run_dir, data_root)
    config = run.config
    cases = {case.id: case for case in dataset.cases}
    images = [window(cases[name], config, dataset.ignore_label)[0] for name in spread_over(list(split.train), count)]
    held_out = [window(cases[name], config, dataset.ignore_label) for name in split.validation]
    whole = dice_of(network, held_out)
    macs = cost(network, config)[0]
    for method in methods:
        for solved in (True, False):
            with chosen_by(method, solved=solved) as kinds:
                smaller = loop.shrink(network, images, [share * macs for share in shares], kinds=kinds)
                for share, small in zip(shares, smaller, strict=True):
                    lost = changes_of_dice(whole, dice_of(small.network, held_out))
                    left, parameters = cost(small.network, config)
                    row: Row = {"run": run_dir.name, "method": method, "solved": str(solved), "share": share}
                    row |= {"macs": left / macs, "parameters": parameters, "dice": float(np.nanmean(lost))}
                    spread = np.nanmean(lost, 1).std(ddof=1) / len(lost) ** 0.5
                    row |= {"standard_error": float(spread)}
                    classes = zip(run.class_names[1:], np.nanmean(lost, 0), strict=True)
                    yield row | {f"dice_{name}": float(value) for name, value in classes}


def _by_variance(second: Tensor) -> Projection:
    values, basis = torch.linalg.eigh(second / second.trace())
    return _ranked(basis, values.clamp_min(0) / 2)


def _ranked(basis: Tensor, lost: Tensor) -> Projection:
    """Orders an orthonormal basis (C, C) by what removing each vector costs, shape (C,)."""
    order = lost.argsort(descending=True)
    left = basis[:, order]
    rest = torch.cat((lost[order].flip(0).cumsum(0).flip(0), lost.new_zeros(1)))
    return Projection(left=left, right=left, loss=rest)


def _weight(kernel: nn.Module) -> Tensor:
    assert isinstance(kernel, nn.Conv3d)
    return kernel.weight.detach()


def main() -> None:
    """Runs the comparison that the command line asks for, and writes a row for each network as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, metavar="DIR", help="finished run of one fold")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file, a row for each network")
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="folder of the data set, where it moved")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.5, 0.35, 0.25],
        metavar="SHARE",
        help="multiply-accumulates kept, falling (default: 0.5 0.35 0.25)",
    )
    parser.add_argument("--cases", type=int, default=10, metavar="N", help="training cases measured (default: 10)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="of these methods alone")
    options = parser.parse_args()
    rows: list[Row] = []
    for row in compare(options.run_dir, options.data_root, options.shares, options.cases, options.methods):
        rows.append(row)
        write_text(options.output, table_text(rows))
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
