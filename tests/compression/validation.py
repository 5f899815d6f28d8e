"""What is predicted of narrower maps against what a trained network loses: one place cut at a time."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from seg.compression.calibration import narrowed_at, predict_maps
from seg.compression.original import changes_of_dice, window
from seg.compression.sites import DICE_FOR_NATS, Site, find_sites, projection_of
from seg.compression.widths import read_trained
from seg.config.study import MARGIN
from seg.data.splits import spread_over
from seg.errors import ConfigError, Problem
from seg.evaluation.tensors import dice_per_class
from seg.files import table_text, write_text
from seg.networks import UNet

SHARES = (0.75, 0.5, 0.25, 0.125, 0.0625)
"""Widths that are tried, as shares of the channels."""


def measure(
    run_dir: Path, data_root: Path | None, count: int, held_out_count: int | None
) -> list[dict[str, float | str]]:
    """Returns what is predicted from training cases and what is lost on held-out cases, for each place and width.

    Args:
        run_dir: Finished run of one fold.
        data_root: Folder of the data set, where it moved.
        count: Training cases, >= 2.
        held_out_count: Held-out cases, of two patients or more; None are all.

    Raises:
        ConfigError: The held-out cases are of fewer than two patients.
    """
    run, split, dataset, network = read_trained(run_dir, data_root)
    config, ignored = run.config, dataset.ignore_label
    network.requires_grad_(False)
    sites = find_sites(network)
    trained, held_out = (
        spread_over([case for case in dataset.cases if case.id in set(side)], number or len(side))
        for side, number in ((split.train, count), (split.validation, held_out_count))
    )
    owners = [case.patient_or_id for case in held_out]
    if (number := len(set(owners))) < 2:
        rule, remedy = "must be cases of two patients or more", "take more cases"
        raise ConfigError(Problem("--held_out", "patients", rule, str(number), remedy))
    odd = np.isin(owners, sorted(set(owners))[::2])
    seen = [window(case, config, ignored) for case in trained]
    patients = [case.patient_or_id for case in trained]
    found = predict_maps(network, sites, seen, patients, margin=MARGIN, seed=config.seed)
    print(f"factor {found.factor:.3f}", flush=True)
    places = [
        (site, width, curve.lost[curve.at(width)])
        for site, curve in zip(sites, found.curves, strict=True)
        for width in sorted({max(1, round(site.channels * share)) for share in SHARES} & set(curve.widths))
        if width < site.channels
    ]
    measured = {name: (own.mean, own.pooled(range(len(trained)))) for name, own in found.measured.items()}
    cuts = [
        (site, measured[site.name][0], projection_of(site, measured[site.name][1], width)) for site, width, _ in places
    ]
    by_window = [
        losses_of(network, cuts, *window(case, config, ignored), ignored) for case in tqdm(held_out, disable=None)
    ]
    dice, entropies, nats = (np.array(one) for one in zip(*by_window, strict=True))
    rows: list[dict[str, float | str]] = []
    for at, (site, width, predicted) in enumerate(places):
        by_case = dice[:, at]
        rows.append(
            {
                "place": site.name,
                "part": site.part,
                "channels": site.channels,
                "width": width,
                "predicted": found.factor * float(np.nanmean(predicted)),
                "dice_lost": float(np.nanmean(np.nanmean(by_case, 0))),
                "dice_lost_odd": float(np.nanmean(np.nanmean(by_case[odd], 0))),
                "dice_lost_even": float(np.nanmean(np.nanmean(by_case[~odd], 0))),
                "predicted_nats": float(np.nanmean(predicted)) / DICE_FOR_NATS,
                "nats": float(np.nanmean(nats[:, at])),
                "cross_entropy": float(np.mean(entropies[:, at])),
                "predicted_worst": found.factor * float(np.nanmax(predicted)),
                "dice_lost_worst": float(np.nanmax(np.nanmean(by_case, 0))),
            }
        )
    return rows


@torch.no_grad()
def losses_of(
    network: UNet,
    cuts: Sequence[tuple[Site, Tensor, Tensor]],
    image: Tensor,
    label: Tensor,
    ignore_label: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what each cut by itself loses on one window: the Dice of each class, the cross-entropy, the divergence.

    Args:
        network: The network, in evaluation mode.
        cuts: Each place, its mean, and the projection that narrows it.
        image: Image, shape (1, C, X, Y, Z).
        label: Label, shape (X, Y, Z).
        ignore_label: Voxels that count nowhere.

    Returns:
        Arrays of shapes (cuts, classes), (cuts,) and (cuts,).
    """
    with remembered(network) as recall_before:
        whole = scores(network(image), label, ignore_label)
        lost = []
        for site, mean, projection in cuts:
            recall_before(site)
            with narrowed_at(network, site, mean, projection):
                dice, entropy, shares = scores(network(image), label, ignore_label)
            changes = changes_of_dice(whole[0][None], dice[None])[0]
            lost.append((-changes, entropy - whole[1], divergence(whole[2], shares)))
    dice, entropies, nats = zip(*lost, strict=True)
    return np.array(dice), np.array(entropies), np.array(nats)


