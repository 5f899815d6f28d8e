"""What a study is going to run: every trial with its size, its work and the time that it will take."""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seg.ablation.launch import trial_threads
from seg.ablation.plan import count_costs, read_study_data
from seg.ablation.store import SPEED_FILE, StoredTrial, TrialRecord, read_trials
from seg.ablation.study import Study, Trial
from seg.ablation.trials import StudyPaths, check_study_dir, trials_left, why_unfinished
from seg.config import ExperimentConfig
from seg.config.study import SpeedConfig
from seg.data.cases import Dataset
from seg.data.datasets import read_folds
from seg.data.splits import spread_over
from seg.words import aligned, counted, in_time

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
COLUMNS = ("trial", "parameters", "GMAC", "time", "from")
GIGA = 1e9
TIMED = 5
"""Steps and passes that are timed, after one that is not."""
LONGEST_S = 20.0
"""Time after which no further step of a network is timed."""
SAMPLED_CASES = 8
"""Held-out cases whose headers tell how many windows a prediction has."""
PRESERVATION_PASSES = 3
"""Measuring preservation is taken to last as long as three predictions of the held-out cases: one and a half passes
over them in fp32, and about as much again for the statistics of every voxel."""
STEP_WINDOWS = 3
"""A training step is taken to last as long as three predictions of its patches: the backward pass takes two."""


class Line(NamedTuple):
    """Time as a function of work: what every variant takes alike, in s, and that of a multiply-accumulate, in s."""

    fixed: float
    per_mac: float
    words: str

    def seconds(self, macs: int) -> float:
        """Returns the predicted seconds of a trial of a variant with so many multiply-accumulates."""
        return self.fixed + self.per_mac * macs


class Timed(NamedTuple):
    """Shortest wall times of a training step and of the prediction of a window on a device, in s."""

    step: float
    window: float
    device: str


def preview_study(study: Study, study_dir: Path, *, runs_dir: Path | None = None) -> str:
    """Lists the trials of a study in the order in which they run, as a table, with the total below it.

    Args:
        study: The study.
        study_dir: Study directory; it may be absent, and nothing is written to it.
        runs_dir: Folder of the run directories; None is ``runs`` in the study directory.

    Returns:
        Text of several lines.

    Raises:
        SegError: The data set or a result cannot be read, results are those of another study, or the device is not
            there.
    """
    check_study_dir(study_dir)
    costs = count_costs(study, read_study_data(study))
    stored = read_trials(study_dir)
    paths = StudyPaths(study_dir=study_dir, runs_dir=runs_dir or study_dir / "runs")
    left = trials_left(study.trials, paths, stored)
    expected, speed, basis = expected_times(study, stored)
    rows = [
        (
            trial.id,
            f"{costs[trial.variant.name].parameters:,}",
            f"{costs[trial.variant.name].macs / GIGA:.2f}",
            in_time(expected[trial.id][0]),
            expected[trial.id][1],
        )
        for trial in study.trials
    ]
    total = f"{len(study.trials)} trials, {len(study.trials) - len(left)} finished"
    if left:
        seconds = sum(expected[trial.id][0] for trial in left)
        total += f"; the other {len(left)} take about {in_time(seconds)} one after the other"
    if speed and (left or not (study_dir / SPEED_FILE).is_file()):
        total += f"; to measure speed takes about {in_time(speed)} on the device of the trials"
    return "\n".join([aligned([COLUMNS, *rows], right=(1, 2, 3)), "", f"{total}.", *([basis] if left else [])])


def expected_times(study: Study, stored: Mapping[str, StoredTrial]) -> tuple[dict[str, tuple[float, str]], float, str]:
    """Predicts the wall time of each trial of a study, and of measuring its speed.

    Times come from trials that are finished: of the same variant where there are some, else by multiply-accumulates.
    Where none is finished, a few training steps and predictions are timed here.

    Returns:
        Seconds of each trial and ``finished`` or what they are predicted from, by name; seconds of measuring speed, 0
        where the study does not; and a text on all of them.

    Raises:
        SegError: The data set cannot be read, or the device is not there.
    """
    dataset = read_study_data(study)
    work = {name: cost.macs for name, cost in count_costs(study, dataset).items()}
    records = {
        trial.id: stored[trial.id].record
        for trial in study.planned
        if not why_unfinished(stored.get(trial.id), trial.config)
    }
    if records:
        line = fit_line([(work[record.variant], record.total_seconds or 0.0) for record in records.values()])
        basis = (
            f"Times are predicted from {counted(len(records), 'finished trial')}, from training to measures of "
            f"preservation, on the device that they ran on; those of variants without one follow {line.words}."
        )
    else:
        line, basis = _measured(study, dataset, work)
    expected = expect(study.trials, records, line, work)
    if not study.config.speed.enabled or not expected:
        return expected, 0.0, basis
    windows, cases = count_windows(study.baseline.config, fold=study.config.folds[0])
    by_variant = {trial.variant.name: expected[trial.id][0] for trial in study.trials}
    by_variant.setdefault(study.baseline.name, line.seconds(work[study.baseline.name]))
    speed = sum(
        speed_seconds(study.config.speed, study.baseline.config, seconds, windows=windows, cases=cases)
        for seconds in by_variant.values()
    )
    return expected, speed, basis


