"""The whole way from a command to label maps: runs, cases, networks, files, manifest, summary."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.cli import PredictArguments
from seg.errors import RunError
from seg.prediction.loading import TrainedRun, load_predictor, read_runs
from seg.prediction.manifest import (
    DONE,
    FAILED,
    MANIFEST_FILE,
    SKIPPED,
    Header,
    Record,
    made_by_others,
    read_manifest,
    write_manifest,
)
from seg.prediction.sources import Source, find_sources

if TYPE_CHECKING:
    from seg.prediction.case import Predictor

LOG = logging.getLogger(__name__)
ALL_DONE, SOME_FAILED, ALL_FAILED = 0, 1, 2
PARTIAL_SECONDS = 60.0
SAVE_SECONDS = 5.0
"""The manifest is written anew so often, so that a killed run leaves one too."""


def predict(arguments: PredictArguments) -> int:
    """Segments files, prints where the time went, and leaves label maps and a manifest.

    Args:
        arguments: What to segment, with what, and where to.

    Returns:
        0 where all cases were segmented, 1 where some failed, 2 where all failed; each that failed is named.

    Raises:
        SegError: Nothing can be begun with these arguments.
    """
    begun = time.perf_counter() - process_seconds()
    runs = read_runs(arguments.run_dirs)
    sources = find_sources(arguments.input, arguments.output)
    models = [run.description() for run in runs]
    ready, skipped = _sorted_out(arguments, sources, models)
    journal = _Journal(begun, sources, skipped, models)
    if ready:
        from tqdm import tqdm

        from seg.prediction.line import Line

        predictor = load_predictor(
            runs,
            device=arguments.device,
            tta=arguments.tta,
            probabilities=arguments.probabilities,
            precision=arguments.precision,
        )
        journal.describe(predictor, runs, arguments)
        with tqdm(total=len(ready), desc="predict", unit="case", disable=None) as bar:

            def report(source: Source, record: Record) -> None:
                journal.report(source, record)
                bar.update()

            line = Line(predictor, ready, report)
            journal.seconds["start_up"] = time.perf_counter() - begun
            try:
                line.run()
            finally:
                journal.save()
    journal.summarise()
    return journal.exit_code()


def process_seconds() -> float:
    """Returns how long this process has been running; 0 where the system does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _sorted_out(
    arguments: PredictArguments, sources: Sequence[Source], models: Sequence[dict[str, Any]]
) -> tuple[list[Source], list[Source]]:
    """Divides cases into those to segment and those whose results are there already."""
    there = [source for source in sources if source.output.exists()]
    if arguments.existing == "refuse" and there:
        raise RunError(
            f"{there[0].output}: must be new, got an existing file, one of {len(there)}; add --skip_existing to go on "
            "with the others, --overwrite to replace it, or choose another --output."
        )
    manifest = sources[0].output.parent / MANIFEST_FILE
    read_manifest(manifest)  # a file that is none is met before any work
    _remove_partial(sources)
    if arguments.existing == "overwrite":
        return list(sources), []
    skipped = [source for source in there if not arguments.probabilities or source.probabilities.exists()]
    if others := made_by_others(manifest, [source.output.name for source in skipped], models):
        raise RunError(
            f"{manifest.parent}: label maps of one folder must come from one model, got {len(others)} by another, "
            f"{others[0]} first; choose another --output, or replace them with --overwrite."
        )
    return [source for source in sources if source not in skipped], skipped


def _remove_partial(sources: Sequence[Source]) -> None:
    """Removes what a killed run had begun to write beside its results; a file that still grows is another run's."""
    prefixes = {f".{source.output.name}." for source in sources}
    for folder in {path.parent for source in sources for path in (source.output, source.probabilities)}:
        for entry in folder.iterdir() if folder.is_dir() else ():
            begun = entry.name.startswith(".") and f"{entry.name.rpartition('.')[0]}." in prefixes
            if begun and time.time() - entry.stat().st_mtime > PARTIAL_SECONDS:
                entry.unlink(missing_ok=True)


@dataclass(eq=False)
class _Journal:
    """What has become of the cases so far; written by one thread at a time."""

    begun: float
    sources: Sequence[Source]
    skipped: Sequence[Source]
    models: Sequence[dict[str, Any]]
    records: dict[str, Record] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    header: Header | None = None
    saved: float = 0.0

    @property
    def manifest(self) -> Path:
        return self.sources[0].output.parent / MANIFEST_FILE

    def describe(self, predictor: Predictor, runs: Sequence[TrainedRun], arguments: PredictArguments) -> None:
        """Notes what computes."""
        from seg.hardware import environment

        first = predictor.models[0]
        tta = [arguments.tta or run.config.inference.tta for run in runs]
        precision = "+".join(sorted({model.precision for model in predictor.models}))
        self.header = Header(
            models=self.models,
            settings={"tta": any(tta), "precision": precision},
            environment=environment(first.device, precision),
        )
        for source in self.skipped:
            self.records[source.output.name] = Record(output=source.output.name, status=SKIPPED)
        self.save()  # before the first label map: it says whose they are, whatever becomes of this process

    def report(self, source: Source, record: Record) -> None:
        """Notes a case."""
        self.records[record.output] = record
        for problem in record.problems:
            LOG.error("case %s: %s", source.name, problem)
        for warning in record.warnings:
            LOG.warning("case %s: %s", source.name, warning)
        now = time.perf_counter()
        if record.status == DONE:
            self.seconds.setdefault("first_file", now - self.begun)
        if now - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the manifest."""
        self.saved = time.perf_counter()
        if self.header is not None:
            complete = len(self.records) == len(self.sources)
            write_manifest(self.manifest, self.header, list(self.records.values()), self._totals(), complete=complete)

    def _totals(self) -> dict[str, float]:
        totals = dict(self.seconds)
        for record in self.records.values():
            for stage, value in record.seconds.items():
                totals[stage] = totals.get(stage, 0.0) + value
        return {**totals, "total": time.perf_counter() - self.begun}

    def summarise(self) -> None:
        """Prints counts and where the time went."""
        from seg.prediction.case import STAGES

        done = sum(record.status == DONE for record in self.records.values())
        failed = sum(record.status == FAILED for record in self.records.values())
        print(f"predicted {done}, failed {failed}, skipped {len(self.skipped)} of {len(self.sources)} cases")
        if done:
            totals = self._totals()
            print(f"{'stage':<12}{'seconds':>10}{'ms a case':>12}")
            for stage in STAGES:
                print(f"{stage:<12}{totals.get(stage, 0):>10.2f}{1000 * totals.get(stage, 0) / done:>12.1f}")
            for stage in ("start_up", "first_file", "total"):
                print(f"{stage:<12}{totals[stage]:>10.2f}")
        if self.header is not None:
            print(f"manifest: {self.manifest}")

    def exit_code(self) -> int:
        """Returns 0, 1 or 2; see :func:`predict`."""
        failed = sum(record.status == FAILED for record in self.records.values())
        if not failed:
            return ALL_DONE
        return ALL_FAILED if failed == len(self.sources) else SOME_FAILED
