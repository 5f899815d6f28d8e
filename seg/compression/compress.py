"""The command that makes smaller networks from a trained one, and certifies them on its held-out patients."""

from __future__ import annotations

import logging
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seg.compression import CASES, TUNE_STEPS
from seg.compression.certificate import (
    CERTIFICATE_FILE,
    CERTIFICATE_PAGE,
    LEDGER_FILE,
    ORIGINAL,
    Certificate,
    ClassResult,
    Cost,
    Counted,
    StepResult,
    certify,
    check_ledger,
    format_certificate,
    freeze_folds,
    never_frozen,
    verdict_of,
    write_with_page,
)
from seg.compression.comparing import (
    OF_ALL_FOLDS,
    announce_few,
    arithmetic,
    check_engine,
    conditions,
    engine_scores,
    machine,
    torch_scores,
)
from seg.compression.cuts import BY_MACS, BY_PARAMETERS, Prices
from seg.compression.int8 import INT8, mark, quantising, write_int8
from seg.compression.memory import measure_memory
from seg.compression.original import Original, check_uncut, cost, read_original
from seg.compression.record import (
    COMPRESSION_FILE,
    COMPRESSION_VERSION,
    FoldRecord,
    Record,
    StepRecord,
    format_steps,
)
from seg.compression.search import (
    LEAST_KEPT,
    STOP_BELOW,
    WALK,
    judge,
    reach,
    smaller_networks,
    worst,
)
from seg.compression.shrink import BeyondReachError, Shrunk, kinds_cut
from seg.compression.speed import ROUNDS, measure_latency, time_of_elements
from seg.compression.target import Kind, Target
from seg.config.loading import content_digest
from seg.config.study import MARGIN
from seg.data.cases import Dataset
from seg.errors import ConfigError, Problem, RunError, SegError, shown
from seg.evaluation.scores import CASES_FILE, EVALUATION_FILE, CaseScore, read_cases
from seg.files import (
    check_folder,
    file_digest,
    file_problems,
    is_partial,
    quoted,
    read_json,
    working_in,
    write_json,
)
from seg.hardware import environment, vector_floats
from seg.inference.engines import Engine
from seg.inference.export import write_network
from seg.inference.exported import ENDINGS, read_export, record_path
from seg.inference.quantise import check_quantiser
from seg.networks import UNet
from seg.runs import (
    MODEL_FILE,
    Origin,
    TrainedRun,
    check_no_fold,
    fold_directories,
    open_run,
    read_description,
    read_run,
    save_weights,
    weights_digest,
)
from seg.words import counted
from seg.workflows.evaluate import (
    check_apart,
    check_unseen,
    describe_model,
    nothing_held_out,
    read_held_out,
    run_predictor,
    score_run,
    scored_otherwise,
    summarise_folds,
)

LOG = logging.getLogger(__name__)
ALIGNED = 8
"""All widths but those of the 1x1 before kernels are multiples of this number where a latency is asked for: feature
maps in multiples of 4 were slower in OpenVINO."""
CUT_WORDS = {"ranks": "1x1 around kernels", "channels": "fewer channels"}
"""What certificates call the kinds of cut."""
LOCK_FILE = "compress.lock"
"""There while a process works on the steps."""
METHOD = 11
"""Version of how steps are made. Raise it when the same settings come to make other steps: no folder mixes two."""
Judged = tuple[UNet, FoldRecord]
FIRST_OVER_WANTED = 1.25
"""The search for a latency begins at this multiple of the first wanted share of the work."""
TRIAL_ROUNDS = 7
"""Rounds of a measurement on the way to a latency; a network that seems to be there is measured anew by `ROUNDS`."""


