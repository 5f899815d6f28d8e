"""Predicted losses of narrow maps against what networks of these widths lose that are trained from scratch.

`design` writes a study of networks whose maps all have other widths, a Latin hypercube. `seg ablate` trains it, and the
network of full width beside it. `judge` predicts the losses from that network, and compares.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor, nn

from seg.compression.calibration import predict_maps
from seg.compression.moments import watch
from seg.compression.original import window
from seg.compression.sites import Curve, Site, find_sites, with_widths
from seg.compression.widths import changes, read_trained
from seg.config import NetworkConfig
from seg.config.loading import load_config
from seg.config.study import MARGIN, STUDY_VERSION
from seg.data.splits import spread_over
from seg.evaluation.scores import EVALUATION_FILE, read_evaluation
from seg.files import table_text, write_text
from seg.networks import UNet, complexity
from seg.runs import read_run

Floats = NDArray[np.float64]
Row = dict[str, float | str]


def maps_of(network: UNet) -> list[Site]:
    """Returns the feature maps, skips and upsampled maps of a network."""
    return [site for site in find_sites(network) if site.part != "kernel"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How networks of other widths are drawn.

    Attributes:
        count: How many.
        least: Least share of the channels of a map, in (0, 1).
        seed: Seed of the draw.
    """

    count: int = 24
    least: float = 1 / 8
    seed: int = 0


def design(maps: Sequence[Site], draw: Draw) -> list[dict[Site, int]]:
    """Draws widths of all maps: a Latin hypercube, whose axes are the stages of encoder, skips, `up` and decoder.

    Shares of the channels are spread evenly in their logarithm, from the least to 1, and each axis has each once.
    """
    stream, count = np.random.default_rng(draw.seed), draw.count
    levels = draw.least ** ((np.arange(count) + 0.5) / count)
    shares = {axis: stream.permutation(levels) for axis in dict.fromkeys((site.part, site.stage) for site in maps)}
    return [
        {site: max(1, round(site.channels * shares[site.part, site.stage][point])) for site in maps}
        for point in range(count)
    ]


def networks_of(config: NetworkConfig, channels: int, classes: int, draw: Draw) -> list[NetworkConfig]:
    """Returns the networks of the design."""
    maps = maps_of(UNet(channels, classes, config))
    return [with_widths(config, widths) for widths in design(maps, draw)]


def study_yaml(config: Path, channels: int, classes: int, draw: Draw) -> str:
    """Formats the study that trains the networks of the design, and the full one without bottlenecks as baseline."""
    plain: dict[str, object] = {"network.skip_bottleneck": None, "network.decoder_bottleneck": None}
    network = replace(load_config([config]).network, skip_bottleneck=None, decoder_bottleneck=None)
    points = [
        {
            "name": f"point_{number}",
            "set": plain | {f"network.{name}": value for name, value in changes(network, other).items()},
        }
        for number, other in enumerate(networks_of(network, channels, classes, draw))
    ]
    study = {
        "schema_version": STUDY_VERSION,
        "name": f"law_{config.stem}",
        "base": str(config.resolve()),
        "baseline": {"name": "baseline", "set": plain},
        "design": "list",
        "points": points,
        "seeds": [0],
        "speed": {"enabled": False},
    }
    return str(yaml.safe_dump(study, sort_keys=False, default_flow_style=None, width=100))


def measure(runs_dir: Path, data_root: Path | None, draw: Draw, cases: int) -> list[Row]:
    """Returns what is foretold of each network of the design, and the Dice that it lost.

    Args:
        runs_dir: Folder of the runs of a study: `baseline`, `point_0`, `point_1` ..., each trained from the same seeds.
        data_root: Folder of the data set, where it moved.
        draw: How the networks were drawn.
        cases: Training cases that are measured.
    """
    baseline = runs_of(runs_dir / "baseline")[0]
    run, split, dataset, network = read_trained(baseline, data_root)
    network.requires_grad_(False)
    maps = maps_of(network)
    chosen = spread_over([case for case in dataset.cases if case.id in set(split.train)], cases)
    windows = [window(case, run.config, dataset.ignore_label) for case in chosen]
    patients = [case.patient_or_id for case in chosen]
    found = predict_maps(network, maps, windows, patients, margin=MARGIN, seed=run.config.seed)
    curves = {curve.site: curve for curve in found.curves}
    spreads = covariances(network, maps, [image for image, _ in windows])
    whole = dice_of(runs_dir / "baseline")
    rows: list[Row] = []
    for number, widths in enumerate(design(maps, draw)):
        name = f"point_{number}"
        if not (finished := runs_of(runs_dir / name)):
            print(f"{name}: not trained")
            continue
        trained = read_run(finished[0]).config.network
        assert trained == with_widths(run.config.network, widths), name
        needs = complexity(len(run.channel_names), len(run.class_names), trained, shape=run.config.patches.size)
        lost = sum(loss_at(curves[site], width) for site, width in widths.items())
        rows.append(
            {
                "point": name,
                "predicted": found.factor * float(np.nanmean(lost)),
                "width": float(np.mean([np.log2(width / site.channels) for site, width in widths.items()])),
                "macs": needs.macs,
                "parameters": needs.parameters,
                "variance": sum(variance_lost(spreads[site], width) for site, width in widths.items()),
                "r2": sum(variance_lost(correlation(spreads[site]), width) for site, width in widths.items()),
                "dice_lost": whole - dice_of(runs_dir / name),
            }
        )
    return rows


