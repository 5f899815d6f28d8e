"""What became of the cases of a command: said on stderr, in the manifest and in the summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.errors import DataError
from seg.prediction.manifest import DONE, FAILED, MANIFEST_FILE, SKIPPED, Earlier, Header, Record, write_manifest
from seg.prediction.sources import Source

if TYPE_CHECKING:
    from seg.prediction.case import Predictor

LOG = logging.getLogger(__name__)
ALL_DONE, SOME_FAILED, ALL_FAILED = 0, 1, 2
SAVE_SECONDS = 5.0
"""The manifest is written anew so often, so that a killed run leaves one too."""


def describe(predictor: Predictor, models: Sequence[dict[str, Any]]) -> Header:
    """Says what computes, and how: as the networks do it, which need not be what was asked for."""
    from seg.hardware import environment

    precision = "+".join(sorted({model.precision for model in predictor.models}))
    rules = {
        predictor.class_names[index]: {"largest_component": rule.largest, "min_volume_ml": rule.min_volume_ml}
        for index, rule in sorted(predictor.rules.items())
    }
    return Header(
        models=models,
        settings={
            "tta": any(model.mirror_axes for model in predictor.models),
            "precision": precision,
            "clean_up": rules,
        },
        environment=environment(predictor.models[0].device, precision),
        warnings=predictor.warnings,
    )


@dataclass(eq=False)
class Journal:
    """What has become of the cases so far; written by one thread at a time.

    Attributes:
        begun: When the process began, on the clock of ``time.perf_counter``.
        sources: All cases of the command.
        header: What makes label maps.
        records: What became of cases, by output.
        seconds: Time of the command.
        saved: When the manifest was written last.
    """

    begun: float
    sources: Sequence[Source]
    header: Header
    records: dict[str, Record] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    saved: float = 0.0

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self.sources[0].output.parent / MANIFEST_FILE

    def keep(self, skipped: Sequence[Source], class_names: Sequence[str]) -> None:
        """Notes label maps that are there already, with the volumes of those that the manifest does not describe.

        Args:
            skipped: Cases whose label maps are there.
            class_names: Classes, the background first.

        Raises:
            RunError: The manifest cannot be written.
        """
        earlier = Earlier.read(self.manifest)
        new = [source for source in skipped if not earlier.describes(source.output.name)]
        if unknown := [source for source in new if not earlier.making(source.output.name).get("models")]:
            LOG.warning(
                "%d label map(s) were there before and no manifest says what made them, %s first; their volumes are "
                "those of the files",
                *(len(unknown), unknown[0].output),
            )
        for source in skipped:
            record = Record(output=source.output.name, status=SKIPPED)
            self.records[record.output] = _counted(source, record, class_names) if source in new else record
        if new or (earlier.latest and len(skipped) == len(self.sources)):
            self.save()

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
        skipped = sum(record.status == SKIPPED for record in self.records.values())
        print(f"predicted {done}, failed {failed}, skipped {skipped} of {len(self.sources)} cases")
        if done:
            totals = self._totals()
            print(f"{'stage':<12}{'seconds':>10}{'ms a case':>12}")
            for stage in STAGES:
                print(f"{stage:<12}{totals.get(stage, 0):>10.2f}{1000 * totals.get(stage, 0) / done:>12.1f}")
            for stage in ("start_up", "first_file", "total"):
                print(f"{stage:<12}{totals[stage]:>10.2f}")
        if self.manifest.exists():
            print(f"manifest: {self.manifest}")

    def exit_code(self) -> int:
        """Returns 0, 1 or 2; see :func:`seg.prediction.predict`."""
        failed = sum(record.status == FAILED for record in self.records.values())
        if not failed:
            return ALL_DONE
        return ALL_FAILED if failed == len(self.sources) else SOME_FAILED


def _counted(source: Source, record: Record, class_names: Sequence[str]) -> Record:
    """Adds the volumes of a label map that is there already; where it cannot be read, says so."""
    from seg.prediction.volumes import file_volumes

    try:
        return replace(record, volumes_ml=file_volumes(source.output, class_names))
    except DataError as error:
        warning = f"volumes are not known: {error}"
        LOG.warning("case %s: %s", source.name, warning)
        return replace(record, warnings=(warning,))