@contextmanager
def remembered(network: UNet) -> Iterator[Callable[[Site], None]]:
    """Caches each layer's output for one image, so that a cut computes only the layers behind it anew.

    Args:
        network: The network; every call must have the same image.

    Yields:
        A function to call with the place of a cut before the network is called.
    """
    layers = {path: module for path, module in network.named_modules() if not any(module.children())}
    outputs: dict[str, Tensor] = {}
    recalled: set[str] = set()

    def recall_before(site: Site) -> None:
        within = [at for at, path in enumerate(outputs) if f"{path}.".startswith(f"{site.module}.")]
        recalled.clear()
        recalled.update(list(outputs)[: within[0] if site.reads else within[-1] + 1])

    def remembering(path: str, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if path in recalled:
                return outputs[path]
            out = compute(x)
            outputs.setdefault(path, out)
            return out

        return forward

    for path, layer in layers.items():
        layer.forward = remembering(path, layer.forward)
    try:
        yield recall_before
    finally:
        for layer in layers.values():
            del layer.forward


def scores(logits: Tensor, label: Tensor, ignore_label: int | None) -> tuple[np.ndarray, float, Tensor]:
    """Returns the Dice of each class, NaN where it is empty on both sides, the cross-entropy, and the probabilities.

    Voxels of ``ignore_label`` count nowhere.
    """
    counts = torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label != ignore_label
    logits, label = logits[0][:, counts], label[counts]
    dice = dice_per_class(logits.argmax(0), label, len(logits)).numpy()
    entropy = nn.functional.cross_entropy(logits.T, label.long())
    return dice, float(entropy), logits.double().softmax(0)[1:]


def divergence(p: Tensor, q: Tensor) -> float:
    """Returns the divergence of each class against the rest, in nats for each voxel of the class; its mean."""
    p, q = (one.clamp(1e-12, 1 - 1e-12) for one in (p, q))
    nats = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return float((nats.sum(1) / p.sum(1))[p.sum(1) > 1].mean())


def describe(rows: Sequence[dict[str, float | str]]) -> str:
    """Says how what is predicted goes with what is measured."""
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name not in ("place", "part")}
    predicted, dice = columns["predicted"], columns["dice_lost"]
    share = columns["width"] / columns["channels"]
    found = {
        "Dice": stats.spearmanr(predicted, dice).statistic,
        "divergence": stats.spearmanr(columns["predicted_nats"], columns["nats"]).statistic,
        "worst class": stats.spearmanr(columns["predicted_worst"], columns["dice_lost_worst"]).statistic,
        "cross-entropy": stats.spearmanr(predicted, columns["cross_entropy"]).statistic,
        "Dice of half of the patients with that of the others": stats.spearmanr(
            columns["dice_lost_odd"], columns["dice_lost_even"]
        ).statistic,
        "Dice by width alone": stats.spearmanr(-share, dice).statistic,
    }
    small = (predicted > 1e-3) & (predicted < 0.05)
    ratio = f"{np.median(dice[small] / predicted[small]):.2f}" if small.any() else "not measured"
    nats = np.median(columns["nats"][small] / columns["predicted_nats"][small]) if small.any() else math.nan
    text = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    factors = f"Dice lost over predicted, median of {small.sum()}: {ratio}; nats {nats:.2f}"
    return f"{len(rows)} points; Spearman {text}; {factors}"


def main() -> None:
    """Runs the check that the command line asks for, writes all points, and prints correlations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, metavar="DIR", help="finished run of one fold")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file of all points")
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="folder of the data set, where it moved")
    parser.add_argument(
        "--cases", type=int, default=10, metavar="N", help="training cases to predict from, >= 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--held_out", type=int, metavar="N", help="held-out cases of two patients or more to measure (default: all)"
    )
    options = parser.parse_args()
    if options.cases < 2:
        parser.error(f"--cases must be >= 2, got {options.cases}.")
    if options.held_out is not None and options.held_out < 2:
        parser.error(f"--held_out must be >= 2, got {options.held_out}.")
    rows = measure(options.run_dir, options.data_root, options.cases, options.held_out)
    write_text(options.output, table_text(rows))
    for kind in ("maps", "kernels", "all"):
        chosen = [row for row in rows if kind == "all" or (row["part"] == "kernel") == (kind == "kernels")]
        print(f"{kind}: {describe(chosen)}")


if __name__ == "__main__":
    main()
