"""The command that segments files: runs and cases, networks, label maps, manifest and summary."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg.config import DeviceName, PrecisionName
from seg.data.volumes import is_whole
from seg.errors import DataError, Problem, RunError
from seg.files import check_replaced, file_problems, quoted, remove_partial
from seg.inference.archive import unpacked
from seg.inference.cases import DONE, FAILED, SKIPPED, Record, Source, find_sources
from seg.inference.engines import Engine
from seg.inference.exported import read_run_or_export
from seg.runs import read_runs
from seg.workflows.manifest import (
    MANIFEST_FILE,
    VOLUMES_COLUMNS,
    VOLUMES_FILE,
    Provenance,
    StoredManifest,
    write_manifest,
)

if TYPE_CHECKING:
    from seg.inference.predictor import Predictor

LOG = logging.getLogger(__name__)
Existing = Literal["refuse", "skip", "overwrite"]


@file_problems()
def predict(
    *,
    run_dirs: Sequence[Path],
    input: Path,
    output: Path,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    tta: bool = False,
    probabilities: bool = False,
    existing: Existing = "refuse",
    engine: Literal["auto"] | Engine | None = None,
) -> int:
    """Segments files, prints where the time went, and leaves label maps and a manifest.

    Args:
        run_dirs: Run directories whose networks are averaged, packed runs, or exported networks.
        input: A file, a folder, or a list of files in a text file.
        output: File or folder of the label maps.
        device: Where to compute; auto takes a GPU where there is one, mps being Apple's.
        precision: Arithmetic of the networks; auto is that of each run's configuration in torch, and in other engines
            fp32, or int8 of a network in int8.
        tta: Whether logits are averaged over mirrored copies.
        probabilities: Whether probabilities are written too.
        existing: What is done about label maps that are there already.
        engine: What runs the networks; ``auto`` takes the fastest of those that are installed, by a measurement on
            this machine. None is torch, and ``auto`` where a network is exported.

    Returns:
        0 where all cases were segmented, 1 where some failed, 2 where all failed; each that failed is named.

    Raises:
        SegError: Nothing can be begun with these arguments.
    """
    begun = time.perf_counter() - process_seconds()
    with unpacked(run_dirs) as paths:
        runs = read_runs(paths, read=read_run_or_export)
        sources = find_sources(input, output, probabilities=probabilities)
        models = [run.description() for run in runs]
        written = [path for source in sources for path in source.results if path.exists()]
        if existing == "refuse" and written:
            value = f"an existing file, one of {len(written)}"
            remedy = "go on with the others by --skip_existing, replace it by --overwrite, or choose another --output"
            raise RunError(Problem(str(written[0]), "exists", "must be new", value, remedy))
        manifest = sources[0].output.parent / MANIFEST_FILE
        earlier = StoredManifest.read(manifest)
        if table := output not in {source.output for source in sources}:
            volumes, remedy = manifest.with_name(VOLUMES_FILE), "rename it, or choose another --output"
            check_replaced(volumes, ",".join(VOLUMES_COLUMNS), remedy=remedy)
        _remove_partial(sources)
        skipped = [source for source in sources if existing == "skip" and _is_whole(source)]
        _check_made_alike(manifest, earlier, skipped, {"models": [model["weights_sha256"] for model in models]})
        # Torch takes seconds to import: wrong arguments and run directories are named before that.
        from seg.inference.engine_choice import choose_engine
        from seg.inference.predictor import load_predictor

        load = partial(load_predictor, runs, device=device, tta=tta, probabilities=probabilities, precision=precision)
        chosen = choose_engine(engine, runs, lambda one: load(engine=one).models, device=device, precision=precision)
        predictor = load(engine=chosen)
    progress = PredictionRecords(begun, sources, describe(predictor, models), manifest, table=table)
    _check_made_alike(manifest, earlier, skipped, progress.provenance.made_by())
    progress.keep(skipped, earlier, predictor)
    if ready := [source for source in sources if source not in skipped]:
        _segment(predictor, ready, progress)
    return progress.summarise()


def _segment(predictor: Predictor, sources: Sequence[Source], progress: PredictionRecords) -> None:
    from tqdm import tqdm

    from seg.inference.pipeline import Pipeline

    progress.save()  # before the first label map: it says whose they are, whatever becomes of this process
    with tqdm(total=len(sources), desc="predict", unit="case", disable=None) as bar:

        def report(source: Source, record: Record) -> None:
            progress.report(source, record)
            bar.update()

        pipeline = Pipeline(predictor, sources, report)
        progress.seconds["start_up"] = time.perf_counter() - progress.begun
        try:
            pipeline.run()
        finally:
            progress.save()


def process_seconds() -> float:
    """Returns how long this process has been running; 0 where the system does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _is_whole(source: Source) -> bool:
    """Returns whether all results of a case are there and can be read; a damaged file is logged."""
    if source.problem is not None or not all(path.exists() for path in source.results):
        return False
    damaged = [path for path in source.results if not is_whole(path)]
    if damaged:
        LOG.warning("%s: the file is truncated or damaged; the case is predicted anew", damaged[0])
    return not damaged


def _check_made_alike(
    manifest: Path, earlier: StoredManifest, skipped: Sequence[Source], made_by: dict[str, Any]
) -> None:
    """Checks that the label maps of a folder were made by the same networks and settings as this command."""
    for name, outputs in earlier.made_differently([source.output.name for source in skipped], made_by).items():
        rule, which = "must hold label maps that were made alike", f"of {len(outputs)}, {outputs[0]} first"
        value = f"{name} {json.dumps(earlier.made_by(outputs[0])[name])} {which}, and {json.dumps(made_by[name])} now"
        remedy = "choose the same, or another --output, or replace them with --overwrite"
        if name == "models":
            rule, value = "must hold label maps of one model", f"another model {which}"
            remedy = "choose another --output, or replace them with --overwrite"
        raise RunError(Problem(str(manifest.parent), name, rule, value, remedy))


