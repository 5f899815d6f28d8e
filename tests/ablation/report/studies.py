"""Studies made from a seed: records as a real study leaves them, with effects that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from seg.evaluation.metrics import ClassScores
from seg.evaluation.scores import CaseScore, read_cases, write_evaluation
from seg.evaluation.summary import summarise

CLASSES = ("background", "anterior", "posterior")
CHANNELS = (32, 64, 128)


class Row(NamedTuple):
    """A variant: ratios, true loss of Dice, cost, latency in ms."""

    name: str
    skip: float | None
    decoder: float | None
    loss: float
    parameters: int
    macs: int
    latency_ms: float


VARIANTS = (
    Row("baseline", None, None, 0.0, 5_600_000, 19_100_000_000, 180.0),
    Row("skip_1-4", 0.25, None, 0.0005, 5_170_000, 15_900_000_000, 158.0),
    Row("skip_1-16", 1 / 16, None, 0.0015, 5_060_000, 15_100_000_000, 155.0),
    Row("decoder_1-2", None, 0.5, 0.001, 4_400_000, 9_100_000_000, 121.0),
    Row("decoder_1-4", None, 0.25, 0.012, 4_200_000, 8_300_000_000, 112.0),
    Row("skip_1-4_decoder_1-4", 0.25, 0.25, 0.014, 3_910_000, 6_500_000_000, 98.0),
    Row("flat_16", None, None, 0.02, 120_000, 3_000_000_000, 60.0),
)
CONTRASTS = (("skip_1-4_decoder_1-4", "decoder_1-4"), ("skip_1-16", "skip_1-4"))


@dataclass(kw_only=True)
class Made:
    """How a study is made: losses that differ from the table, trials that are absent or failed, what was measured.

    ``unmeasured`` are variants without a speed on the GPU; ``noise`` is the standard deviation of what a seed adds.
    """

    losses: dict[str, float] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    unmeasured: tuple[str, ...] = ()
    preserved: bool = True
    seeds: tuple[int, ...] = (0, 1, 2)
    noise: float = 0.0004


def make_study(folder: Path, made: Made | None = None) -> Path:
    """Writes the records of a study and returns its folder."""
    made = made or Made()
    _write(
        folder / "study.json",
        name="bottleneck <small>",
        command="python scripts/ablate.py --config configs/ablation/bottleneck.yaml",
        base="configs/hippocampus.yaml",
        margin=0.005,
        folds=[0],
        seeds=made.seeds,
        baseline="baseline",
        variants=[
            {"name": row.name, "changes": _changes(row), "parameters": row.parameters, "macs": row.macs, "stages": []}
            for row in VARIANTS
        ],
        contrasts=[{"variant": one, "against": other} for one, other in CONTRASTS],
        trials=[f"{row.name}.fold_0.seed_{seed}" for seed in made.seeds for row in VARIANTS],
        training={"steps": 1000, "batch": 2, "patch_size": [40, 56, 40], "validate_every": 100},
        data={
            "name": "Test & Co",
            "licence": "CC-BY-SA 4.0",
            "attribution": "A. Author",
            "num_cases": 60,
            "class_names": CLASSES,
            "nsd_tolerance_mm": 1.0,
        },
    )
    if made.devices:
        _write(folder / "speed.json", devices=[_device(kind, made) for kind in made.devices])
    for number, row in enumerate(VARIANTS):
        for seed in made.seeds:
            _trial(folder / "trials" / f"{row.name}.fold_0.seed_{seed}", row, number, seed, made)
    return folder


def change(path: Path, edit: Callable[[Any], object]) -> None:
    """Changes a JSON file by a function of its content."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def change_cases(study: Path, trial: str, edit: Callable[[pd.DataFrame], object]) -> None:
    """Changes the scores of trials by a function of their table; the name may hold a star."""
    for path in study.glob(f"trials/{trial}/cases.csv"):
        table = pd.read_csv(path)
        edit(table)
        table.to_csv(path, index=False, na_rep="nan")


