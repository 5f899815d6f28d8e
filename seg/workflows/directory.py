"""Run directories: made and recognised."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seg.config import ExperimentConfig, dump_config, load_config
from seg.config.loading import comparable, differences
from seg.data.splits import Split
from seg.errors import RunError
from seg.evaluation import EVALUATION_FILE
from seg.files import is_partial, read_versioned, reading, write_json, write_text
from seg.layout import CONFIG_FILE, ENVIRONMENT_FILE, ENVIRONMENT_VERSION, METRICS_FILE

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run is made from, beside its configuration.

    Attributes:
        computed_with: Versions, device, precision and revision of the code.
        data: SHA-256 of the files of each case.
        initial_weights: SHA-256 of the weights to start from; None draws them from the seed, or needs them no more.
        split: Cases on the two sides of the run's fold; None is not known, as in runs of earlier versions.
    """

    computed_with: Mapping[str, Any]
    data: Mapping[str, str]
    initial_weights: str | None = None
    split: Split | None = None


def check_root(root: Path, *, resume: bool) -> None:
    """Checks that the folder of a cross-validation holds no results of something else.

    Args:
        root: Folder in which ``fold_0``, ``fold_1``, ... and their common results are to lie.
        resume: Whether a cross-validation that lies there is continued.

    Raises:
        RunError: It holds a single run, or an evaluation that is not to be replaced.
    """
    if (root / CONFIG_FILE).exists():
        raise RunError(f"{root}: must be no single run where several folds are trained; choose another --run_dir.")
    if (root / EVALUATION_FILE).exists() and not (resume and any(root.glob(f"fold_*/{CONFIG_FILE}"))):
        raise RunError(
            f"{root}: must hold no {EVALUATION_FILE} of something else; choose another --run_dir, or add --resume to "
            "go on with a cross-validation."
        )


def check_free(run_dir: Path, *, resume: bool) -> None:
    """Checks that a run directory is absent, empty, or holds a run that is to be continued; writes nothing.

    Raises:
        RunError: It holds a run and ``resume`` is off, or other files.
    """
    if not (run_dir / CONFIG_FILE).exists():
        if run_dir.exists() and (not run_dir.is_dir() or any(map(_foreign, run_dir.iterdir()))):
            raise RunError(f"{run_dir}: must be absent or an empty folder, got other files; choose another --run_dir.")
    elif not resume:
        raise RunError(f"{run_dir}: must be new, got an existing run; choose another --run_dir or add --resume.")


def check_run(config: ExperimentConfig, run_dir: Path, origin: Origin, *, resume: bool) -> None:
    """Checks that a run directory is free, or holds the same experiment on the same data; writes nothing.

    Args:
        config: The experiment.
        run_dir: Run directory.
        origin: What the run is made from.
        resume: Whether an existing directory is continued; an absent one is made either way.

    Raises:
        RunError: The directory exists and ``resume`` is off, holds other files, or was made from another
            configuration, other data or other initial weights.
    """
    check_free(run_dir, resume=resume)
    path = run_dir / CONFIG_FILE
    if not path.exists():
        return
    changed = other_settings(load_config([path]), config)
    if changed:
        raise RunError(
            f"{run_dir}: a resumed run must have the configuration it began with, got other values of "
            f"{', '.join(changed)}; restore them or choose another --run_dir."
        )
    recorded = read_origin(run_dir)
    if recorded is None:
        LOG.warning("%s: no %s of a begun run; whether its data changed is not known", run_dir, ENVIRONMENT_FILE)
        return
    if other := sorted(name for name, _ in set(recorded.data.items()) ^ set(origin.data.items())):
        raise RunError(
            f"{run_dir}: a resumed run must have the data it began with, got other files of cases "
            f"{', '.join(dict.fromkeys(other))}; restore them or choose another --run_dir."
        )
    began, now = (one.computed_with.get("precision") for one in (recorded, origin))
    if began != now and not (run_dir / EVALUATION_FILE).exists():
        raise RunError(
            f"{run_dir}: a resumed run must compute in the precision it began with, {began}, got {now} here; go on "
            "with it where it began, or choose another --run_dir."
        )
    if recorded.split is not None and origin.split is not None and (moved := _moved(recorded.split, origin.split)):
        raise RunError(
            f"{run_dir}: a resumed run must have the cases of its fold on the sides that they began on, got others for "
            f"{some(moved)}; restore the splits or choose another --run_dir."
        )
    if origin.initial_weights is not None and recorded.initial_weights != origin.initial_weights:
        raise RunError(
            f"{run_dir}: a resumed run must have the initial weights it began with, got other ones in "
            f"{config.training.init_from}; restore them or choose another --run_dir."
        )


