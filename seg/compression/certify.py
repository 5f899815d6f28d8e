"""The command that certifies a finished run against another one, on the patients that both hold out."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seg.compression.certificate import (
    CERTIFICATE_FILE,
    CERTIFICATE_PAGE,
    LEDGER_FILE,
    ORIGINAL,
    Certificate,
    Cost,
    certify,
    check_ledger,
    format_certificate,
    freeze_folds,
    write_with_page,
)
from seg.compression.comparing import (
    announce_few,
    arithmetic,
    check_engine,
    conditions,
    engine_scores,
    mirroring,
    torch_scores,
)
from seg.compression.memory import measure_memory
from seg.compression.original import cost
from seg.compression.speed import measure_latency
from seg.config import ExperimentConfig
from seg.config.loading import content_digest
from seg.config.study import MARGIN
from seg.data.cache import case_digest
from seg.data.cases import Dataset
from seg.data.splits import Split
from seg.errors import Problem, RunError
from seg.evaluation.scores import CaseScore
from seg.files import check_folder, file_problems, quoted, real_path, working_in
from seg.inference.engines import Engine
from seg.inference.export import write_network
from seg.inference.exported import ENDINGS
from seg.networks import UNet
from seg.networks.blocks import total_stride
from seg.networks.conv import Triple
from seg.runs import TrainedRun, check_no_fold, fold_directories, read_run, weights_digest
from seg.words import some
from seg.workflows.evaluate import check_apart, check_unseen, read_held_out

LOG = logging.getLogger(__name__)
CHANGED = "changed"
"""Name of the network that is compared with the original."""
LOCK_FILE = "certify.lock"
"""There while a process compares two networks."""
SHOWN = 12
"""Digits of a SHA-256 that name weights in a certificate."""


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two networks that are compared: a run, or one run for each fold, with training and held-out cases.

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

    @property
    def predicted(self) -> dict[str, object]:
        """Settings of prediction and clean-up, by their dotted names."""
        config = self.config
        sections = {"inference": asdict(config.inference), "postprocessing": asdict(config.postprocessing)}
        fields = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
        return {**fields, "inference.window": config.window}

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
    check_no_fold(output)
    if real_path(output) == real_path(original):
        rule, remedy = "must be another folder than the original's", "give that of the other run, or a new one"
        raise RunError(Problem(quoted(str(output)), "exists", rule, "the original", remedy))
    for name in (CERTIFICATE_FILE, CERTIFICATE_PAGE):
        if os.path.lexists(output / name):
            rule, remedy = "must hold no certificate yet", "choose another --output"
            raise RunError(Problem(quoted(str(output)), "exists", rule, name, remedy))
    before, after = (_read(path, data_root) for path in (original, run_dir))
    if problems := [*_setting_problems(before, after, engine)] or [*_case_problems(before, after)]:
        raise RunError(problems)
    for run in before.runs:
        check_ledger(run.path / LEDGER_FILE)
    announce_few(before.dataset, before.splits)
    with working_in(output, LOCK_FILE, (CERTIFICATE_FILE, CERTIFICATE_PAGE)):
        patch = _common_patch(before.config, after.config)
        costs = _costs(before, after, engine, patch)
        look, number = freeze_folds(
            [run.path / LEDGER_FILE for run in before.runs],
            before.weights,
            {CHANGED: after.weights},
            margin,
            {
                **arithmetic(before.config, engine),
                "predicted": content_digest({ORIGINAL: before.predicted, CHANGED: after.predicted}),
            },
        )
        certificate = certify(
            look,
            before.scores(engine, ORIGINAL),
            lambda step: after.scores(engine, step.name),
            number=number,
            conditions=_conditions(before, after, engine, patch),
            costs=costs,
        )
        write_with_page(output, certificate)
    print(f"{format_certificate(certificate)}\ncertificate: {output / CERTIFICATE_FILE}")
    return certificate


def _read(root: Path, data_root: Path | None) -> _Side:
    """Reads a run or all folds; refuses held-out patients whom they were trained on."""
    folds = fold_directories(root)
    runs = [read_run(path) for path in folds.values() or [root]]
    paths = [run.path for run in runs]
    configs, dataset, splits, _ = read_held_out(paths, data_root=data_root, networks_differ=True)
    check_apart(folds, configs, splits)
    check_unseen(splits, dataset)
    return _Side(
        root=root,
        runs=tuple(replace(run, config=configs[run.path]) for run in runs),
        weights=tuple(weights_digest(run.path) for run in runs),
        splits=tuple(splits[run.path] for run in runs),
        dataset=dataset,
    )


def _setting_problems(before: _Side, after: _Side, engine: Engine) -> Iterator[Problem]:
    """Finds differences in settings that make a comparison of two networks invalid."""
    where = quoted(str(after.root))
    rule, remedy = "must be another network than the original", "give two runs"
    if set(before.weights) & set(after.weights):
        yield Problem(where, "same", rule, "the same weights", remedy)
    first, second = (
        {
            "folds": ", ".join(str(run.config.fold) for run in side.runs),
            "channels": ", ".join(side.dataset.channel_names),
            "classes": ", ".join(side.dataset.score_names),
            **arithmetic(side.config, engine),
            "mirroring": mirroring(side.config),
        }
        for side in (before, after)
    )
    for name, value in first.items():
        if second[name] != value:
            remedy = "give --engine openvino" if name in ("device", "precision") else "give runs that agree"
            yield Problem(where, name, f"must have the {name} of the original, {value}", second[name], remedy)
    if after.config.training.early_stop is not None:
        rule = "must not be chosen by the cases that it holds out"
        yield Problem(where, "early_stop", rule, "training.early_stop", "train it for a fixed number of steps")


def _case_problems(before: _Side, after: _Side) -> Iterator[Problem]:
    """Finds differences in held-out cases that make a comparison of two networks invalid; both have the same folds."""
    for one, other, run in zip(before.splits, after.splits, after.runs, strict=True):
        where = quoted(str(run.path))
        if apart := sorted(set(one.validation) ^ set(other.validation)):
            rule, remedy = "must hold out the cases of the original", "train it on the original's folds"
            yield Problem(where, "cases", rule, f"others: {some(apart)}", remedy)
    cases = {case for split in before.splits for case in split.validation}
    first, second = (
        {
            case.id: (case_digest(case), case.patient_or_id, side.dataset.class_map, side.dataset.regions)
            for case in side.dataset.cases
            if case.id in cases
        }
        for side in (before, after)
    )
    if apart := sorted(case for case in first.keys() & second.keys() if first[case] != second[case]):
        rule, remedy = "must have the files, patients and classes of the original's cases", "give one by --data.root"
        yield Problem(quoted(str(after.root)), "data", rule, f"others of {some(apart)}", remedy)


def _conditions(before: _Side, after: _Side, engine: Engine, patch: Triple) -> dict[str, str]:
    """Describes both networks and how they are run."""
    found = conditions(before.runs, engine, patch=patch)
    for name, side in ((ORIGINAL, before), (CHANGED, after)):
        weights = ", ".join(sha[:SHOWN] for sha in side.weights)
        found[name] = f"{side.config.name}, seed {side.config.seed}, SHA-256 of the weights {weights}"
    for name, value in after.predicted.items():
        if value != before.predicted[name]:
            found[f"{CHANGED}: {name}"] = str(value)
            found[f"{ORIGINAL}: {name}"] = str(before.predicted[name])
    found["looks"] = "those of the original's ledger; to choose a network by its held-out scores is one too"
    return found


def _common_patch(original: ExperimentConfig, other: ExperimentConfig) -> Triple:
    """Returns the smallest size (X, Y, Z) that holds a patch of either network and that the strides of both divide."""
    both = (original, other)
    sizes = zip(*(one.patches.size for one in both), strict=True)
    strides = zip(*(total_stride(one.network.strides) for one in both), strict=True)
    x, y, z = (
        -(-max(size) // (least := math.lcm(*stride))) * least for size, stride in zip(sizes, strides, strict=True)
    )
    return x, y, z


def _costs(before: _Side, after: _Side, engine: Engine, patch: Triple) -> Mapping[str, Cost]:
    """Measures work, parameters, latency and memory of both networks on a patch (X, Y, Z).

    Work and parameters are the most of any fold; latency and memory are of the first.
    """
    config = replace(before.config, patches=replace(before.config.patches, size=patch))
    networks = {name: [run.network() for run in side.runs] for name, side in ((ORIGINAL, before), (CHANGED, after))}
    with tempfile.TemporaryDirectory() as folder:
        to_time: dict[str, UNet | Path] = {name: own[0] for name, own in networks.items()}
        to_load = {ORIGINAL: before.runs[0].path, CHANGED: after.runs[0].path}
        if engine != "torch":
            for name, own in networks.items():
                to_load[name] = to_time[name] = Path(folder) / f"{name}{ENDINGS['onnx']}"
                write_network(own[0], patch, to_load[name], "onnx")
        LOG.info("measuring latency and memory in %s", engine)
        latency = measure_latency(to_time, config, channels=networks[ORIGINAL][0].in_channels, engine=engine)
        memory = measure_memory(to_load, before.runs[0].path, engine=engine, patch=patch)
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
