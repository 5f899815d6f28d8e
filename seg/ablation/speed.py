"""The speed of a study's variants, all of them side by side in one process: ``speed.json``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from seg.ablation.plan import read_study_data
from seg.ablation.store import SPEED_FILE, entry_instruction_sets, read_devices, run_path
from seg.ablation.trials import set_threads
from seg.benchmark.engines import measure_engine
from seg.benchmark.measure import CODE_VERSION, Settings, measure_device, present_devices
from seg.benchmark.prediction import held_out_images
from seg.benchmark.subjects import Subject
from seg.benchmark.table import device_tables
from seg.files import write_json
from seg.hardware import environment
from seg.runs import WEIGHTS_FILE

if TYPE_CHECKING:
    from seg.ablation.study import Study, Variant

LOG = logging.getLogger(__name__)
SPEED_VERSION = 1
PREDICTED_CASES = 8
Entry = Mapping[str, Any]
Measure = Callable[..., dict[str, Any]]


class Key(NamedTuple):
    """What tells one device of ``speed.json`` from another; threads and instruction sets are those of a processor."""

    device: str
    kind: str
    threads: int | None
    engine: str
    instruction_sets: tuple[str, ...]


def measure_study(study: Study, study_dir: Path, runs_dir: Path) -> None:
    """Measures the variants of a study on every device present, prints tables, and writes ``speed.json``.

    Measured are the variants that have a trial among the chosen ones, the baseline, and those measured on the device
    before: only times of one process can be compared. A device is left alone where the file has all of them as they
    are now, of this version of the code, in as many rounds, and with trained weights where there are some by now. What
    was measured on devices that are not here is kept as far as variants are still the same.

    Args:
        study: The study.
        study_dir: Study directory, present.
        runs_dir: Folder of the run directories. A variant without a finished one is measured with initial weights.

    Raises:
        RunError: The file that is there is damaged, weights cannot be used, or a case cannot be predicted.
        DataError: The data set cannot be read.
    """
    if study.config.launch.workers == 1:
        set_threads(study.config.launch.cpus_per_trial)  # else results would depend on whether trials were run just now
    subjects = _subjects(study, runs_dir)
    wanted = {subject.name: subject.fingerprint() for subject in subjects}
    path = study_dir / SPEED_FILE
    recorded = read_devices(study_dir)
    devices: dict[Key, Measure] = {
        _key(_described(device)): partial(measure_device, device=device) for device in present_devices()
    }
    for engine in study.config.speed.engines:
        devices[_key(_described(torch.device("cpu")) | {"engine": engine})] = partial(measure_engine, engine=engine)
    first = study.config.folds[0]
    images = held_out_images(study.baseline.config, PREDICTED_CASES, fold=first)
    settings = Settings(rounds=study.config.speed.rounds, warmup=study.config.speed.warmup, images=images)
    chosen = {study.baseline.name, *(trial.variant.name for trial in study.trials)}
    by_device = {
        key: [one for one in subjects if one.name in chosen.union(*map(_configurations, _of_device(recorded, key)))]
        for key in devices
    }
    if all(any(_covers(entry, own, settings) for entry in _of_device(recorded, key)) for key, own in by_device.items()):
        LOG.info("speed: measured before on %s, taken over", ", ".join(key.device for key in devices))
        return
    kept = [_still_valid(entry, wanted) for entry in recorded if _key(entry) not in devices]
    found = {}
    # A training step keeps the memory that it freed, which other engines would then run with: torch comes last.
    for key in sorted(devices, key=lambda key: key.engine == "torch"):
        found[key] = devices[key](by_device[key], settings=settings)
        print(device_tables(found[key]), end="\n\n")
    entries = [*(found[key] for key in devices), *(entry for entry in kept if entry is not None)]
    write_json(path, {"schema_version": SPEED_VERSION, "devices": entries})


def _subjects(study: Study, runs_dir: Path) -> tuple[Subject, ...]:
    dataset = read_study_data(study)
    return tuple(
        Subject(
            name=variant.name,
            config=variant.config,
            channel_names=tuple(dataset.channel_names),
            class_names=tuple(dataset.class_names),
            run_dir=_finished_run(study, variant, runs_dir),
        )
        for variant in study.variants
    )


def _finished_run(study: Study, variant: Variant, runs_dir: Path) -> Path | None:
    """Finds the first run of a variant that has final weights."""
    for seed in study.config.seeds:
        for fold in study.config.folds:
            run_dir = run_path(runs_dir, variant.name, fold, seed)
            if (run_dir / WEIGHTS_FILE).is_file():
                return run_dir
    return None


def _described(device: torch.device) -> dict[str, Any]:
    about = environment(device, "")
    return {"device": about["device"], "kind": device.type, "threads": about["threads"], "environment": about}


def _key(entry: Entry) -> Key:
    """Returns the device that an entry is of."""
    kind = str(entry["kind"])
    threads = entry.get("threads") if kind == "cpu" else None
    sets = entry_instruction_sets(entry) if kind == "cpu" else ()
    return Key(str(entry.get("device")), kind, threads, str(entry.get("engine", "torch")), sets)


def _of_device(recorded: Sequence[Entry], key: Key) -> list[Entry]:
    return [entry for entry in recorded if _key(entry) == key]


def _configurations(entry: Entry) -> dict[str, Any]:
    return {variant["name"]: variant.get("configuration") for variant in entry["variants"]}


def _code_version(entry: Entry) -> int:
    return int(entry.get("code_version", 1))  # older records have none


def _covers(entry: Entry, subjects: Sequence[Subject], settings: Settings) -> bool:
    from_files = settings.images and entry.get("engine", "torch") == "torch"
    predictions = settings.prediction_rounds if from_files else 0
    if _code_version(entry) != CODE_VERSION:
        return False
    if entry.get("rounds", 0) < settings.rounds or entry.get("prediction_rounds", 0) < predictions:
        return False
    rows = {row["name"]: row for row in entry["variants"]}
    return all(
        (row := rows.get(subject.name)) is not None
        and row.get("configuration") == subject.fingerprint()
        and (row.get("weights") == "trained" or subject.run_dir is None)
        for subject in subjects
    )


def _still_valid(entry: Entry, wanted: Mapping[str, str]) -> Entry | None:
    """Leaves out of an entry what another configuration was measured with; None where that is the baseline."""
    found = _configurations(entry)
    stale = [name for name, digest in found.items() if name in wanted and digest != wanted[name]]
    if stale:
        LOG.warning("speed on %s: of another configuration, left out: %s", entry.get("device"), ", ".join(stale))
    if entry.get("baseline") in stale:
        return None
    if _code_version(entry) != CODE_VERSION:
        LOG.warning(
            "speed on %s: of version %d of the code, where this is version %d; measure it there again",
            *(entry.get("device"), _code_version(entry), CODE_VERSION),
        )
    return {**entry, "variants": [variant for variant in entry["variants"] if variant["name"] not in stale]}