def value(folder: Path, variant: str, metric: str, **where: object) -> pd.Series:
    """Returns the one row of an estimate in results.csv; keys that are not named are missing."""
    table = pd.read_csv(folder / "results.csv")
    for key in ("variant", "metric", "class_index", "place", "device"):
        wanted = {"variant": variant or None, "metric": metric, **where}.get(key)
        table = table[table[key].isna() if wanted is None else table[key] == wanted]
    (row,) = (row for _, row in table.iterrows())
    return row


def dice(folder: Path, variant: str, seeds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Reads Dice from the records, of shape (seeds, cases, classes), without the report's code."""
    runs = [read_cases(folder / "trials" / f"{variant}.fold_0.seed_{seed}") for seed in seeds]
    values = [[[s.scores.dice for s in run if s.class_index == index] for index in (1, 2)] for run in runs]
    return np.array(values).transpose(0, 2, 1)


def _write(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1, **content}, indent=1))


def _changes(row: Row) -> dict[str, Any]:
    values = {
        "network.channels": [16, 16, 16] if row.name.startswith("flat") else None,
        "network.skip_bottleneck.ratio": row.skip,
        "network.decoder_bottleneck.ratio": row.decoder,
    }
    return {path: value for path, value in values.items() if value is not None}


def _spread(median: float) -> dict[str, float]:
    return {"median": median, "q1": median * 0.98, "q3": median * 1.03}


def _device(kind: str, made: Made) -> dict[str, Any]:
    factor, base = 1.0 if kind == "cpu" else 0.04, VARIANTS[0].latency_ms
    return {
        "device": "Test Processor" if kind == "cpu" else "Test GPU",
        "kind": kind,
        "threads": 2,
        "precision": "bf16",
        "memory_format": "channels_last_3d",
        "rounds": 15,
        "load_1min": 0.1,
        "variants": [
            {
                "name": row.name,
                "latency_ms": _spread(row.latency_ms * factor),
                "throughput_voxels_per_s": _spread(89_600_000 / row.latency_ms / factor),
                "training_step_ms": _spread(5 * row.latency_ms * factor),
                "prediction_s": _spread(row.latency_ms * factor / 100 + 0.5) if kind == "cpu" else None,
                "peak_memory_inference_mib": 100 + row.latency_ms,
                "peak_memory_training_mib": 1000 + 4 * row.latency_ms,
                "parameters": row.parameters,
                "macs": row.macs,
                "checkpoint_mib": row.parameters * 4 / 2**20,
                "latency_ratio": _spread(base / row.latency_ms),
                "training_step_ratio": _spread(base / row.latency_ms),
                "prediction_ratio": _spread((base + 50) / (row.latency_ms + 50)) if kind == "cpu" else None,
            }
            for row in VARIANTS
            if kind == "cpu" or row.name not in made.unmeasured
        ],
    }


