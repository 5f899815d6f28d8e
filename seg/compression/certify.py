"""The command that certifies a finished run against another one, on the patients that both hold out."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from seg.compression.certificate import (
    CERTIFICATE_FILE,
    CERTIFICATE_PAGE,
    LEAST_PATIENTS,
    LEDGER_FILE,
    ORIGINAL,
    Certificate,
    Cost,
    certificate_page,
    certify,
    check_ledger,
    few_patients,
    format_certificate,
    freeze_folds,
    write_certificate,
)
from seg.compression.comparing import arithmetic, check_engine, conditions, engine_scores, torch_scores
from seg.compression.memory import measure_memory
from seg.compression.original import cost
from seg.compression.speed import measure_latency
from seg.config import ExperimentConfig
from seg.config.study import MARGIN
from seg.data.cache import case_digest
from seg.data.cases import Dataset
from seg.data.splits import Split
from seg.errors import Problem, RunError
from seg.evaluation.scores import CaseScore
from seg.files import check_folder, file_problems, quoted, write_text
from seg.inference.engines import Engine
from seg.inference.export import write_network
from seg.inference.exported import ENDINGS
from seg.networks import UNet
from seg.networks.blocks import total_stride
from seg.networks.conv import Triple
from seg.runs import TrainedRun, fold_directories, read_run, weights_digest
from seg.words import dimensions, some
from seg.workflows.evaluate import check_apart, check_unseen, read_held_out

LOG = logging.getLogger(__name__)
CHANGED = "changed"
"""Name of the network that is compared with the original."""


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two networks: its run, or that of each fold, with the cases.

    Attributes:
        root: What the user gave.
        runs: The runs in the order of folds, with the folder where their data set lies now.
        weights: SHA-256 of the weights of each run.
        splits: Cases of each run.
        dataset: The data set.
    """

    root: Path
    runs: tuple[TrainedRun, ...]
    weights: tuple[str, ...]
    splits: tuple[Split, ...]
    dataset: Dataset

    @property
    def config(self) -> ExperimentConfig:
        """The experiment of the first run."""
        return self.runs[0].config

    def scores(self, engine: Engine, name: str) -> list[CaseScore]:
        """Returns the scores of all held-out cases."""
        scores: list[CaseScore] = []
        for run, split in zip(self.runs, self.splits, strict=True):
            scores += (
                torch_scores(run, split, self.dataset, name)
                if engine == "torch"
                else engine_scores(run, run.network(), split, self.dataset, engine=engine, name=name)
            )
        return scores


@file_problems()
def certify_run(
    run_dir: Path,
    original: Path,
    output: Path,
    *,
    engine: Engine = "torch",
    margin: float = MARGIN,
    data_root: Path | None = None,
) -> Certificate:
    """Certifies that a network loses less Dice than a margin against another one, however each was made.

    Both predict the cases that both hold out, in one engine, precision and mirroring, each with its own windows and the
    post-processing that its configuration states. What is compared is written into the original's ledger first.

    Args:
        run_dir: Finished run of one fold, or a cross-validation of such runs.
        original: What it is compared with: the same folds of the same data set.
        output: Folder of ``certificate.json`` and ``certificate.md``, without a certificate yet.
        engine: What runs both networks.
        margin: Loss of Dice that still counts as not inferior, > 0.
        data_root: Folder of the data set; None is that of each run.

    Returns:
        The certificate.

    Raises:
        ConfigError: The engine is not installed.
        RunError: A run is not finished or holds nothing out, the two cannot be compared, or the output holds a
            certificate.
        DataError: Cases cannot be read.
    """
    check_engine(engine)
    check_folder(output)
    for name in (CERTIFICATE_FILE, CERTIFICATE_PAGE):
        if (output / name).exists():
            rule, remedy = "must hold no certificate yet", "choose another --output"
            raise RunError(Problem(quoted(str(output)), "exists", rule, name, remedy))
    before, after = (_read(path, data_root) for path in (original, run_dir))
    _check_comparable(before, after, engine)
    for run in before.runs:
        check_ledger(run.path / LEDGER_FILE)
    held_out = [case for split in before.splits for case in split.validation]
    if (few := few_patients(before.dataset, held_out)) is not None:
        LOG.warning("%d held-out patients are too few for a certificate, which needs %d", few, LEAST_PATIENTS)
    patch = _common_patch(before.config, after.config)
    costs = _costs(before, after, engine, patch)
    held_for = conditions(
        before.config, engine, patch=patch, timed=before.runs[0].path.name if len(before.runs) > 1 else ""
    )
    if after.config.window != before.config.window:
        held_for[f"windows, {CHANGED}"] = dimensions(after.config.window)
    look, number = freeze_folds(
        [run.path / LEDGER_FILE for run in before.runs],
        before.weights,
        {CHANGED: after.weights},
        margin,
        arithmetic(before.config, engine),
    )
    certificate = certify(
        look,
        before.scores(engine, ORIGINAL),
        lambda step: after.scores(engine, step.name),
        number=number,
        conditions=held_for,
        costs=costs,
    )
    write_certificate(output / CERTIFICATE_FILE, certificate)
    write_text(output / CERTIFICATE_PAGE, certificate_page(certificate))
    print(f"{format_certificate(certificate)}\ncertificate: {output / CERTIFICATE_FILE}")
    return certificate