@file_problems()
def compress(
    run_dir: Path,
    output: Path,
    *,
    target: Target | None = None,
    engine: Engine = "torch",
    int8: bool = False,
    margin: float = MARGIN,
    cases: int = CASES,
    multiple: int | None = None,
    tune_steps: int = TUNE_STEPS,
    data_root: Path | None = None,
) -> Certificate:
    """Makes smaller networks from a trained one and certifies them on the patients that it did not see.

    Training cases alone decide what is cut. Without a target, steps of less and less work are made while the mean
    change of Dice of training patients that are held back stays above minus half the margin in each class. All steps
    are made and written down before the held-out cases are looked at; they are tested from mild to strong, and the
    first that does not pass ends the test. A command that was killed goes on from the steps that are made.

    Args:
        run_dir: Finished run of one fold, with its scores, or a cross-validation of such runs.
        output: Folder of the smaller run directories, new or begun by the same command.
        target: What the steps are to cost; None makes smaller ones while held-back patients keep their Dice.
        engine: What runs the networks where they are scored and timed.
        int8: Whether the smallest step is made in int8 too, and tested last; by the engine openvino alone.
        margin: Loss of Dice that still counts as not inferior, > 0.
        cases: Training cases that are measured, >= 1.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number; None is 8 for a
            latency, else 1.
        tune_steps: Steps of training towards the original's probabilities at most, where a step lost more than a
            quarter of the margin on held-back patients; weights are kept only where they are better there.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        The certificate.

    Raises:
        ConfigError: The target is beyond reach, there are too few patients to hold one back, or the engine is not
            installed.
        RunError: A run is not finished, has no held-out cases or scores, is compressed already or finds no class, or
            the output holds something else.
        DataError: Cases cannot be read.
    """
    check_engine(engine)
    if int8:
        if engine != "openvino":
            rule, remedy = "must be with the engine openvino", "add --engine openvino, or leave it out"
            raise ConfigError(Problem("int8", "conflict", rule, engine, remedy))
        check_quantiser()
    settings = {
        "target": None if target is None else {"kind": target.kind, "shares": list(target.shares)},
        "engine": engine,
        "int8": int8,
        "margin": margin,
        "cases": cases,
        "multiple": multiple or (ALIGNED if target is not None and target.kind == "latency" else 1),
        "tune_steps": tune_steps,
        "method": METHOD,
    }
    for folder in (output, *(output / name for name in (target or WALK).names)):
        check_folder(folder)
    check_no_fold(output)
    _earlier_record(output, settings)
    folds = fold_directories(run_dir)
    runs = [_read(path) for path in folds.values() or [run_dir]]
    with working_in(output, LOCK_FILE, (COMPRESSION_FILE, CERTIFICATE_FILE, CERTIFICATE_PAGE)):
        return _compress(runs, folds, output, target, data_root, settings)


def _compress(
    runs: Sequence[tuple[TrainedRun, Origin]],
    folds: Mapping[int, Path],
    output: Path,
    target: Target | None,
    data_root: Path | None,
    settings: Mapping[str, Any],
) -> Certificate:
    originals, dataset = _read_originals(runs, folds, data_root, settings["cases"])
    announce_few(dataset, [original.split for original in originals])
    with tempfile.TemporaryDirectory() as exported:
        work = _Work(output, originals, dataset, settings, Path(exported))
        engine: Engine = settings["engine"]
        steps = list(work.walk() if target is None else work.reach(target))
        if settings["int8"]:
            steps.append(work.quantised(steps[-1]))
        work.measure_passes(steps)
        print(format_steps(steps, originals, work.record))
        for step in steps if target is None or target.kind != "latency" else ():
            latency = work.record.latency[step.name]
            if latency.q3 >= 1:
                words = "%s is not shown to be faster in %s, where it takes %.2f of the time: ask for %s"
                LOG.warning(words, step.name, engine, latency.ratio, "--target latency=0.5 or so")
        certificate = work.certify(steps)
    print(f"{format_certificate(certificate)}\ncertificate: {output / CERTIFICATE_FILE}")
    if certificate.passed is not None:
        networks = shlex.join(map(str, work.to_predict_with(certificate.passed)))
        print(f"next: seg predict --run_dir {networks} --engine {engine} --input SCANS --output LABEL_MAPS")
    return certificate