def fit_line(times: Sequence[tuple[int, float]]) -> Line:
    """Fits time to work by least squares.

    Args:
        times: Multiply-accumulates and seconds, at least one pair. With one amount of work alone, or where no line of
            positive constants fits, time is taken to be in proportion to work, by the median of the ratios.
    """
    if len({macs for macs, _ in times}) > 1:
        slope, intercept = statistics.linear_regression(*zip(*times, strict=True))
        if slope > 0 and intercept >= 0:
            return Line(fixed=intercept, per_mac=slope, words="a line in GMAC through these")
    rate = statistics.median(seconds / macs for macs, seconds in times)
    return Line(fixed=0.0, per_mac=rate, words="these in proportion to GMAC")


def expect(
    trials: Sequence[Trial], records: Mapping[str, TrialRecord], line: Line, work: Mapping[str, int]
) -> dict[str, tuple[float, str]]:
    """Predicts the time of trials.

    Args:
        trials: The trials.
        records: Finished trials by name, with their seconds.
        line: Time of variants that have no finished trial.
        work: Multiply-accumulates by variant.

    Returns:
        The time of each trial by name, and its source: its own where it is finished, else the mean of its variant's,
        else by its work.
    """
    of_variant: dict[str, list[float]] = {}
    for record in records.values():
        of_variant.setdefault(record.variant, []).append(record.total_seconds or 0.0)
    expected = {}
    for trial in trials:
        name = trial.variant.name
        if trial.id in records:
            expected[trial.id] = records[trial.id].total_seconds or 0.0, "finished"
        elif name in of_variant:
            expected[trial.id] = statistics.fmean(of_variant[name]), "same variant"
        else:
            expected[trial.id] = line.seconds(work[name]), "GMAC"
    return expected


def trial_seconds(config: ExperimentConfig, timed: Timed, *, windows: float, cases: int) -> float:
    """Predicts the time of a trial: training, validation, scoring, generalisation and preservation.

    The held-out cases are predicted at each validation and once at the end, as many training cases once, and measuring
    preservation takes as long as some more predictions.
    """
    return config.training.steps * timed.step + _passes(config) * cases * windows * timed.window


def _passes(config: ExperimentConfig) -> int:
    """Counts the predictions of the held-out cases that a trial takes as long as, beside its training."""
    validations = config.training.steps // config.training.validate_every
    mirrored = 2 ** len(config.augmentation.spatial.mirror_axes) if config.inference.tta else 1
    return validations + mirrored + 1 + PRESERVATION_PASSES


def speed_seconds(speed: SpeedConfig, config: ExperimentConfig, trial: float, *, windows: float, cases: int) -> float:
    """Predicts the time of measuring the speed of a variant from that of its trial, in s.

    Args:
        speed: Rounds.
        config: The experiment.
        trial: Time of a trial, in s.
        windows: Mean number of windows of a case.
        cases: Held-out cases.
    """
    from seg.ablation.speed import PREDICTED_CASES
    from seg.benchmark.measure import Settings
    from seg.benchmark.memory import PASSES, PROCESSES
    from seg.benchmark.timing import LEAST_SECONDS

    batch = config.patches.batch
    step = STEP_WINDOWS * batch * config.training.accumulate  # in windows
    window = trial / (config.training.steps * step + _passes(config) * cases * windows)
    rounds = speed.rounds + speed.warmup
    times = sum(max(LEAST_SECONDS, many * window) for many in (1, batch, step))
    predictions = (Settings(rounds=speed.rounds).prediction_rounds + 1) * min(PREDICTED_CASES, cases) * windows
    return rounds * times + (predictions + PROCESSES["cpu"] * PASSES * (1 + step)) * window


