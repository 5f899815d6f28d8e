"""Studies made from a seed: records as a real study leaves them, with effects that are known."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seg.evaluation.metrics import ClassScores
from seg.evaluation.scores import CaseScore, write_evaluation
from seg.evaluation.summary import summarise
from tests.ablation.report.places import CHANNELS, place

CLASSES = ("background", "anterior", "posterior")
# Name, ratios of skip and decoder, true loss of Dice, parameters, MAC, latency in ms.
VARIANTS: tuple[tuple[str, float | None, float | None, float, int, int, float], ...] = (
    ("baseline", None, None, 0.0, 5_600_000, 19_100_000_000, 180.0),
    ("skip_1-4", 0.25, None, 0.0005, 5_170_000, 15_900_000_000, 158.0),
    ("skip_1-16", 1 / 16, None, 0.0015, 5_060_000, 15_100_000_000, 155.0),
    ("decoder_1-2", None, 0.5, 0.001, 4_400_000, 9_100_000_000, 121.0),
    ("decoder_1-4", None, 0.25, 0.012, 4_200_000, 8_300_000_000, 112.0),
    ("skip_1-4_decoder_1-4", 0.25, 0.25, 0.014, 3_910_000, 6_500_000_000, 98.0),
    ("flat_16", None, None, 0.02, 120_000, 3_000_000_000, 60.0),
)
CONTRASTS = (("skip_1-4_decoder_1-4", "decoder_1-4"), ("skip_1-16", "skip_1-4"))


@dataclass(kw_only=True)
class Made:
    """How a study is made.

    Attributes:
        losses: True loss of Dice by variant, where it differs from the table above.
        absent: Trials without a record.
        failed: Trials that failed.
        devices: Kinds of devices with a speed.
        unmeasured: Variants without a speed on the GPU.
        preserved: Whether preservation was measured.
        seeds: Seeds of each variant.
        noise: Standard deviation of what a seed adds to a variant's Dice.
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
    ids = [f"{row[0]}.fold_0.seed_{seed}" for seed in made.seeds for row in VARIANTS]
    _write(
        folder / "study.json",
        {
            "schema_version": 1,
            "name": "bottleneck <small>",
            "command": "python scripts/ablate.py --config configs/ablation/bottleneck.yaml",
            "base": "configs/hippocampus.yaml",
            "margin": 0.005,
            "folds": [0],
            "seeds": list(made.seeds),
            "baseline": "baseline",
            "variants": [_variant(row) for row in VARIANTS],
            "contrasts": [{"variant": one, "against": other} for one, other in CONTRASTS],
            "trials": ids,
            "training": {"steps": 1000, "batch": 2, "patch_size": [40, 56, 40], "validate_every": 100},
            "data": {
                "name": "Test & Co",
                "licence": "CC-BY-SA 4.0",
                "attribution": "A. Author",
                "num_cases": 60,
                "class_names": list(CLASSES),
                "nsd_tolerance_mm": 1.0,
            },
        },
    )
    if made.devices:
        _write(folder / "speed.json", {"schema_version": 1, "devices": [_device(kind, made) for kind in made.devices]})
    for number, row in enumerate(VARIANTS):
        for seed in made.seeds:
            _trial(folder / "trials" / f"{row[0]}.fold_0.seed_{seed}", row, number, seed, made)
    return folder


def lower(study: Path, trial: str, loss: float) -> None:
    """Takes so much off every Dice of a trial."""
    path = study / "trials" / trial / "cases.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    for row in rows:
        row["dice"] = str(float(row["dice"]) - loss)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def _changes(row: tuple[Any, ...]) -> dict[str, Any]:
    channels = [16, 16, 16] if row[0].startswith("flat") else None
    values = {
        "network.channels": channels,
        "network.skip_bottleneck.ratio": row[1],
        "network.decoder_bottleneck.ratio": row[2],
    }
    return {path: value for path, value in values.items() if value is not None}


def _variant(row: tuple[Any, ...]) -> dict[str, Any]:
    return {"name": row[0], "changes": _changes(row), "parameters": row[4], "macs": row[5], "stages": []}


def _spread(median: float) -> dict[str, float]:
    return {"median": median, "q1": median * 0.98, "q3": median * 1.03}