def _earlier_record(output: Path, settings: Mapping[str, Any]) -> Record | None:
    """Returns the record that an earlier command left in the output folder; None where that is absent or empty.

    Raises:
        RunError: The folder holds something else, or the earlier command had other settings.
    """
    if not output.is_dir() or all(path.name == LOCK_FILE or is_partial(path) for path in output.iterdir()):
        return None
    remedy = "choose another --output"
    if not (output / COMPRESSION_FILE).is_file():
        rule = "must be absent, an empty folder, or begun by this command"
        raise RunError(Problem(quoted(str(output)), "exists", rule, "other files", remedy))
    record = read_json(output / COMPRESSION_FILE, Record, newest=COMPRESSION_VERSION, remedy=remedy)
    if not (record.steps or record.trials):  # as where the target was out of reach
        return None
    if record.settings.get("method") != settings["method"]:
        rule = "must have been begun by a version that cuts and tunes alike"
        raise RunError(Problem(quoted(str(output)), "version", rule, "another version", remedy))
    began = record.settings
    if other := sorted(name for name, value in settings.items() if began.get(name) != value):
        rule = "must have been begun with the same settings"
        value = ", ".join(
            "other originals"
            if name == "originals"
            else f"{name} {shown(settings[name])}, not {shown(began.get(name))}"
            for name in other
        )
        raise RunError(Problem(quoted(str(output)), "settings", rule, value, remedy))
    return record


def _read_originals(
    runs: Sequence[tuple[TrainedRun, Origin]], folds: Mapping[int, Path], data_root: Path | None, cases: int
) -> tuple[list[Original], Dataset]:
    """Measures runs on training cases; returns them with their splits and data, and the data set they share."""
    configs, dataset, splits, _ = read_held_out([run.path for run, _ in runs], data_root=data_root)
    check_apart(folds, configs, splits)
    check_unseen(splits, dataset)
    originals = []
    for run, origin in runs:
        run = replace(run, config=configs[run.path])
        originals.append(read_original(run, origin, splits[run.path], dataset, cases))
    return originals, dataset


def _read(run_dir: Path) -> tuple[TrainedRun, Origin]:
    where = quoted(str(run_dir))
    run = read_run(run_dir)
    if run.config.fold is None:
        raise RunError(nothing_held_out(run_dir))
    origin, _ = check_uncut(run)
    for name in (EVALUATION_FILE, CASES_FILE):
        if not (run_dir / name).is_file():
            rule, remedy = "must have scores of held-out cases", "score it by seg evaluate"
            raise RunError(Problem(where, "scores", rule, f"no {name}", remedy))
    check_ledger(run_dir / LEDGER_FILE)
    return run, origin