def open_run(config: ExperimentConfig, run_dir: Path, origin: Origin) -> None:
    """Writes what a checked run begins with, where it has not begun.

    Raises:
        RunError: The directory cannot be written.
    """
    if (run_dir / CONFIG_FILE).exists():
        return
    if run_dir.is_dir():
        for partial in filter(is_partial, run_dir.iterdir()):  # of a first write that was killed
            partial.unlink(missing_ok=True)
    record: dict[str, Any] = {
        "schema_version": ENVIRONMENT_VERSION,
        **origin.computed_with,
        "initial_weights": origin.initial_weights,
    }
    if origin.split is not None:
        record["split"] = asdict(origin.split)
    write_json(run_dir / ENVIRONMENT_FILE, record | {"data": dict(origin.data)})
    # Last: a directory that has it has begun.
    write_text(run_dir / CONFIG_FILE, dump_config(config))


def begun_from(run_dirs: Iterable[Path]) -> str | None:
    """Returns whose weights runs that have begun were to start from; None where they have none or have not begun."""
    begun = [run_dir / CONFIG_FILE for run_dir in run_dirs if (run_dir / CONFIG_FILE).is_file()]
    return load_config(begun[:1]).training.init_from if begun else None


def _foreign(path: Path) -> bool:
    """Whether a file is none that :func:`open_run` leaves when it is killed."""
    return path.name != ENVIRONMENT_FILE and not is_partial(path)


def read_origin(run_dir: Path) -> Origin | None:
    """Reads what a run is made from; None where it was not recorded at the beginning, as by earlier versions.

    Raises:
        RunError: The record is damaged, or of a newer version.
    """
    path = run_dir / ENVIRONMENT_FILE
    if not path.is_file():  # of a version that wrote it at the end
        return None
    with reading(path, what="the whole record of a run", remedy="restore it or choose another --run_dir"):
        content = read_versioned(path, ENVIRONMENT_VERSION)
        data = {str(name): str(digest) for name, digest in content["data"].items()}
        sides = content.get("split")
        split = None if sides is None else Split(**{side: tuple(map(str, names)) for side, names in sides.items()})
        return Origin(computed_with=content, data=data, initial_weights=content.get("initial_weights"), split=split)


def _moved(one: Split, other: Split) -> list[str]:
    """Lists cases that are on a side of one split and not on that of the other."""
    return sorted((set(one.train) ^ set(other.train)) | (set(one.validation) ^ set(other.validation)))


def changed_data(origin: Origin, held_out: Mapping[str, str]) -> list[str]:
    """Lists the held-out cases whose files are others than when the run began.

    Args:
        origin: What the run is made from.
        held_out: SHA-256 of the files of each case that is to be scored.
    """
    return sorted(case for case, digest in held_out.items() if origin.data.get(case) != digest)


def some(names: Sequence[str], most: int = 5) -> str:
    """Lists names, cut short where there are many."""
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def trained_steps(run_dir: Path) -> int | None:
    """Returns the last step in a run's metrics.csv; None where the file is gone."""
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return max((int(float(row["step"])) for row in csv.DictReader(file)), default=None)


def other_settings(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations make other weights, or other scores of them."""
    return differences(comparable(one), comparable(other))