def _device(kind: str, made: Made) -> dict[str, Any]:
    factor = 1.0 if kind == "cpu" else 0.04
    names = [row for row in VARIANTS if kind == "cpu" or row[0] not in made.unmeasured]
    base = VARIANTS[0][6]
    return {
        "device": "Test Processor" if kind == "cpu" else "Test GPU",
        "kind": kind,
        "threads": 2,
        "precision": "bf16",
        "memory_format": "channels_last_3d",
        "environment": {"python": "3.11", "packages": {"torch": "2.13.0"}},
        "patch_size": [40, 56, 40],
        "rounds": 15,
        "warmup": 3,
        "load_1min": 0.1,
        "variants": [
            {
                "name": row[0],
                "latency_ms": _spread(row[6] * factor),
                "throughput_voxels_per_s": _spread(89_600_000 / row[6] / factor),
                "training_step_ms": _spread(5 * row[6] * factor),
                "prediction_s": _spread(row[6] * factor / 100 + 0.5) if kind == "cpu" else None,
                "peak_memory_inference_mib": 100 + row[6],
                "peak_memory_training_mib": 1000 + 4 * row[6],
                "parameters": row[4],
                "macs": row[5],
                "checkpoint_mib": row[4] * 4 / 2**20,
                "latency_ratio": _spread(base / row[6]),
                "training_step_ratio": _spread(base / row[6]),
                "prediction_ratio": _spread((base + 50) / (row[6] + 50)) if kind == "cpu" else None,
            }
            for row in names
        ],
    }


def _trial(folder: Path, row: tuple[Any, ...], number: int, seed: int, made: Made) -> None:
    if folder.name in made.absent:
        return
    failed = folder.name in made.failed
    _write(
        folder / "trial.json",
        {
            "schema_version": 1,
            "id": folder.name,
            "variant": row[0],
            "fold": 0,
            "seed": seed,
            "changes": _changes(row),
            "status": "failed" if failed else "finished",
            "attempts": 2 if failed else 1,
            "error": "RuntimeError: out of memory" if failed else None,
            "seconds": None if failed else 600.0 + seed,
            "fingerprint": {"config": "a" * 64, "data": "b" * 64, "code": "c" * 64},
            "threads": 1,
            "peak_memory_mib": None if failed else 2000.0,
        },
    )
    (folder / "config.yaml").write_text(f"name: test\nseed: {seed}\n")
    if failed:
        (folder / "failure.txt").write_text("Traceback\nRuntimeError: out of memory\n")
        return
    loss = made.losses.get(row[0], row[3])
    scores = _scores(loss, number, seed, made.noise)
    summary = summarise(scores, class_names=CLASSES, nsd_tolerance_mm=1.0, bootstrap_samples=50)
    write_evaluation(folder, summary, scores)
    _write(folder / "environment.json", {"schema_version": 1, "python": "3.11", "device": "Test Processor"})
    mean = float(np.mean([score.scores.dice for score in scores]))
    steps = np.arange(100, 1001, 100)
    curve = mean * (1 - np.exp(-steps / (120 + 10 * number + 3 * seed)))
    rows = [f"{step},{step * 0.9},0.5,{dice},0.001" for step, dice in zip(steps, curve, strict=True)]
    (folder / "metrics.csv").write_text("step,seconds,train_loss,val_dice,learning_rate\n" + "\n".join(rows) + "\n")
    gap = 0.03 + 0.004 * number + 0.001 * seed * (number > 1)
    _write(
        folder / "generalisation.json",
        {
            "schema_version": 1,
            "train_cases": 12,
            "train_mean_dice": mean + gap,
            "val_mean_dice": mean,
            "gap": gap,
            "train_dice": [mean + gap + 0.01, mean + gap - 0.01],
            "val_dice": [mean + 0.01, mean - 0.01],
        },
    )
    if made.preserved:
        places = [place(path, stage, row, seed) for path in ("skip", "decoder") for stage in range(len(CHANNELS))]
        kept = [one for one in places if one["narrow"] is not None or number == 0]
        _write(folder / "preservation.json", {"schema_version": 1, "voxels": 89600, "cases": 12, "bottlenecks": kept})


def _scores(loss: float, number: int, seed: int, noise: float) -> list[CaseScore]:
    # Patients and seeds are the same for all variants: what differs is the loss, a seed's part and a case's part.
    patients = np.random.default_rng(7).normal(0.0, 0.02, size=(12, 2))
    common = np.random.default_rng(100 + seed).normal(0.0, 0.003)
    own = np.random.default_rng([number, seed])
    shift = own.normal(0.0, noise) if number else 0.0
    cases = own.normal(0.0, 0.001, size=(12, 2))
    scores = []
    for case in range(12):
        for index in (1, 2):
            dice = 0.9 - 0.01 * index + patients[case, index - 1] + common + shift + cases[case, index - 1] - loss
            values = ClassScores(
                dice=dice,
                iou=dice / (2 - dice),
                hd95_mm=math.inf if (number, case, index) == (6, 3, 2) else 1.0 + 20 * (0.9 - dice),
                nsd=min(1.0, dice + 0.08),
                volume_difference_ml=0.1,
                volume_difference_ratio=0.05,
                reference_ml=2.0,
                prediction_ml=2.1,
            )
            name = f"case_{case:03d}"
            scores.append(
                CaseScore(
                    case_id=name, patient=name, fold=0, class_index=index, class_name=CLASSES[index], scores=values
                )
            )
    return scores