class _Work:
    """The steps of a command: made once, written down, and found again by the command that goes on.

    Args:
        output: Folder of the smaller run directories.
        originals: The runs that are made smaller, one of each fold.
        dataset: Their data set.
        settings: Whatever decides what is made.
        exported: Folder for networks as an engine other than torch reads them.
    """

    def __init__(
        self,
        output: Path,
        originals: Sequence[Original],
        dataset: Dataset,
        settings: Mapping[str, Any],
        exported: Path,
    ) -> None:
        self.output, self.originals, self.dataset, self.exported = output, originals, dataset, exported
        self.margin: float = settings["margin"]
        self.multiple: int = settings["multiple"]
        self.tune_steps: int = settings["tune_steps"]
        self.engine: Engine = settings["engine"]
        self.counted: Kind = "macs" if settings["target"] is None else settings["target"]["kind"]
        described = tuple(_description(original) for original in originals)
        whole = {**settings, "originals": [content_digest(one) for one in described]}
        self.record = _earlier_record(output, whole) or Record(settings=whole, originals=described)
        measured_on = machine(originals[0].config, self.engine)
        if self.record.machine != measured_on and (self.record.latency or self.record.trials):
            LOG.warning(
                "time and memory were measured on another machine or by other versions, so they are measured anew"
            )
            # Steps that were chosen by them are made anew too; their folders stay until then.
            chosen: dict[str, Any] = {"steps": (), "int8": ()} if self.counted == "latency" else {}
            self.record = replace(self.record, latency={}, memory={}, trials={}, **chosen)
        self.record = replace(self.record, machine=measured_on)
        self.done = {step.name: step for step in self.record.steps}
        self._write()

    def walk(self) -> Iterator[StepRecord]:
        """Makes steps of less and less work while held-back patients keep the Dice of each class; the first always."""
        made = self._steps(WALK.names, [smaller_networks(one, WALK.shares, self.multiple) for one in self.originals])
        for number in range(len(WALK.shares)):
            try:
                step = next(made)
            except BeyondReachError as error:
                if not number:
                    if self.multiple > 1:
                        rule = "must let widths keep less of the work than the original"
                        raise ConfigError(Problem("multiple", "range", rule, str(self.multiple), "lower it")) from error
                    where, rule = quoted(str(self.originals[0].run.path)), "must have widths that can be narrower"
                    raise RunError(Problem(where, "narrow", rule, "none", "give a wider network")) from error
                LOG.info("no smaller step can be made: %s", error)
                return
            lost = worst(np.array([row for fold in step.folds for row in fold.lost]))
            ends = lost < -STOP_BELOW * self.margin
            if ends:
                LOG.info("%s loses %.4f on held-back patients, so no smaller step is made", step.name, -lost)
            if number == 0 or not ends:
                yield step
            if ends:
                return

    def reach(self, target: Target) -> Iterator[StepRecord]:
        """Yields one step, with a smaller network of each run, for each share of the target that is within reach.

        Raises:
            ConfigError: None is.
        """
        names = target.names
        if target.kind == "latency":
            networks = [self._to_latency(one, target.shares) for one in self.originals]
        else:
            prices = BY_MACS if target.kind == "macs" else BY_PARAMETERS
            networks = [smaller_networks(one, target.shares, self.multiple, prices) for one in self.originals]
        made = self._steps(names, networks)
        for number, share in enumerate(target.shares):
            try:
                step = next(made)
            except BeyondReachError as error:
                if number:
                    LOG.warning("%s is out of reach, so the steps before it are the last: %s", names[number], error)
                    return
                if target.kind == "latency":
                    raise
                rule = f"must be a share of {target.kind} that widths of multiples of {self.multiple} can reach"
                remedy = f"the narrowest network keeps about {error.least:g}"
                raise ConfigError(Problem("target", "range", rule, f"{share:g}", remedy)) from error
            yield step

    def quantised(self, step: StepRecord) -> StepRecord:
        """Returns a step in int8; its networks are made and written unless the record says that they are there."""
        name = f"{step.name}_{INT8}"
        files = [self._file(name, original) for original in self.originals]
        digests = self.record.int8
        if not (len(digests) == len(files) and all(map(_is_file_of, files, digests))):
            for original, file in zip(self.originals, files, strict=True):
                run = read_run(self._directory(step.name, original))
                # A certificate that is there already speaks of fp32.
                run = replace(run, config=replace(run.config, data=original.config.data), certificate=None)
                write_int8(run, file, self.dataset, original.split)
            digests = tuple(file_digest(file.with_suffix(".bin")).hex() for file in files)
            kept = {one for one in self.record.latency if one != name}
            self.record = replace(self.record.with_passes_of(kept), int8=digests)
            self._write()
        folds = tuple(
            replace(fold, weights_sha256=sha, held_back=(), tuned_steps=0)  # measured of the step before it alone
            for fold, sha in zip(step.folds, digests, strict=True)
        )
        return StepRecord(name=name, folds=folds)

    def measure_passes(self, steps: Sequence[StepRecord]) -> None:
        """Measures time and memory of a pass of the original and of each step of the first run, where not recorded."""
        names = (ORIGINAL, *(step.name for step in steps))
        untimed = set(names) - set(self.record.latency)
        unknown = [name for name in names if self.record.memory.get(name) is None]
        if not (untimed or unknown):
            return
        first, engine = self.originals[0], self.engine
        networks = {name: self._to_run(name, first) for name in names}
        if untimed:
            LOG.info("measuring latency in %s", engine)
            channels = first.network.in_channels
            latency = measure_latency(networks, first.config, channels=channels, engine=engine)
            self.record = replace(self.record, latency=latency)
            self._write()
        if unknown:
            LOG.info("measuring memory in %s", engine)
            # A network for torch is read anew from its run, in a process of its own.
            paths = {
                name: network if isinstance(network, Path) else self._directory(name, first)
                for name, network in networks.items()
                if name in unknown
            }
            patch = first.config.patches.size
            memory = measure_memory(paths, first.run.path, engine=engine, patch=patch)
            self.record = replace(self.record, memory={**self.record.memory, **memory})
            self._write()

    def certify(self, steps: Sequence[StepRecord]) -> Certificate:
        """Freezes the steps and tests them on the held-out cases."""
        config = self.originals[0].config
        sets = quantising(config)["instruction sets"]  # in int8, other processors have other sums
        networks = {
            step.name: [fold.weights_sha256 + (sets if _in_int8(step.name) else "") for fold in step.folds]
            for step in steps
        }
        freezing = (
            [one.run.path / LEDGER_FILE for one in self.originals],
            [weights_digest(one.run.path) for one in self.originals],
        )
        how = arithmetic(config, self.engine)
        scored = {
            step.name: networks[step.name]
            for step in steps
            if any(_is_scored_untested(self._directory(step.name, one)) for one in self.originals)
        }
        if seen := never_frozen(*freezing, scored, how):
            # Whoever has these scores has looked: they can choose by them what is asked for next.
            LOG.warning("%s: scored on held-out cases before it was frozen, which counts as a look", ", ".join(seen))
            freeze_folds(*freezing, {name: scored[name] for name in seen}, self.margin, {**how, "scored": "before"})
        look, number = freeze_folds(*freezing, networks, self.margin, how)
        certificate = certify(
            look,
            self._original_scores(),
            lambda step: self._scores(step.name),
            number=number,
            conditions=self._conditions(steps),
            costs=self._costs(steps),
        )
        write_with_page(self.output, certificate)
        for place, original in enumerate(self.originals):
            for step, result in zip(steps, certificate.steps, strict=True):
                if _in_int8(step.name):
                    mark(self._file(step.name, original), certified=certificate.proves(step.name))
                else:
                    own = step.folds[place]
                    # The first fold alone was timed.
                    record = self.record.with_passes_of(()) if place else self.record
                    cost = _cost((own.macs, own.parameters), step.name, record)
                    self._describe(result, original, certificate, cost, _cost(original.cost, ORIGINAL, record))
        return certificate

    def to_predict_with(self, name: str) -> list[Path]:
        """Lists the paths to give to `seg predict --run_dir` for a step: files in int8, else its folder."""
        return [self._file(name, one) for one in self.originals] if _in_int8(name) else [self.output / name]

    def _steps(self, names: Sequence[str], networks_by_fold: Sequence[Iterator[Shrunk]]) -> Iterator[StepRecord]:
        """Yields the steps of a compression in order, and makes those that an earlier command did not finish.

        Args:
            names: Names of the steps, mild to strong.
            networks_by_fold: Gives for each run its networks, one for each name.
        """
        made = [0] * len(self.originals)  # networks of each run that were made before and not asked for
        last: list[tuple[Shrunk, Judged] | None] = [None] * len(self.originals)
        for name in names:
            folds, whole = self._found(name)
            made = [count + (place in whole) for place, count in enumerate(made)]
            if len(whole) == len(self.originals):
                LOG.info("%s was made before", name)
                yield StepRecord(name=name, folds=tuple(folds))
                continue
            LOG.info("making %s%s", name, f", of which {counted(len(whole), 'fold')} were made before" if whole else "")
            # All first: one that is out of reach is so for all folds.
            networks = {
                place: [next(networks_by_fold[place]) for _ in range(made[place] + 1)][-1]
                for place in range(len(self.originals))
                if place not in whole
            }
            for place, network in networks.items():
                made[place] = 0
                before = last[place]
                # A network may be within two shares.
                same = before is not None and before[0] == network
                judged = before[1] if before is not None and same else self._judge(self.originals[place], network)
                last[place] = network, judged
                folds[place : place + 1] = [self._make(name, judged, place)]
                self._record_step(StepRecord(name=name, folds=tuple(folds)))
            yield self.done[name]

    def _judge(self, original: Original, network: Shrunk) -> Judged:
        return judge(
            original,
            network,
            self.dataset,
            tune_steps=self.tune_steps,
            margin=self.margin,
            cache=self.output / "cache",
        )

    def _make(self, name: str, judged: Judged, place: int) -> FoldRecord:
        """Saves the smaller network of a fold as a run directory."""
        small, fold = judged
        original = self.originals[place]
        target = self._directory(name, original)
        # What an earlier command left, and of a cross-validation what speaks of all folds.
        for folder in (self.output / name, target):
            _empty(folder, keep=[one.run.path.name for one in self.originals if folder != target])
        self._write_run(small, original, target)
        return replace(fold, weights_sha256=weights_digest(target))

    def _record_step(self, step: StepRecord) -> None:
        """Records a step in compression.json, of a cross-validation as far as its folds are made."""
        self.done[step.name] = step
        self.record = replace(self.record.with_passes_of({ORIGINAL}), steps=tuple(self.done.values()), int8=())
        self._write()

    def _found(self, name: str) -> tuple[list[FoldRecord], set[int]]:
        """Returns the folds of a step that are recorded, and which of them are there as they were made."""
        recorded = self.done.get(name)
        folds = [] if recorded is None else list(recorded.folds[: len(self.originals)])
        whole = set()
        for place, (original, fold) in enumerate(zip(self.originals, folds, strict=False)):
            if (counts := self._cost_of_whole(name, original, fold)) is not None:
                whole.add(place)
                folds[place] = replace(fold, macs=counts[0], parameters=counts[1])
        if len(whole) < len(self.originals) and (self.output / name).is_symlink():
            whole = set()  # the link is replaced, and what it leads to is left alone
        return folds, whole

    def _cost_of_whole(self, name: str, original: Original, fold: FoldRecord) -> tuple[int, int] | None:
        """Counts what the network of a fold costs; None where it is not as it was made, which is announced."""
        path = self._directory(name, original)
        if not (path / MODEL_FILE).is_file():
            return None
        classes = len(original.run.class_names) - 1
        try:
            run = read_run(path)
            if weights_digest(path) == fold.weights_sha256 and {len(row) for row in fold.held_back} == {classes}:
                return cost(run.network(), run.config)
            problem = "it is not the network of compression.json"
        except SegError as error:
            problem = str(error)
        LOG.warning("%s is made again: %s", quoted(str(path)), problem)
        return None

    def _directory(self, name: str, original: Original) -> Path:
        """Returns the run directory of the original, or of a step, which is laid out as the originals are."""
        if name == ORIGINAL:
            return original.run.path
        folder = self.output / name
        return folder if len(self.originals) == 1 else folder / original.run.path.name

    def _file(self, name: str, original: Original) -> Path:
        """Returns the file of a network in int8."""
        return self.output / name / f"{'network' if len(self.originals) == 1 else original.run.path.name}.xml"

    def _to_run(self, name: str, original: Original) -> UNet | Path:
        """Returns the original or the network of a step, as the engine takes it."""
        if _in_int8(name):
            return self._file(name, original)
        network = original.network if name == ORIGINAL else read_run(self._directory(name, original)).network()
        return self._for_engine(network, original, name)

    def _for_engine(self, network: UNet, original: Original, name: str) -> UNet | Path:
        """Returns the network itself for torch, else its ONNX file, which is written at the first call for a name."""
        if self.engine == "torch":
            return network
        file = self._exported_file(original, name)
        if not file.is_file():
            write_network(network, original.config.patches.size, file, "onnx")
        return file

    def _exported_file(self, original: Original, name: str) -> Path:
        return self.exported / f"fold_{original.config.fold}_{name}{ENDINGS['onnx']}"

    def _write_run(self, small: UNet, original: Original, target: Path) -> None:
        run, config = original.run, replace(original.config, network=small.config)
        computed_with = environment(torch.device("cpu"), original.precision)
        made_from = replace(original.origin, computed_with=computed_with, initial_weights=weights_digest(run.path))
        (target / "checkpoints").mkdir(parents=True)
        save_weights(small, target, channel_names=run.channel_names, class_names=run.class_names)
        open_run(config, target, made_from)
        card = describe_model(target, config, self.dataset, None)
        write_json(target / MODEL_FILE, {**card, "certificate": {"verdict": "not tested"}})

    def _write(self) -> None:
        write_json(self.output / COMPRESSION_FILE, {"schema_version": COMPRESSION_VERSION, **asdict(self.record)})

    def _to_latency(self, original: Original, shares: Sequence[float]) -> Iterator[Shrunk]:
        ratio = partial(self._latency_ratio, original)
        vector = vector_floats() if self.record.machine["device"] == "cpu" else 1  # not measured on a GPU
        element = time_of_elements(original.network, original.config.patches.size, ratio, vector)
        prices = Prices(element=element, vector=vector)
        above = FIRST_OVER_WANTED * shares[0]
        begin = above if above < 1 else LEAST_KEPT  # the original itself needs no measurement
        yield from reach(original, shares, self.multiple, ratio, begin=begin, prices=prices)

    def _latency_ratio(self, original: Original, network: UNet, wanted: float = 0.0) -> float:
        """Returns a network's time divided by the original's, measured once and kept so that the search is repeatable.

        A network that seems to be within the wanted share is measured once more, and that counts: the first of many to
        seem so is likely to be one that was measured too fast.
        """
        macs, _ = cost(network, original.config)

        def measured(key: str, rounds: int) -> float:
            if key not in self.record.trials:
                networks = {
                    ORIGINAL: self._to_run(ORIGINAL, original),
                    "smaller": self._for_engine(network, original, shape),
                }
                times = measure_latency(
                    networks,
                    original.config,
                    channels=network.in_channels,
                    engine=self.engine,
                    rounds=rounds,
                )
                ratio = times["smaller"].ratio
                LOG.info("%.3g of the multiply-accumulates take %.3g of the time", macs / original.cost[0], ratio)
                self.record = replace(self.record, trials={**self.record.trials, key: ratio})
                self._write()
            return self.record.trials[key]

        shape = content_digest(asdict(network.config))
        ratio = measured(shape, TRIAL_ROUNDS)
        if ratio <= wanted:
            ratio = measured(f"{shape} {wanted:g}", ROUNDS)
        self._exported_file(original, shape).unlink(missing_ok=True)
        return ratio

    def _original_scores(self) -> list[CaseScore]:
        if self.engine == "torch":
            return [score for one in self.originals for score in torch_scores(one.run, one.split, self.dataset)]
        return [score for one in self.originals for score in self._engine_scores(one, ORIGINAL)]

    def _scores(self, name: str) -> list[CaseScore]:
        """Predicts and scores the held-out cases by a step of each fold."""
        if self.engine != "torch":
            return [score for one in self.originals for score in self._engine_scores(one, name)]
        directories = {original.config.fold or 0: self._directory(name, original) for original in self.originals}
        scores: list[CaseScore] = []
        for original, path in zip(self.originals, directories.values(), strict=True):
            config = replace(original.config, network=read_run(path).config.network)
            predictor = run_predictor(path, config, self.dataset)
            # Scores may be there of a command that was killed behind them.
            reuse = not scored_otherwise(path, predictor, self.dataset, original.split)
            score_run(path, config, self.dataset, original.split, reuse=reuse, alone=len(directories) == 1)
            scores += read_cases(path / CASES_FILE)
        if len(directories) > 1:
            config = self.originals[0].config
            summarise_folds(config, self.dataset, self.output / name, directories, list(directories.values()))
        return scores

    def _engine_scores(self, original: Original, name: str) -> list[CaseScore]:
        """Predicts and scores the held-out cases by the original or the network of a step, in an engine."""
        return engine_scores(
            original.run,
            self._to_run(name, original),
            original.split,
            self.dataset,
            engine=self.engine,
            name=name,
            precision=INT8 if _in_int8(name) else "fp32",
        )

    def _conditions(self, steps: Sequence[StepRecord]) -> dict[str, str]:
        config, settings = self.originals[0].config, self.record.settings
        held_back = counted(max(len(original.held_back) for original in self.originals), "training patient")
        decided = [
            *([] if settings["target"] else ["where the steps end"]),
            *(["what is tuned, and how far"] if self.tune_steps else []),
        ]
        kinds = {
            kind
            for step in steps
            if not _in_int8(step.name)
            for one in self.originals
            for kind in kinds_cut(one.config.network, read_run(self._directory(step.name, one)).config.network)
        }
        cuts = " and ".join(words for kind, words in CUT_WORDS.items() if kind in kinds)
        made_by = f"{cuts}, layers solved anew, at most {counted(self.tune_steps, 'step')} of tuning"
        runs = [original.run for original in self.originals]
        found = conditions(runs, self.engine, patch=config.patches.size)
        found["made by"] = made_by
        if decided:
            others = "" if settings["target"] or len(runs) == 1 else " (other folds hold them out)"
            found["held-back patients"] = (
                f"{held_back} of a run decided {' and '.join(decided)}{others}; the original was trained on them, so "
                "their losses are biased, and no part of this certificate"
            )
        for step in steps:
            if _in_int8(step.name):
                found[step.name] = "; ".join(f"{name}: {value}" for name, value in quantising(config).items())
        return found

    def _costs(self, steps: Sequence[StepRecord]) -> dict[str, Cost]:
        """Returns what the original and the steps cost: of several folds the most of any, and a pass of the first."""
        costs = {ORIGINAL: self.originals[0].cost} | {
            step.name: (max(one.macs for one in step.folds), max(one.parameters for one in step.folds))
            for step in steps
        }
        return {name: _cost(numbers, name, self.record) for name, numbers in costs.items()}

    def _describe(
        self, result: StepResult, original: Original, certificate: Certificate, cost: Cost, original_cost: Cost
    ) -> None:
        """Writes into the model card of a step what the certificate says of it."""
        path = self._directory(result.step.name, original)
        config = replace(original.config, network=read_run(path).config.network)
        card = describe_model(path, config, self.dataset, None)
        said = {
            "verdict": result.verdict,
            "certified": result.step.name == certificate.certified,
            "margin": certificate.margin,
            "look": certificate.look,
            "exploratory": certificate.exploratory,
            "differences": {
                one.name: {
                    "original": one.original,
                    "mean": one.difference,
                    "bound": one.bound,
                    "patients": one.patients,
                    "lost": _without_names(one.lost),
                    "invented": _without_names(one.invented),
                    "fold": (
                        _of_fold(one, original.config.fold, certificate.margin) if len(self.originals) > 1 else None
                    ),
                }
                for one in result.classes
            },
            "cost": asdict(cost),
            "original": {"sha256": list(certificate.original), "cost": asdict(original_cost)},
            "conditions": {name: value for name, value in certificate.conditions.items() if name != OF_ALL_FOLDS},
        }
        write_json(path / MODEL_FILE, {**card, "certificate": said})