def loss_at(curve: Curve, width: int) -> Floats:
    """Returns the losses of the classes at a width, between two that were looked at where it was not."""
    columns = [np.interp(width, curve.widths, column) for column in curve.lost.T]
    return np.array(columns)


def covariances(network: nn.Module, maps: Sequence[Site], images: Iterable[Tensor]) -> dict[Site, Tensor]:
    """Returns the covariance of each map's channels, shape (C, C), the mean of those of all images."""
    found: dict[Site, list[Tensor]] = {site: [] for site in maps}
    for image in images:
        _, values = watch(network, {site: (site.module, site.reads) for site in maps}, image)
        for site, value in values.items():
            found[site].append(torch.cov(value.detach()[0].flatten(1).double(), correction=0))
    return {site: torch.stack(own).mean(0) for site, own in found.items()}


def correlation(covariance: Tensor) -> Tensor:
    """Returns the correlation of channels, so that each counts the same; shape (C, C)."""
    scale = covariance.diagonal().clamp_min(1e-12).rsqrt()
    return covariance * scale[:, None] * scale[None]


def variance_lost(covariance: Tensor, width: int) -> float:
    """Returns the share of variance beyond the first principal components, in [0, 1]."""
    values = torch.linalg.eigvalsh(covariance)
    return float(values[: len(values) - width].sum() / values.sum())


def runs_of(variant: Path) -> list[Path]:
    """Lists the run directories of a variant that are scored."""
    return [file.parent for file in sorted(variant.glob(f"fold_*_seed_*/{EVALUATION_FILE}"))]


def dice_of(variant: Path) -> float:
    """Returns the mean Dice of a variant's runs."""
    return float(np.mean([read_evaluation(run_dir).mean_dice for run_dir in runs_of(variant)]))


def judge(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Returns how each quantity ranks the Dice lost: Spearman's coefficient, and the same given the mean width."""
    lost = [float(row["dice_lost"]) for row in rows]
    signs: Mapping[str, int] = {"predicted": 1, "width": -1, "macs": -1, "parameters": -1, "variance": 1, "r2": 1}
    columns = {name: sign * np.array([float(row[name]) for row in rows]) for name, sign in signs.items()}
    return {
        name: (
            float(stats.spearmanr(column, lost).statistic),
            float("nan") if name == "width" else partial_spearman(column, lost, columns["width"]),
        )
        for name, column in columns.items()
    }


def calibration(rows: Sequence[Row]) -> tuple[float, float]:
    """Returns the Dice lost over what was predicted, its median, and the exponent in lost = a * predicted^exponent.

    Both are of the networks that lost something, the exponent by least squares in the logarithms.
    """
    pairs = [(float(row["predicted"]), float(row["dice_lost"])) for row in rows]
    predicted, lost = np.array([pair for pair in pairs if min(pair) > 0]).T
    return float(np.median(lost / predicted)), float(np.polyfit(np.log(predicted), np.log(lost), 1)[0])


def partial_spearman(first: ArrayLike, second: ArrayLike, given: ArrayLike) -> float:
    """Returns Spearman's coefficient of two columns where a third, in ranks, is held fixed."""
    a, b, c = (stats.rankdata(column) for column in (first, second, given))
    rest = [own - np.polyval(np.polyfit(c, own, 1), c) for own in (a, b)]
    return float(np.corrcoef(*rest)[0, 1])


def main() -> None:
    """Writes the study, or compares what it found with what was foretold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("design", help="write the study")
    write.add_argument("--config", type=Path, required=True, metavar="FILE", help="experiment of the full network")
    write.add_argument("--channels", type=int, default=1, metavar="N", help="channels of an image (default: 1)")
    write.add_argument("--classes", type=int, required=True, metavar="N", help="classes, background included")
    write.add_argument("--output", type=Path, required=True, metavar="FILE", help="YAML file of the study")
    compare = commands.add_parser("judge", help="compare the trained networks with what is foretold of them")
    compare.add_argument("--runs", type=Path, required=True, metavar="DIR", help="run directories of the study")
    compare.add_argument("--data_root", type=Path, metavar="DIR", help="folder of the data set, where it moved")
    compare.add_argument("--cases", type=int, default=10, metavar="N", help="training cases measured (default: 10)")
    compare.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file, a row for each network")
    for command in (write, compare):
        command.add_argument("--count", type=int, default=Draw.count, metavar="N", help="networks (default: 24)")
        command.add_argument("--seed", type=int, default=Draw.seed, help="seed of the design (default: 0)")
        command.add_argument(
            "--least", type=float, default=Draw.least, metavar="SHARE", help="least share of channels (default: 0.125)"
        )
    options = parser.parse_args()
    draw = Draw(count=options.count, least=options.least, seed=options.seed)
    if options.command == "design":
        ends = options.channels, options.classes
        write_text(options.output, study_yaml(options.config, *ends, draw))
        return
    rows = measure(options.runs, options.data_root, draw, options.cases)
    write_text(options.output, table_text(rows))
    for name, (alone, given) in judge(rows).items():
        print(f"{name}: Spearman {alone:.3f}, given the mean width {given:.3f}")
    ratio, exponent = calibration(rows)
    print(f"Dice lost over predicted, median: {ratio:.3g}; exponent: {exponent:.2f}")


if __name__ == "__main__":
    main()
