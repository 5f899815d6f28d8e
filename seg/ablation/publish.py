"""Publishing a study: its results in a few tables with six significant digits."""

from __future__ import annotations

import math
import shutil
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seg.ablation.plan import OLD_STUDY_FILE, STUDY_FILE, StudyPlan, plan_text, read_study, same_study
from seg.ablation.reading import VERSION, is_there
from seg.ablation.store import (
    CASE_KEYS,
    CASES_TABLE,
    CURVES_TABLE,
    PLACE_TEXTS,
    PRESERVATION_TABLE,
    PROVENANCE_FILE,
    SPEED_FILE,
    TRIAL_KEYS,
    TRIAL_TEXTS,
    TRIALS,
    TRIALS_TABLE,
    StoredTrial,
    read_results,
    trial_keys,
)
from seg.errors import Problem, RunError, shown
from seg.files import check_folder, escaped_cell, quoted, real_path, table_text, write_json, write_text

DIGITS = 6
"""Significant digits of a number in a published table."""


def publish(folder: Path, target: Path | None = None) -> Path:
    """Writes the results of a study into a few tables, and removes the folders of trials that went into them.

    Numbers keep six significant digits. A published study can be continued and published again.

    Args:
        folder: The study directory.
        target: Directory for the published study, absent, empty or of an earlier publication of this study, whose
            tables are replaced; None publishes the study where it is.

    Returns:
        The directory of the published study.

    Raises:
        RunError: Results cannot be read, the target holds another study or other files, or files cannot be written.
    """
    target = target or folder
    results = read_results(folder)
    if results.problems:
        raise RunError(results.problems)
    in_place = real_path(target) == real_path(folder)
    if not in_place:
        _check_target(target, results.study)
    trials, devices = results.stored, results.devices
    tables = {
        CASES_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.cases],
        CURVES_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.curve],
        PRESERVATION_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.places],
    }
    provenance, table = _packed(trials)
    write_text(target / STUDY_FILE, plan_text(results.study))
    unwritten = [name for name, rows in tables.items() if not rows]
    unwritten += [*(() if devices else (SPEED_FILE,)), *(() if trials else (PROVENANCE_FILE, TRIALS_TABLE))]
    for name in (OLD_STUDY_FILE, *unwritten):  # of an earlier publication
        (target / name).unlink(missing_ok=True)
    for name, rows in tables.items():
        if rows:
            write_text(target / name, _csv(rows))
    if trials:
        write_json(target / PROVENANCE_FILE, provenance)
    if devices:
        write_json(target / SPEED_FILE, {"schema_version": VERSION, "devices": _rounded(list(devices))})
    if trials:
        write_text(target / TRIALS_TABLE, _csv(table))  # the last file: it names the trials that the others must hold
    if in_place:
        for name in trials:
            shutil.rmtree(folder / TRIALS / name, ignore_errors=True)
        if (folder / TRIALS).is_dir() and not any((folder / TRIALS).iterdir()):
            (folder / TRIALS).rmdir()
    return target


def _check_target(target: Path, study: StudyPlan) -> None:
    """Checks that a directory is absent or empty, or holds a study as it was published before, and nothing to lose."""
    check_folder(target)
    remedy = "choose another --output"
    if not any(is_there(target / name, target) for name in (STUDY_FILE, OLD_STUDY_FILE)):
        if target.is_dir() and any(not path.name.startswith(".") for path in target.iterdir()):
            rule = "must be absent, empty or a published study"
            raise RunError(Problem(quoted(str(target)), "folder", rule, "other files", remedy))
        return
    held = read_study(target)
    if (target / TRIALS).exists() or not same_study(held, study):
        rule = f"must hold no study, or {shown(study.name)} as it was published before"
        raise RunError(Problem(quoted(str(target)), "exists", rule, f"the study {shown(held.name)}", remedy))


def _packed(trials: Mapping[str, StoredTrial]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns ``provenance.json``, where what trials share stands once, and the rows of ``trials.csv``."""
    shared: dict[str, list[Any]] = {"environments": [], "data": [], "splits": []}
    rows = []
    for name, trial in trials.items():
        row = trial_keys(name, trial) | trial.record.model_dump(exclude=set(TRIAL_KEYS))
        for key, plural in (("environment", "environments"), ("data", "data"), ("split", "splits")):
            value = getattr(trial, key)
            if value is not None and value not in shared[plural]:
                shared[plural].append(value)
            row[key] = None if value is None else shared[plural].index(value)
        row["train_cases"] = trial.generalisation.train_cases
        for side in ("train", "val"):
            values = getattr(trial.generalisation, f"{side}_dice")
            row |= {f"{side}_dice_{index}": _nan(value) for index, value in enumerate(values, start=1)}
        rows.append(row)
    configs = {name: trial.config for name, trial in trials.items() if trial.config}
    base = next(iter(configs.values()), {})
    content = {
        "schema_version": VERSION,
        **shared,
        "configs": {"base": base, "trials": {name: _difference(base, config) for name, config in configs.items()}},
        "failures": {name: trial.failure for name, trial in trials.items() if trial.failure},
    }
    return content, rows


def _nan(value: float | None) -> float:
    """Returns NaN for the Dice of a class that no case shows; an empty cell would be a class that the study has not."""
    return math.nan if value is None else value


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return table_text([{key: _cell(key, value) for key, value in row.items()} for row in rows])


_TEXT_COLUMNS = frozenset({*TRIAL_TEXTS, *PLACE_TEXTS, *CASE_KEYS})


def _cell(column: Hashable, value: Any) -> str:
    """Returns a cell: numbers with six significant digits, integers whole."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join("-" if part is None else _cell(None, part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _short(value)
    text = str(value)
    if isinstance(value, str) and column not in _TEXT_COLUMNS:
        return _short(float(text)) if text else ""
    return escaped_cell(text) if isinstance(value, str) else text


def _short(value: float) -> str:
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return f"{value:.{DIGITS}g}"


def _rounded(value: Any) -> Any:
    """Rounds all numbers with a fraction in a JSON value."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of ``other`` by dotted path that ``base`` has not; what only ``base`` has is named apart."""
    changes: dict[str, Any] = {}
    removed: list[str] = []
    for key in base.keys() | other.keys():
        if key not in other:
            removed.append(key)
        elif isinstance(base.get(key), Mapping) and isinstance(other[key], Mapping):
            inner = _difference(base[key], other[key])
            changes |= {f"{key}.{path}": value for path, value in inner["changes"].items()}
            removed += [f"{key}.{path}" for path in inner["removed"]]
        elif key not in base or base[key] != other[key]:
            changes[key] = other[key]
    return {"changes": dict(sorted(changes.items())), "removed": sorted(removed)}