def _read(root: Path, data_root: Path | None) -> _Side:
    """Reads the run, or those of all folds, and checks that none was trained on what it holds out."""
    folds = fold_directories(root)
    runs = [read_run(path) for path in folds.values() or [root]]
    configs, dataset, splits, _ = read_held_out([run.path for run in runs], data_root=data_root)
    check_apart(folds, configs, splits)
    check_unseen(splits, dataset)
    return _Side(
        root=root,
        runs=tuple(replace(run, config=configs[run.path]) for run in runs),
        weights=tuple(weights_digest(run.path) for run in runs),
        splits=tuple(splits[run.path] for run in runs),
        dataset=dataset,
    )


def _check_comparable(before: _Side, after: _Side, engine: Engine) -> None:
    """Checks that two networks are two, and that they hold out the same cases and predict them by the same arithmetic.

    Raises:
        RunError: They cannot be compared.
    """
    where = quoted(str(after.root))
    first, second = (
        {
            "folds": ", ".join(str(run.config.fold) for run in side.runs),
            "channels": ", ".join(side.runs[0].channel_names),
            "classes": ", ".join(side.runs[0].class_names),
            **arithmetic(side.config, engine),
        }
        for side in (before, after)
    )
    problems = [
        Problem(where, name, f"must have the {name} of the original, {value}", second[name], "compare runs that agree")
        for name, value in first.items()
        if second[name] != value
    ]
    if not problems:
        for one, other, run in zip(before.splits, after.splits, after.runs, strict=True):
            if apart := sorted(set(one.validation) ^ set(other.validation)):
                rule, remedy = "must hold out the cases of the original", "train it on the original's folds"
                problems.append(Problem(quoted(str(run.path)), "cases", rule, f"others: {some(apart)}", remedy))
        held_out = {case for split in before.splits for case in split.validation}
        known, found = (
            {case.id: case_digest(case) for case in side.dataset.cases if case.id in held_out}
            for side in (before, after)
        )
        if apart := sorted(case for case in known if case in found and known[case] != found[case]):
            rule, remedy = "must have the files of the original's cases", "give one data set by --data.root"
            problems.append(Problem(where, "data", rule, f"others of {some(apart)}", remedy))
    if set(before.weights) & set(after.weights):
        problems.append(Problem(where, "same", "must be another network than the original", "the same weights"))
    if problems:
        raise RunError(problems)


def _common_patch(original: ExperimentConfig, other: ExperimentConfig) -> Triple:
    """Returns the size of the original's patches, enlarged as far as the strides of the other network ask for."""
    strides = (total_stride(one.network.strides) for one in (original, other))
    x, y, z = (
        -(-size // (least := math.lcm(*both))) * least
        for size, *both in zip(original.patches.size, *strides, strict=True)
    )
    return x, y, z


def _costs(before: _Side, after: _Side, engine: Engine, patch: Triple) -> Mapping[str, Cost]:
    """Measures what both networks cost on a patch (X, Y, Z): of several folds the most, and a pass of the first."""
    config = replace(before.config, patches=replace(before.config.patches, size=patch))
    networks = {name: [run.network() for run in side.runs] for name, side in ((ORIGINAL, before), (CHANGED, after))}
    with tempfile.TemporaryDirectory() as folder:
        to_time: dict[str, UNet | Path] = {name: own[0] for name, own in networks.items()}
        to_load = {ORIGINAL: before.runs[0].path, CHANGED: after.runs[0].path}
        if engine != "torch":
            for name, own in networks.items():
                to_load[name] = to_time[name] = Path(folder) / f"{name}{ENDINGS['onnx']}"
                write_network(own[0], config.patches.size, to_load[name], "onnx")
        LOG.info("measuring latency and memory in %s", engine)
        latency = measure_latency(to_time, config, channels=networks[ORIGINAL][0].in_channels, engine=engine)
        memory = measure_memory(to_load, before.runs[0].path, engine=engine)
    found = {}
    for name, own in networks.items():
        macs, parameters = (max(numbers) for numbers in zip(*(cost(one, config) for one in own), strict=True))
        found[name] = Cost(
            macs=macs,
            parameters=parameters,
            latency_ms=latency[name].ms,
            latency_ratio=latency[name].ratio,
            peak_memory_mib=memory[name],
        )
    return found
