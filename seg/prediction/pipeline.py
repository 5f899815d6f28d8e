"""The whole way from a command to label maps: runs, cases, networks, files, manifest, summary."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.cli import PredictArguments
from seg.data.nifti import is_whole
from seg.errors import RunError
from seg.prediction.journal import Journal, describe
from seg.prediction.loading import load_predictor, read_runs
from seg.prediction.manifest import MANIFEST_FILE, Earlier, Record
from seg.prediction.sources import Source, find_sources

if TYPE_CHECKING:
    from seg.prediction.case import Predictor

LOG = logging.getLogger(__name__)
PARTIAL_SECONDS = 60.0


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
    sources = find_sources(arguments.input, arguments.output, probabilities=arguments.probabilities)
    models = [run.description() for run in runs]
    ready, skipped = _sorted_out(arguments, sources)
    _check_making(sources, skipped, {"models": [model["weights_sha256"] for model in models]})
    predictor = load_predictor(
        runs,
        device=arguments.device,
        tta=arguments.tta,
        probabilities=arguments.probabilities,
        precision=arguments.precision,
    )
    journal = Journal(begun, sources, describe(predictor, models))
    _check_making(sources, skipped, journal.header.making())
    journal.keep(skipped, predictor.class_names)
    if ready:
        _segment(predictor, ready, journal)
    journal.summarise()
    return journal.exit_code()


def _segment(predictor: Predictor, sources: Sequence[Source], journal: Journal) -> None:
    from tqdm import tqdm

    from seg.prediction.line import Line

    journal.save()  # before the first label map: it says whose they are, whatever becomes of this process
    with tqdm(total=len(sources), desc="predict", unit="case", disable=None) as bar:

        def report(source: Source, record: Record) -> None:
            journal.report(source, record)
            bar.update()

        line = Line(predictor, sources, report)
        journal.seconds["start_up"] = time.perf_counter() - journal.begun
        try:
            line.run()
        finally:
            journal.save()


def process_seconds() -> float:
    """Returns how long this process has been running; 0 where the system does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _sorted_out(arguments: PredictArguments, sources: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Divides cases into those to segment and those whose results are there already."""
    there = [source for source in sources if source.output.exists()]
    written = [path for source in sources for path in _results(source, arguments) if path.exists()]
    if arguments.existing == "refuse" and written:
        raise RunError(
            f"{written[0]}: must be new, got an existing file, one of {len(written)}; add --skip_existing to go on "
            "with the others, --overwrite to replace it, or choose another --output."
        )
    manifest = sources[0].output.parent / MANIFEST_FILE
    Earlier.read(manifest)  # a file that is none is met before any work
    _remove_partial(sources)
    if arguments.existing == "overwrite":
        return list(sources), []
    kept = [source for source in there if not arguments.probabilities or source.probabilities.exists()]
    skipped = [source for source in kept if _is_whole(source, arguments)]
    return [source for source in sources if source not in skipped], skipped


def _is_whole(source: Source, arguments: PredictArguments) -> bool:
    """Says whether the results of a case can be read; announces one that cannot."""
    damaged = [path for path in _results(source, arguments) if not is_whole(path)]
    if damaged:
        LOG.warning("%s: the file is truncated or damaged; the case is predicted anew", damaged[0])
    return not damaged


def _results(source: Source, arguments: PredictArguments) -> list[Path]:
    return source.results(probabilities=arguments.probabilities)


def _check_making(sources: Sequence[Source], skipped: Sequence[Source], making: dict[str, Any]) -> None:
    """Refuses to fill a folder up whose label maps are known to be made otherwise."""
    manifest = sources[0].output.parent / MANIFEST_FILE
    earlier = Earlier.read(manifest)
    for name, outputs in earlier.made_otherwise([source.output.name for source in skipped], making).items():
        if name == "models":
            raise RunError(
                f"{manifest.parent}: label maps of one folder must come from one model, got {len(outputs)} by another, "
                f"{outputs[0]} first; choose another --output, or replace them with --overwrite."
            )
        raise RunError(
            f"{manifest.parent}: label maps of one folder must be made alike, got {name} "
            f"{json.dumps(earlier.making(outputs[0])[name])} of {len(outputs)}, {outputs[0]} first, and "
            f"{json.dumps(making[name])} of this command; choose the same, or another --output, or replace them with "
            "--overwrite."
        )


def _remove_partial(sources: Sequence[Source]) -> None:
    """Removes what a killed run had begun to write beside its results; a file that still grows is another run's."""
    prefixes = {f".{source.output.name}." for source in sources}
    for folder in {path.parent for source in sources for path in (source.output, source.probabilities)}:
        for entry in folder.iterdir() if folder.is_dir() else ():
            begun = entry.name.startswith(".") and f"{entry.name.rpartition('.')[0]}." in prefixes
            if begun and time.time() - entry.stat().st_mtime > PARTIAL_SECONDS:
                entry.unlink(missing_ok=True)