def _trial(folder: Path, row: Row, number: int, seed: int, made: Made) -> None:
    if folder.name in made.absent:
        return
    failed = folder.name in made.failed
    _write(
        folder / "trial.json",
        id=folder.name,
        variant=row.name,
        fold=0,
        seed=seed,
        changes=_changes(row),
        status="failed" if failed else "finished",
        attempts=2 if failed else 1,
        error="RuntimeError: out of memory" if failed else None,
        seconds=None if failed else 600.0 + seed,
        fingerprint={"config": "a" * 64, "data": "b" * 64, "code": "c" * 64},
        threads=1,
        peak_memory_mib=None if failed else 2000.0,
    )
    (folder / "config.yaml").write_text(f"name: test\nseed: {seed}\n")
    if failed:
        (folder / "failure.txt").write_text("Traceback\nRuntimeError: out of memory\n")
        return
    scores = _scores(made.losses.get(row.name, row.loss), number, seed, made.noise)
    write_evaluation(folder, summarise(scores, class_names=CLASSES, nsd_tolerance_mm=1.0, bootstrap_samples=50), scores)
    _write(folder / "environment.json", python="3.11", device="Test Processor", data={})
    mean = float(np.mean([score.scores.dice for score in scores]))
    steps = np.arange(100, 1001, 100)
    curve = pd.DataFrame({"step": steps, "seconds": steps * 0.9, "train_loss": 0.5})
    curve["val_dice"] = mean * (1 - np.exp(-steps / (120 + 10 * number + 3 * seed)))
    curve.assign(learning_rate=0.001).to_csv(folder / "metrics.csv", index=False)
    gap = 0.03 + 0.004 * number + 0.001 * seed * (number > 1)
    _write(
        folder / "generalisation.json",
        train_cases=12,
        train_mean_dice=mean + gap,
        val_mean_dice=mean,
        gap=gap,
        train_dice=[mean + gap + 0.01, mean + gap - 0.01],
        val_dice=[mean + 0.01, mean - 0.01],
    )
    if made.preserved:
        places = [_place(path, stage, row, seed) for path in ("skip", "decoder") for stage in range(len(CHANNELS))]
        kept = [one for one in places if one["narrow"] is not None or number == 0]
        _write(folder / "preservation.json", voxels=89600, cases=12, bottlenecks=kept)


def _scores(loss: float, number: int, seed: int, noise: float) -> list[CaseScore]:
    # Patients and seeds are the same for all variants: what differs is the loss, a seed's part and a case's part.
    patients = np.random.default_rng(7).normal(0.0, 0.02, size=(12, 2))
    common = np.random.default_rng(100 + seed).normal(0.0, 0.003)
    own = np.random.default_rng([number, seed])
    shift = own.normal(0.0, noise) if number else 0.0
    table = 0.9 - 0.01 * np.array([1, 2]) + patients + common + shift + own.normal(0.0, 0.001, size=(12, 2)) - loss
    scores = []
    for (case, row), dice in np.ndenumerate(table):
        values = ClassScores(
            dice=float(dice),
            iou=float(dice / (2 - dice)),
            hd95_mm=math.inf if (number, case, row) == (6, 3, 1) else float(1.0 + 20 * (0.9 - dice)),
            nsd=float(min(1.0, dice + 0.08)),
            volume_difference_ml=0.1,
            volume_difference_ratio=0.05,
            reference_ml=2.0,
            prediction_ml=2.1,
        )
        name, index = f"case_{case:03d}", row + 1
        scores.append(
            CaseScore(case_id=name, patient=name, fold=0, class_index=index, class_name=CLASSES[index], scores=values)
        )
    return scores


def _place(path: str, stage: int, row: Row, seed: int) -> dict[str, Any]:
    """Returns the record of one place, with the spectrum of a geometric series."""
    channels = CHANNELS[stage]
    wide, ratio = (channels, row.skip) if path == "skip" else (2 * channels, row.decoder)
    shares = np.exp(-np.arange(wide) / (4 + 4 * stage))
    shares /= shares.sum()
    by_width = np.cumsum(shares)
    record = {
        "name": f"{path}_{stage}",
        "path": path,
        "stage": stage,
        "channels": channels,
        "voxels": 89600 // 8**stage,
        "wide": wide,
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "participation_ratio": float(1 / (shares**2).sum()),
        "spectrum": shares.tolist(),
        "r2_by_width": by_width.tolist(),
        "probe_dice_wide": [0.8, 0.78],
    }
    measured = ("narrow", "r2", "r2_pca", "cka", "probe_dice_narrow", "amplified", "suppressed", "position_preserved")
    if ratio is None:
        return record | dict.fromkeys(measured)
    narrow = max(1, round(ratio * channels))
    kept = float(by_width[narrow - 1])
    values = (narrow, kept * (0.97 - 0.002 * seed), kept, 0.5 + 0.5 * kept, [0.8 * kept, 0.78 * kept], 0.2, 0.3, True)
    return record | dict(zip(measured, values, strict=True))
