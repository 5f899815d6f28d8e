"""What a study is going to run: every trial with its size, its work and the time that it will take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.ablation.grid import Study, Trial
from seg.ablation.launch import threads_per_trial
from seg.ablation.store import TrialRecord, read_trials
from seg.ablation.study_file import count_costs, read_study_data
from seg.ablation.trials import fingerprint, why_unfinished
from seg.data.cases import Dataset
from seg.words import in_time

COLUMNS = ("trial", "parameters", "GMAC", "time", "from")
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The wall time of a trial.

    Attributes:
        seconds: Measured or predicted, in s.
        source: ``finished`` where it was measured, else what it is predicted from.
    """

    seconds: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """Time as a function of work.

    Attributes:
        fixed: What takes the same time in every variant, such as augmentation, in s.
        per_mac: Time of a multiply-accumulate of the network, in s.
        words: How the two were found.
    """

    fixed: float
    per_mac: float
    words: str

    def seconds(self, macs: int) -> float:
        """Returns the time of a variant."""
        return self.fixed + self.per_mac * macs


def preview_study(study: Study, study_dir: Path) -> str:
    """Lists the trials of a study in the order in which they run, as a table, with the total below it.

    Times come from trials that are finished in the study directory: of the same variant where there are some, else by
    multiply-accumulates. Where none is finished, a few training steps are timed here.

    Args:
        study: The study.
        study_dir: Study directory; it may be absent, and nothing is written to it.

    Returns:
        Text of several lines.

    Raises:
        SegError: The data set or a record cannot be read, or the device is not there.
    """
    dataset = read_study_data(study)
    costs = count_costs(study, dataset)
    work = {name: cost.macs for name, cost in costs.items()}
    records = _finished(study, study_dir)
    if records:
        line = fit_line([(work[record.variant], record.total_seconds or 0.0) for record in records.values()])
        basis = (
            f"Times are predicted from {len(records)} finished trials, from training to measures of preservation, on "
            f"the device that they ran on; those of variants without one follow {line.words}."
        )
    else:
        line, basis = _calibrated(study, dataset, work)
    expected = expect(study.trials, records, line, work)
    rows = [
        (
            trial.id,
            f"{costs[trial.variant.name].parameters:,}",
            f"{work[trial.variant.name] / GIGA:.2f}",
            in_time(expected[trial.id].seconds),
            expected[trial.id].source,
        )
        for trial in study.trials
    ]
    left = [one.seconds for one in expected.values() if one.source != "finished"]
    total = (
        f"{len(study.trials)} trials, {len(study.trials) - len(left)} finished; the other {len(left)} take about "
        f"{in_time(sum(left))} one after the other."
    )
    return "\n".join([*_table(rows), "", total, basis])


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
) -> dict[str, Expected]:
    """Predicts the time of trials.

    Args:
        trials: The trials.
        records: Finished trials by id, with their seconds.
        line: Time of variants that have no finished trial.
        work: Multiply-accumulates by variant.

    Returns:
        The time of each trial by id: its own where it is finished, else the mean of its variant's, else by its work.
    """
    of_variant: dict[str, list[float]] = {}
    for record in records.values():
        of_variant.setdefault(record.variant, []).append(record.total_seconds or 0.0)
    expected = {}
    for trial in trials:
        name = trial.variant.name
        if trial.id in records:
            expected[trial.id] = Expected(seconds=records[trial.id].total_seconds or 0.0, source="finished")
        elif name in of_variant:
            expected[trial.id] = Expected(seconds=statistics.fmean(of_variant[name]), source="same variant")
        else:
            expected[trial.id] = Expected(seconds=line.seconds(work[name]), source="GMAC")
    return expected


def _finished(study: Study, study_dir: Path) -> dict[str, TrialRecord]:
    """Finds the trials that a run of the study would not repeat."""
    stored = read_trials(study_dir)
    return {
        trial.id: stored[trial.id].record
        for trial in study.planned
        if trial.id in stored and not why_unfinished(stored[trial.id], trial.config, fingerprint(trial.config))
    }


def _calibrated(study: Study, dataset: Dataset, work: Mapping[str, int]) -> tuple[Line, str]:
    """Times steps of the baseline and of the variant that is farthest from it in work."""
    from seg.ablation.calibration import time_step

    launch = study.config.launch
    threads = launch.cpus_per_trial if launch.backend == "process" else threads_per_trial(launch)
    steps = study.baseline.config.training.steps
    farthest = max(study.variants, key=lambda variant: abs(work[variant.name] - work[study.baseline.name]))
    timed = {
        variant.name: time_step(variant.config, len(dataset.channel_names), len(dataset.class_names), threads=threads)
        for variant in (study.baseline, farthest)
    }
    line = fit_line([(work[name], one.seconds * steps) for name, one in timed.items()])
    measured = " and ".join(f"{one.seconds * 1000:.0f} ms for {name}" for name, one in timed.items())
    first = timed[study.baseline.name]
    return line, (
        f"No trial is finished: times are those of {steps} training steps alone, without validation, scoring and what "
        f"is measured of trained networks. A step takes {measured}, the median of {first.steps} timed now on "
        f"{first.device}; the other variants follow {line.words}."
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [COLUMNS, *rows]) for column in range(len(COLUMNS))]
    left = (True, False, False, False, True)
    return [
        "  ".join(
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, width, flush in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in [COLUMNS, *rows]
    ]