def _of_fold(result: ClassResult, fold: int | None, margin: float) -> dict[str, Any]:
    """Describes what a class loses on one fold of several by itself."""
    own = next((one for one in result.folds if one.fold == fold), None)
    if own is None:
        return {"patients": 0, "mean": None, "bound": None, "verdict": verdict_of(0, None, margin)}
    verdict = verdict_of(own.patients, own.bound, margin)
    return {"patients": own.patients, "mean": own.difference, "bound": own.bound, "verdict": verdict}


def _empty(folder: Path, *, keep: Collection[str] = ()) -> None:
    """Removes what a folder holds but for some names; of a link to a folder the link alone."""
    check_folder(folder)
    if folder.is_symlink():
        folder.unlink()
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_scored_untested(run_dir: Path) -> bool:
    """Returns whether a network was scored on held-out cases, and no certificate tells of that."""
    if not (run_dir / CASES_FILE).is_file():
        return False
    claim = read_description(run_dir).claim
    return claim is None or claim.exploratory is None


def _in_int8(step: str) -> bool:
    return step.endswith(f"_{INT8}")


def _is_file_of(file: Path, digest: str) -> bool:
    """Returns whether a network in int8 and its record are there, whole, with weights of a digest."""
    if not record_path(file).is_file():
        return False
    try:
        read_export(file)
    except SegError as error:
        LOG.warning("%s is made again: %s", file, error)
        return False
    return file_digest(file.with_suffix(".bin")).hex() == digest


def _cost(numbers: tuple[int, int], name: str, record: Record) -> Cost:
    macs, parameters = numbers
    latency = record.latency.get(name)
    times = {} if latency is None else {"latency_ms": latency.ms, "latency_ratio": latency.ratio}
    return Cost(macs=macs, parameters=parameters, **times, peak_memory_mib=record.memory.get(name))


def _without_names(found: Counted) -> dict[str, int | float | None]:
    """Describes a count without the names of patients, as a model card is handed on."""
    return {"number": len(found.names), "of": found.of, "upper": found.upper}


def _description(original: Original) -> dict[str, Any]:
    macs, parameters = original.cost
    return {
        **original.run.description(),
        "fold": original.config.fold,
        "macs": macs,
        "parameters": parameters,
        "patch_size": list(original.config.patches.size),
        "cases": list(original.measured),
    }