def _remove_partial(sources: Sequence[Source]) -> None:
    """Removes partial files of killed runs."""
    names = {source.output.name for source in sources} | {MANIFEST_FILE, VOLUMES_FILE}
    for folder in {path.parent for source in sources for path in (source.output, source.probabilities)}:
        remove_partial(folder, of=names)


SAVE_SECONDS = 5.0
"""Seconds between two writings of the manifest, so that a killed run leaves a manifest too."""


def describe(predictor: Predictor, models: Sequence[dict[str, Any]]) -> Provenance:
    """Returns what all label maps have in common: networks, settings as really used, machine."""
    from seg.hardware import environment
    from seg.inference.choice import CHOICE_FILE

    precision = "+".join(sorted({model.precision for model in predictor.models}))
    rules: dict[str, dict[str, Any]] = {
        predictor.class_names[index]: {"largest_component": rule.largest, "min_volume_ml": rule.min_volume_ml}
        for index, rule in sorted(predictor.rules.items())
    }
    for name in predictor.chosen:
        rules[name]["chosen_by"] = CHOICE_FILE
    mirrored = any(model.mirror_axes for model in predictor.models)
    return Provenance(
        models=models,
        settings={"engine": predictor.engine, "tta": mirrored, "precision": precision, "clean_up": rules},
        environment=environment(predictor.torch_device, precision, engine=predictor.engine),
        warnings=predictor.warnings,
    )


@dataclass(eq=False)
class PredictionRecords:
    """The records of the cases so far, in the manifest and on the screen; used by one thread at a time.

    Attributes:
        begun: When the process began, on the clock of ``time.perf_counter``.
        sources: All cases of the command.
        provenance: What makes label maps.
        manifest: Its file.
        table: Whether a table of volumes lies beside it, as in a folder of label maps.
        records: What became of cases, by output.
        seconds: Time of the command.
        saved: When the manifest was written last.
    """

    begun: float
    sources: Sequence[Source]
    provenance: Provenance
    manifest: Path
    table: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    saved: float = 0.0

    def keep(self, skipped: Sequence[Source], earlier: StoredManifest, predictor: Predictor) -> None:
        """Records label maps that exist; volumes that the earlier manifest does not give are measured in the files."""
        new = [source for source in skipped if not earlier.describes(source.output.name)]
        if unknown := [source for source in new if not earlier.made_by(source.output.name).get("models")]:
            LOG.warning(
                "%d label map(s) were there before and no manifest says what made them, %s first; their volumes are "
                "those of the files",
                *(len(unknown), unknown[0].output),
            )
        for source in skipped:
            record = Record(output=source.output.name, status=SKIPPED)
            self.records[record.output] = _counted(source, record, predictor) if source in new else record
        if new or (not earlier.complete and len(skipped) == len(self.sources)):
            self.save()

    def report(self, source: Source, record: Record) -> None:
        """Records what became of a case, and names its problems on the screen."""
        self.records[record.output] = record
        for problem in record.problems:
            LOG.error("case %s: %s", quoted(source.name), problem)
        for warning in record.warnings:
            LOG.warning("case %s: %s", quoted(source.name), warning)
        now = time.perf_counter()
        if record.status == DONE:
            self.seconds.setdefault("first_file", now - self.begun)
        if now - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the manifest."""
        self.saved = time.perf_counter()
        complete = len(self.records) == len(self.sources)
        records = list(self.records.values())
        write_manifest(self.manifest, self.provenance, records, self._totals(), complete=complete, table=self.table)

    def _totals(self) -> dict[str, float]:
        totals = dict(self.seconds)
        for record in self.records.values():
            for stage, value in record.seconds.items():
                totals[stage] = totals.get(stage, 0.0) + value
        return {**totals, "total": time.perf_counter() - self.begun}

    def summarise(self) -> int:
        """Prints counts and where the time went; returns the exit code, see :func:`predict`."""
        from seg.inference.predictor import STAGES

        counts = Counter(record.status for record in self.records.values())
        done, failed, of = counts[DONE], counts[FAILED], len(self.sources)
        print(f"predicted {done}, failed {failed}, skipped {counts[SKIPPED]} of {of} cases")
        if done:
            totals = self._totals()
            print(f"{'stage':<12}{'seconds':>10}{'ms a case':>12}")
            for stage in STAGES:
                print(f"{stage:<12}{totals.get(stage, 0):>10.2f}{1000 * totals.get(stage, 0) / done:>12.1f}")
            for stage in ("start_up", "first_file", "total"):
                print(f"{stage:<12}{totals[stage]:>10.2f}")
        if self.table and (volumes := self.manifest.with_name(VOLUMES_FILE)).exists():
            print(f"volumes: {volumes}")
        if self.manifest.exists():
            print(f"manifest: {self.manifest}")
        return 2 if failed == of else 1 if failed else 0


def _counted(source: Source, record: Record, predictor: Predictor) -> Record:
    """Adds the volumes of an existing label map, or a warning where the file cannot be read."""
    from seg.inference.cleaning import file_volumes

    try:
        return replace(record, volumes_ml=file_volumes(source.output, predictor.class_names, predictor.classes))
    except DataError as error:
        warning = f"volumes are not known: {error}"
        LOG.warning("case %s: %s", quoted(source.name), warning)
        return replace(record, warnings=(warning,))