def count_windows(config: ExperimentConfig, *, fold: int) -> tuple[float, int]:
    """Counts the windows of a prediction and the held-out cases of a fold; reads headers alone.

    Returns:
        Mean number of windows over a sample of the cases, and the number of cases.

    Raises:
        DataError: The data set or a header cannot be read.
    """
    from seg.data.volumes import read_header
    from seg.inference.windows import window_starts

    dataset, splits = read_folds(config.data)
    held_out = sorted(splits[fold].validation)
    images = {case.id: case.images[0] for case in dataset.cases}
    size, counts = config.window, []
    for case_id in spread_over(held_out, SAMPLED_CASES):
        header = read_header(images[case_id])
        shape: Sequence[float] = header.shape
        if config.data.spacing_mm is not None:
            mm = [math.dist((0, 0, 0), column) for column in header.affine[:3, :3].T]
            shape = [n * own / new for n, own, new in zip(shape, mm, config.data.spacing_mm, strict=True)]
        starts = (window_starts(round(n), w, config.inference.overlap) for n, w in zip(shape, size, strict=True))
        counts.append(math.prod(map(len, starts)))
    return statistics.fmean(counts), len(held_out)


def time_network(config: ExperimentConfig, in_channels: int, num_classes: int, *, threads: int = 0) -> Timed:
    """Times training steps and predictions of an experiment on this machine.

    A step is augmentation, forward, backward and update. Patches are noise of the training size, so no data are read.
    The shortest time counts: other work on the machine only ever adds to a time.

    Args:
        config: The experiment.
        in_channels: Channels of an image.
        num_classes: Classes, background included.
        threads: Threads of the numerical library meanwhile; 0 leaves its own choice.

    Raises:
        ConfigError: The device that the experiment asks for is not there.
    """
    import torch

    from seg.benchmark.subjects import Runtime, TrainingStep
    from seg.hardware import choose_device, choose_precision
    from seg.inference.memory import memory_format_on
    from seg.inference.model import autocast
    from seg.networks import network_from_config
    from seg.networks.blocks import initialise

    device = choose_device(config.training.device)
    if device.type == "mps":
        LOG.warning("times on the Apple GPU (mps) are not predicted; those of the processor follow")
        device = torch.device("cpu")
    runtime = Runtime(
        device=device,
        precision=choose_precision(config.training.precision, device),
        memory_format=memory_format_on(device, config.training.memory_format),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        built = network_from_config(config.network, in_channels, num_classes)
        initialise(built, config.seed)
        network = runtime.put(built)
        step = TrainingStep(
            config, network, channels=in_channels, num_classes=num_classes, runtime=runtime, augmented=True
        )
        image = runtime.image(1, in_channels, config.window)

        def predict() -> None:
            with torch.inference_mode(), autocast(device, runtime.precision):
                network(image)

        seconds = shortest(step, runtime.wait)
        network.eval()
        return Timed(step=seconds, window=shortest(predict, runtime.wait), device=_name(device, runtime.precision))
    finally:
        torch.set_num_threads(before)


def shortest(
    call: Callable[[], object], wait: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns the shortest wall time of a call, in s, after one call that is not timed unless it took very long.

    Args:
        call: What to time.
        wait: Returns once the device has nothing left to do.
        clock: Time in s.
    """
    times: list[float] = []
    while len(times) <= TIMED and sum(times) < LONGEST_S:
        start = clock()
        call()
        wait()
        times.append(clock() - start)
    return min(times[1:] or times)


def _measured(study: Study, dataset: Dataset, work: Mapping[str, int]) -> tuple[Line, str]:
    """Times the baseline and the variant that is farthest from it in work."""
    from seg.hardware import load_1min

    windows, cases = count_windows(study.baseline.config, fold=study.config.folds[0])
    farthest = max(study.variants, key=lambda variant: abs(work[variant.name] - work[study.baseline.name]))
    timed = {}
    for variant in (study.baseline, farthest):
        LOG.warning("no trial is finished: timing training steps and predictions of %s", variant.name)
        timed[variant.name] = time_network(
            variant.config,
            len(dataset.channel_names),
            len(dataset.class_names),
            threads=trial_threads(study.config.launch),
        )
    config = study.baseline.config
    seconds = {name: trial_seconds(config, one, windows=windows, cases=cases) for name, one in timed.items()}
    line = fit_line([(work[name], value) for name, value in seconds.items()])
    steps = " and ".join(f"{one.step * 1000:.0f} ms for {name}" for name, one in timed.items())
    load, busy = load_1min(), ""
    if load is None:
        busy = " Whether the machine was busy meanwhile is not known."
    elif load > (os.cpu_count() or 1):
        busy = f" The machine was busy meanwhile (load {load:.1f}), so an idle one is faster."
    return line, (
        f"No trial is finished: times are predicted from steps and predictions timed now on "
        f"{timed[study.baseline.name].device}. A step takes {steps}; to {config.training.steps} steps come the "
        f"predictions of {cases} held-out cases of {windows:.1f} windows, for validation, scoring and what is measured "
        f"of trained networks. The other variants follow {line.words}.{busy}"
    )


def _name(device: torch.device, precision: str) -> str:
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    threads = torch.get_num_threads()
    return f"this processor with {counted(threads, 'thread')}, {precision}"
