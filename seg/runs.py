"""Run directories: their files, how a run begins, and the trained network that a finished run holds."""

from __future__ import annotations

import io
import logging
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, model_validator

from seg.config import ExperimentConfig, dump_config, load_config
from seg.config.loading import comparable, config_digest, differences
from seg.data.classes import MAX_VALUE, ClassMap
from seg.data.splits import Split
from seg.errors import ConfigError, Problem, RunError, shown
from seg.evaluation.scores import CASE_COLUMNS, CASES_FILE, EVALUATION_FILE
from seg.files import (
    check_folder,
    check_rows,
    check_version,
    check_writable,
    file_digest,
    file_error,
    first_line,
    is_partial,
    quoted,
    read_json,
    read_table,
    real_path,
    write_bytes,
    write_json,
    write_text,
)
from seg.words import some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from seg.networks import UNet

LOG = logging.getLogger(__name__)
CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.json"
ENVIRONMENT_FILE = "environment.json"
SCORING_FILE = "scoring_environment.json"
PICTURE_FILE = "predictions.png"
METRICS_FILE = "metrics.csv"
LOCK_FILE = "train.lock"
"""There while a process trains the run."""
GENERALISATION_FILE = "generalisation.json"
PRESERVATION_FILE = "preservation.json"
WEIGHTS_FILE = "checkpoints/weights.pt"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREDICTIONS = "predictions"
WEIGHTS_VERSION = 1
MODEL_VERSION = 1
ENVIRONMENT_VERSION = 1
FOLD = re.compile(r"fold_(0|[1-9][0-9]*)")
"""Name of a run directory in a cross-validation."""
NOTICE = "Research software. Not a medical device; not for clinical use."
RESTORE = "restore the file, or train anew"
OTHER = "choose another --run_dir"


def fold_directories(root: Path) -> dict[int, Path]:
    """Finds the run directories of a cross-validation, by fold; none where the folder is a run or something else."""
    if (root / CONFIG_FILE).is_file() or not root.is_dir():
        return {}
    found = {int(path.name[5:]): path for path in root.iterdir() if FOLD.fullmatch(path.name)}
    return dict(sorted(found.items()))


def check_no_fold(output: Path) -> None:
    """Refuses a folder for results that a cross-validation would take for one of its folds.

    Raises:
        RunError: It is named ``fold_N``, lies beside runs of that name, and holds no run itself.
    """
    path = real_path(output)
    beside = () if (path / CONFIG_FILE).exists() else fold_directories(path.parent).values()
    if FOLD.fullmatch(path.name) and any((one / CONFIG_FILE).is_file() for one in beside):
        rule, value = "must be no fold of a cross-validation", f"{path.name} beside folds"
        raise RunError(Problem(quoted(str(output)), "fold", rule, value, "choose another --output"))


def _described(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def weights_bytes(network: nn.Module, *, channel_names: Sequence[str], class_names: Sequence[str]) -> bytes:
    """Returns the content of a file of weights: a version, tensors, and names of channels and classes, no more."""
    import torch

    names = {"channel_names": list(channel_names), "class_names": list(class_names)}
    content = io.BytesIO()
    torch.save({"schema_version": WEIGHTS_VERSION, "network": network.state_dict(), **names}, content)
    return content.getvalue()


def save_weights(
    network: nn.Module, run_dir: Path, *, channel_names: Sequence[str], class_names: Sequence[str]
) -> Path:
    """Writes a network's weights as ``checkpoints/weights.pt``; see :func:`weights_bytes`."""
    target = run_dir / WEIGHTS_FILE
    write_bytes(target, weights_bytes(network, channel_names=channel_names, class_names=class_names))
    return target


def load_weights(run_dir: Path) -> dict[str, Tensor]:
    """Reads the final weights of a run without executing anything in the file.

    Raises:
        RunError: The file is absent, not a weights file of this project, of a newer version, or not finite.
    """
    return _read(run_dir)[0]


def check_task(
    run_dir: Path,
    *,
    channel_names: Sequence[str],
    class_names: Sequence[str],
    source: str,
    remedy: str,
) -> None:
    """Checks that the final weights of a run are for these channels and classes, in this order.

    Equal shapes do not tell: networks of two tasks may have them.

    Args:
        run_dir: Run directory.
        channel_names: Channels that the weights must be for.
        class_names: Classes, background first.
        source: What names them, for the message.
        remedy: End of the message.

    Raises:
        RunError: They are for others; see :func:`load_weights` too.
    """
    _check_names(run_dir, _read(run_dir)[1], channel_names, class_names, source, remedy)


def _check_names(
    run_dir: Path,
    found: Mapping[str, Sequence[str]],
    channel_names: Sequence[str],
    class_names: Sequence[str],
    source: str,
    remedy: str,
) -> None:
    wanted = {"channel_names": list(channel_names), "class_names": list(class_names)}
    problems = [
        Problem(
            str(run_dir / WEIGHTS_FILE), name, f"must be for the {name} of {source}, {wanted[name]}", f"{names}", remedy
        )
        for name, names in found.items()
        if names != wanted[name]
    ]
    if problems:
        raise RunError(problems)


def _read(run_dir: Path) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Reads tensors, and the names of channels and classes."""
    import torch
    from torch import Tensor

    path = run_dir / WEIGHTS_FILE
    where = quoted(str(path))
    if not path.is_file():
        rule = "must hold a finished run"
        raise RunError(Problem(quoted(str(run_dir)), "missing", rule, f"no {WEIGHTS_FILE}", "train it first"))
    check_archive(path, remedy=RESTORE)
    _check_digest(run_dir)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, state = int(content["schema_version"]), dict(content["network"])
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise TypeError("network must be tensors by name")
        names = {name: list(content[name]) for name in ("channel_names", "class_names")}
        if not all(isinstance(name, str) for several in names.values() for name in several):
            raise TypeError("names must be texts")
        # Before any value is touched: a tensor may claim more elements than the file holds for it.
        stored = sum(value.numel() * value.element_size() for value in state.values())
        if any(value.layout != torch.strided for value in state.values()) or stored > path.stat().st_size:
            raise ValueError("tensors must be stored element by element")
    except Exception as error:
        rule, remedy = "must be a weights file of this project, tensors alone", f"nothing in it was run; {RESTORE}"
        raise RunError(Problem(where, "weights", rule, loading_fault(error), remedy)) from error
    if odd := [name for name, value in state.items() if not bool(torch.isfinite(value).all())]:
        value = f"NaN or infinity in {len(odd)} of {len(state)} tensors, {quoted(odd[0])} first"
        remedy = "restore the file, or train anew with a lower learning rate"
        raise RunError(Problem(where, "finite", "must hold finite weights", value, remedy))
    check_version(path, version, WEIGHTS_VERSION)
    return state, names


def loading_fault(error: Exception) -> str:
    """Says in a line why a file of torch could not be loaded, without torch's advice to run what is in the file."""
    kind = type(error).__name__
    reason = "other than tensors and plain values" if kind == "UnpicklingError" else error
    return f"{kind} ({reason})".splitlines()[0]


def check_archive(path: Path, *, remedy: str) -> None:
    """Checks that a file of torch is whole: no part is compressed, and each part has its checksum.

    torch itself reads parts whose checksum is wrong, and unpacks compressed ones into any amount of memory.

    Raises:
        RunError: The file is no such archive, or damaged.
    """
    damaged: str | None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            whole = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            whole = whole and sum(member.file_size for member in members) <= path.stat().st_size
            damaged = archive.testzip() if whole else "an archive of another program"
    except OSError as error:
        raise file_error(path, error) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        damaged = f"{type(error).__name__} ({error})"
    if damaged is not None:
        rule = "must be whole, as torch wrote it"
        raise RunError(Problem(quoted(str(path)), "damaged", rule, quoted(damaged), remedy))


def _check_digest(run_dir: Path) -> None:
    """Checks the weights by the digest in model.json, where the version that wrote model.json gave a digest."""
    about, path = _description(run_dir), run_dir / WEIGHTS_FILE
    if about is not None and about.weights_sha256 is not None:
        _check_sha256(path, file_digest(path).hex(), about.weights_sha256, MODEL_FILE)


def _check_sha256(path: Path, found: str, wanted: str, source: str) -> None:
    if found != wanted:
        rule = f"must be {wanted[:12]}... as {source} says"
        raise RunError(Problem(f"{quoted(str(path))}: SHA-256", "digest", rule, f"{found[:12]}...", RESTORE))


def read_config(run_dir: Path) -> ExperimentConfig:
    """Reads the configuration of a run, which must be the one that the run began with, where its records say which.

    Raises:
        ConfigError: config.yaml is absent or cannot be read.
        RunError: config.yaml lost or changed a field that decides weights or predictions, or a record is damaged.
    """
    path = run_dir / CONFIG_FILE
    config = load_config([path])
    records = {MODEL_FILE: _description(run_dir), ENVIRONMENT_FILE: _read_environment(run_dir)}
    wanted = {source: record.config_sha256 for source, record in records.items() if record and record.config_sha256}
    found = config_digest(path.read_text(encoding="utf-8")) if wanted else ""
    for source, digest in wanted.items():
        _check_sha256(path, found, digest, source)
    return config


def _description(run_dir: Path) -> Description | None:
    path = run_dir / MODEL_FILE
    return read_json(path, Description, newest=MODEL_VERSION, remedy=RESTORE) if path.is_file() else None


def weights_digest(run_dir: Path) -> str:
    """Returns the SHA-256 of a run's file of final weights.

    Raises:
        RunError: The file is absent or not a weights file of this project.
    """
    load_weights(run_dir)
    return file_digest(run_dir / WEIGHTS_FILE).hex()


def copy_weights(network: nn.Module, run_dir: Path, class_names: Sequence[str]) -> None:
    """Copies another run's final weights where they fit, and logs which tensors are left; see :func:`fitting_weights`.

    Raises:
        RunError: The weights cannot be used.
    """
    own = network.state_dict()
    shared = fitting_weights(network, run_dir, class_names)
    network.load_state_dict(own | shared)
    kept = [name for name in own if name not in shared]
    LOG.info(
        "initial weights: %d of %d tensors from %s; own: %s", len(shared), len(own), run_dir, ", ".join(kept) or "-"
    )


def fitting_weights(network: nn.Module, run_dir: Path, class_names: Sequence[str]) -> dict[str, Tensor]:
    """Returns another run's final weights wherever name, type and shape agree with a network's.

    Raises:
        RunError: Less than half of the network's tensors agree, or the weights are for other classes.
    """
    source, names = _read(run_dir)
    own = network.state_dict()
    shared = {
        name: value for name, value in source.items() if name in own and _described(own[name]) == _described(value)
    }
    problems = []
    if 2 * len(shared) < len(own):
        rule, value = "must fit at least half of the network's tensors", f"{len(shared)} of {len(own)}"
        problems.append(Problem(quoted(str(run_dir)), "network", rule, value, "choose a run of a like network"))
    if names["class_names"] != list(class_names):
        rule, value = f"must be for the classes {', '.join(class_names)}", ", ".join(names["class_names"])
        problems.append(Problem(quoted(str(run_dir)), "classes", rule, value, "choose a run of these classes"))
    if problems:
        raise RunError(problems)
    return shared


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run is made from, beside its configuration.

    Attributes:
        computed_with: Versions, device, precision and revision of the code.
        data: SHA-256 of the files of each case.
        initial_weights: SHA-256 of the weights to start from; None draws them from the seed, or needs them no more.
        split: Cases on the two sides of the run's fold; None is not known, as in runs of earlier versions.
        seen: SHA-256 of the files of each case that the initial weights, or those they came from, were trained on.
    """

    computed_with: Mapping[str, Any]
    data: Mapping[str, str]
    initial_weights: str | None = None
    split: Split | None = None
    seen: Mapping[str, str] = field(default_factory=dict)


def check_root(root: Path, *, resume: bool) -> None:
    """Checks that the folder of ``fold_0``, ``fold_1``, ... and their results holds no results of something else.

    Raises:
        RunError: It holds a single run, or an evaluation that ``resume`` is not to replace.
    """
    if (root / CONFIG_FILE).exists():
        rule = "must be no single run where several folds are trained"
        raise RunError(Problem(quoted(str(root)), "exists", rule, remedy=OTHER))
    if (root / EVALUATION_FILE).exists() and not (resume and any(root.glob(f"fold_*/{CONFIG_FILE}"))):
        rule, remedy = f"must hold no {EVALUATION_FILE} of something else", f"{OTHER}, or add --resume to go on"
        raise RunError(Problem(quoted(str(root)), "exists", rule, remedy=remedy))


def check_scored_into(output: Path, run_dir: Path | None = None) -> None:
    """Checks that a folder can be written, and that scores in it replace none of another run; writes nothing.

    Args:
        output: Folder of the scores. Those of the folds of a cross-validation lie in it as in the run directory.
        run_dir: Run directory, or that of the folds, whose scores they are; None for those of two folders.

    Raises:
        RunError: It cannot be written, it holds another run or folds that are not scored, or its cases.csv is no table
            of scores.
    """
    check_writable(output)
    check_no_fold(output)
    runs = () if run_dir is None else (run_dir, *fold_directories(run_dir).values())
    scored = {output if path == run_dir else output / path.name: path for path in runs}
    folds = [path for path in fold_directories(output).values() if path not in scored]
    others = [path for path in folds if run_dir is not None or (path / CONFIG_FILE).exists()]
    others += [
        path
        for path in scored or (output,)
        if (path / CONFIG_FILE).exists() and (path not in scored or real_path(path) != real_path(scored[path]))
    ]
    rule, remedy = "must be no other run than the one that is scored", "choose another --output"
    problems = [Problem(quoted(str(path)), "exists", rule, remedy=remedy) for path in others]
    if (output / CASES_FILE).exists() and (run_dir is None or real_path(output) != real_path(run_dir)):
        found = first_line(output / CASES_FILE, remedy=remedy)
        if not found.startswith(",".join(CASE_COLUMNS)):
            rule = f"must have the columns {', '.join(CASE_COLUMNS)} to be replaced"
            problems.append(Problem(quoted(str(output / CASES_FILE)), "exists", rule, shown(found), remedy))
    if problems:
        raise RunError(problems)


def check_free(run_dir: Path, *, resume: bool, fold: int | None = None) -> None:
    """Checks that a run directory is absent or empty, or holds a run that ``resume`` may continue; writes nothing.

    Args:
        run_dir: The run directory.
        resume: Whether the run in it is continued.
        fold: The fold that is trained in it, for the remedy.

    Raises:
        RunError: It holds a run and ``resume`` is off, or folds, or other files.
    """
    check_folder(run_dir)
    if not (run_dir / CONFIG_FILE).exists():
        if run_dir.exists() and (not run_dir.is_dir() or any(map(_foreign, run_dir.iterdir()))):
            if folds := fold_directories(run_dir):
                rule, value = "must be the directory of a single run", f"{len(folds)} folds"
                remedy = OTHER if fold is None else f"give {run_dir / f'fold_{fold}'}"
                raise RunError(Problem(quoted(str(run_dir)), "folds", rule, value, remedy))
            rule = "must be absent or an empty folder"
            raise RunError(Problem(quoted(str(run_dir)), "folder", rule, "other files", OTHER))
    elif not resume:
        remedy = f"{OTHER} or add --resume"
        raise RunError(Problem(quoted(str(run_dir)), "exists", "must be new", "an existing run", remedy))


def check_run(config: ExperimentConfig, run_dir: Path, origin: Origin, *, resume: bool) -> None:
    """Checks that a run directory is free, or holds the same experiment on the same data; writes nothing.

    Raises:
        RunError: The directory exists and ``resume`` is off, holds other files, was made from another configuration,
            other data or other initial weights, or holds weights without the state of the training behind them.
    """
    check_free(run_dir, resume=resume, fold=config.fold)
    path = run_dir / CONFIG_FILE
    if not path.exists():
        return
    done = run_dir / (MODEL_FILE if config.fold is None else EVALUATION_FILE)
    if (run_dir / WEIGHTS_FILE).exists() and not (run_dir / LAST_CHECKPOINT).exists() and not done.exists():
        # They were made in another way, or come from an archive: training from the start would replace them.
        rule, remedy = "must hold the state of its training to be resumed", f"score it by seg evaluate, or {OTHER}"
        raise RunError(Problem(quoted(str(run_dir)), "resume", rule, "weights alone", remedy))
    if changed := other_settings(read_config(run_dir), config):
        raise _begun_otherwise(run_dir, "the configuration it began with", f"other values of {', '.join(changed)}")
    recorded = read_origin(run_dir)
    if recorded is None:
        LOG.warning("%s: no %s of a begun run; whether its data changed is not known", run_dir, ENVIRONMENT_FILE)
        return
    if other := sorted({name for name, _ in set(recorded.data.items()) ^ set(origin.data.items())}):
        raise _begun_otherwise(run_dir, "the data it began with", f"other files of cases {', '.join(other)}")
    began, now = (one.computed_with.get("precision") for one in (recorded, origin))
    if began != now and not (run_dir / EVALUATION_FILE).exists():
        remedy = f"go on with it where it began, or {OTHER}"
        raise _begun_otherwise(run_dir, f"the precision it began with, {began}", f"{now} here", remedy)
    if recorded.split is not None and origin.split is not None and (moved := _moved(recorded.split, origin.split)):
        sides = "the cases of its fold on the sides that they began on"
        raise _begun_otherwise(run_dir, sides, f"others for {some(moved)}", f"restore the splits or {OTHER}")
    if origin.initial_weights is not None and recorded.initial_weights != origin.initial_weights:
        value = f"other ones in {config.training.init_from}"
        raise _begun_otherwise(run_dir, "the initial weights it began with", value)


def _begun_otherwise(run_dir: Path, what: str, found: str, remedy: str = f"restore them or {OTHER}") -> RunError:
    return RunError(Problem(quoted(str(run_dir)), "resume", f"must be resumed with {what}", found, remedy))


def open_run(config: ExperimentConfig, run_dir: Path, origin: Origin) -> None:
    """Writes environment.json and config.yaml of a new run; a run that has begun is left as it is.

    Raises:
        RunError: The directory cannot be written.
    """
    if (run_dir / CONFIG_FILE).exists():
        return
    text = dump_config(config)
    record: dict[str, Any] = {
        "schema_version": ENVIRONMENT_VERSION,
        **origin.computed_with,
        "config_sha256": config_digest(text),
        "initial_weights": origin.initial_weights,
    }
    if origin.split is not None:
        record["split"] = asdict(origin.split)
    if origin.seen:
        record["seen"] = dict(origin.seen)
    write_json(run_dir / ENVIRONMENT_FILE, record | {"data": dict(origin.data)})
    # Last: a run has begun once its directory holds this file.
    write_text(run_dir / CONFIG_FILE, text)


def recorded_init_from(run_dirs: Iterable[Path]) -> str | None:
    """Returns the run whose weights the given runs began with; None for weights drawn anew, or before they begin."""
    begun = [run_dir / CONFIG_FILE for run_dir in run_dirs if (run_dir / CONFIG_FILE).is_file()]
    return load_config(begun[:1]).training.init_from if begun else None


def _foreign(path: Path) -> bool:
    """Returns whether a file comes from elsewhere than the beginning of a run, which may have been killed there."""
    return path.name not in (ENVIRONMENT_FILE, LOCK_FILE) and not is_partial(path)


def read_origin(run_dir: Path) -> Origin | None:
    """Reads what a run is made from; None where its version wrote no record at the beginning.

    Raises:
        RunError: The record is damaged, or of a newer version.
    """
    record = _read_environment(run_dir)
    return (
        None
        if record is None
        else Origin(
            computed_with=record.model_extra or {},
            data=record.data,
            initial_weights=record.initial_weights,
            split=record.split,
            seen=record.seen,
        )
    )


def seen_cases(run_dir: Path) -> dict[str, str] | None:
    """Returns all cases that the weights of a run were trained on, directly or through their initial weights.

    Returns:
        The SHA-256 of the files of each case, by its id; None where the run's version did not record the cases.

    Raises:
        RunError: The record is damaged, or of a newer version.
    """
    origin = read_origin(run_dir)
    if origin is None or origin.split is None:
        return None
    return dict(origin.seen) | {case: origin.data[case] for case in origin.split.train if case in origin.data}


class _Environment(BaseModel, extra="allow"):
    """The content of environment.json; further fields say on what machine the run computes."""

    data: dict[str, str]
    config_sha256: str | None = None
    initial_weights: str | None = None
    split: Split | None = None
    seen: dict[str, str] = {}


def _read_environment(run_dir: Path) -> _Environment | None:
    path = run_dir / ENVIRONMENT_FILE
    if not path.is_file():  # of a version that wrote it at the end
        return None
    return read_json(path, _Environment, newest=ENVIRONMENT_VERSION, remedy="restore it or choose another --run_dir")


def _moved(one: Split, other: Split) -> list[str]:
    """Lists the cases that two splits put on different sides."""
    return sorted((set(one.train) ^ set(other.train)) | (set(one.validation) ^ set(other.validation)))


def changed_data(origin: Origin, held_out: Mapping[str, str]) -> list[str]:
    """Lists the held-out cases whose files, by the SHA-256 of each case, have changed since the run began."""
    return sorted(case for case, digest in held_out.items() if origin.data.get(case) != digest)


class _Validation(BaseModel, extra="allow"):
    """A row of metrics.csv; further columns are scores."""

    __pydantic_extra__: dict[str, float]
    step: Annotated[FiniteFloat, Field(ge=0)]
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0


def read_history(run_dir: Path) -> list[dict[str, float]] | None:
    """Reads metrics.csv: step, seconds and further columns by validation, an empty cell as NaN; None without the file.

    Raises:
        RunError: The file is no such table, or has no row.
    """
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return None
    table = read_table(path, columns=("step",), remedy=RESTORE)
    rows = [{name: cell or "nan" for name, cell in row.items()} for row in table]
    return [row.model_dump() for row in check_rows(path, rows, _Validation, remedy=RESTORE)]


def trained_steps(run_dir: Path) -> int | None:
    """Returns the last step in metrics.csv; None where the file is gone."""
    history = read_history(run_dir)
    return None if history is None else max(int(row["step"]) for row in history)


def other_settings(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations make other weights, or other scores of them."""
    return differences(comparable(one), comparable(other))


SHARED = ("spacing_mm", "normalization", "ct", "nan")


Value = Annotated[int, Field(ge=0, le=MAX_VALUE)]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("names must differ")
    return names


class _OfFold(BaseModel):
    verdict: str


class _Difference(BaseModel):
    fold: _OfFold | None = None


class _Originals(BaseModel):
    sha256: tuple[str, ...]


class Claim(BaseModel):
    """What predictions take from the certificate of a compressed network, as its model card has it.

    Attributes:
        verdict: Whether it was shown to be not inferior to its original.
        exploratory: Whether that was a later look than the first; None where nothing was tested.
        differences: What each class loses; of a cross-validation with the verdict of the network's own fold.
        conditions: How both networks were run.
        original: SHA-256 of the original of each fold.
    """

    verdict: str
    exploratory: bool | None = None
    differences: dict[str, _Difference] = {}
    conditions: dict[str, str] = {}
    original: _Originals | None = None

    @property
    def passes(self) -> bool:
        """Whether some look showed it to be not inferior."""
        return self.verdict == "not inferior" and self.exploratory is not None

    @property
    def passes_alone(self) -> bool:
        """Whether each class passes on its own fold by itself; also where there are no other folds."""
        return all(one.fold is None or one.fold.verdict == "not inferior" for one in self.differences.values())


def _claim(certificate: dict[str, Any] | None) -> Claim | None:
    return None if certificate is None else Claim.model_validate(certificate)


def _with_a_claim(certificate: dict[str, Any]) -> dict[str, Any]:
    _claim(certificate)
    return certificate


class Description(BaseModel):
    """What predictions take from model.json; runs of earlier versions have no digests."""

    channel_names: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
    class_names: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_different)]
    label_values: tuple[Annotated[tuple[Value, ...], Field(min_length=1)], ...] | None = None
    weights_sha256: str | None = None
    config_sha256: str | None = None
    certificate: Annotated[dict[str, Any], AfterValidator(_with_a_claim)] | None = None

    @property
    def claim(self) -> Claim | None:
        """What is read of the certificate; None where there is none."""
        return _claim(self.certificate)

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.label_values is not None and len(self.label_values) != len(self.class_names):
            raise ValueError("label_values must hold the values of each class")
        values = [value for of_class in self.label_values or () for value in of_class]
        if len(values) != len(set(values)):
            raise ValueError("label_values must give each value to one class")
        return self

    @property
    def classes(self) -> ClassMap | None:
        """The values of label maps; null where each is the index of its class, as in runs of earlier versions."""
        return None if self.label_values is None else ClassMap(self.label_values).simplest


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a finished run directory says of its network.

    Attributes:
        path: The run directory.
        config: The experiment.
        channel_names: Channels of its images.
        class_names: Classes, the background first.
        classes: The values of label maps; None where each is the index of its class.
        certificate: What the certificate of a compressed network says of it; None for any other network.
    """

    path: Path
    config: ExperimentConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    classes: ClassMap | None = None
    certificate: dict[str, Any] | None = None

    @property
    def claim(self) -> Claim | None:
        """What predictions take from the certificate; None where there is none."""
        return _claim(self.certificate)

    def description(self) -> dict[str, Any]:
        """Describes the network in a manifest: names, and the digest of its weights."""
        digest = file_digest(self.path / WEIGHTS_FILE).hex()
        return {"name": self.config.name, "run": real_path(self.path).name, "weights_sha256": digest}

    def network(self) -> UNet:
        """Builds the network and loads the weights that training ended with; on the processor, in evaluation mode.

        Raises:
            RunError: There are no weights, they cannot be read, or they are those of another network or task.
        """
        from seg.networks import network_from_config

        state, names = _read(self.path)
        network = network_from_config(self.config.network, len(self.channel_names), len(self.class_names))
        own = network.state_dict()
        for name in (*own, *state):
            found, wanted = (_described(several.get(name)) for several in (state, own))
            if found != wanted:
                where = f"{quoted(str(self.path / WEIGHTS_FILE))}: {quoted(name)}"
                rule = f"must be {wanted} to fit the network of config.yaml and model.json"
                remedy = "one of the three is not the run's own, restore it"
                raise RunError(Problem(where, "network", rule, found, remedy))
        remedy = "the file belongs to another run, restore the run's own"
        _check_names(self.path, names, self.channel_names, self.class_names, MODEL_FILE, remedy)
        network.load_state_dict(state)
        return network.requires_grad_(False).eval()


def read_runs(run_dirs: Sequence[Path], *, read: Callable[[Path], TrainedRun] | None = None) -> tuple[TrainedRun, ...]:
    """Reads run directories whose networks are averaged; reads no weights and imports no torch.

    Args:
        run_dirs: Run directories; one that holds ``fold_0``, ``fold_1``, ... stands for all of these.
        read: Reads one; None is :func:`read_run`.

    Raises:
        RunError: One is no finished run, or they cannot be averaged; all problems together.
        ConfigError: A configuration cannot be read, or a run is named twice.
    """
    paths = [fold for path in run_dirs for fold in fold_directories(path).values() or [path]]
    if twice := [path for index, path in enumerate(paths) if real_path(path) in map(real_path, paths[:index])]:
        remedy = "it would count double, leave it out"
        raise ConfigError(Problem("--run_dir", "repeated", "must name each run once", f"{twice[0]} twice", remedy))
    runs = tuple(map(read or read_run, paths))
    problems = [problem for run in runs[1:] for problem in _disagreements(runs[0], run)]
    if problems:
        raise RunError(problems)
    return runs


def read_description(run_dir: Path) -> Description:
    """Reads model.json of a finished run.

    Raises:
        RunError: It cannot be read, or says what no run can be.
    """
    return read_json(run_dir / MODEL_FILE, Description, newest=MODEL_VERSION, remedy="restore the file")


def warn_uncertified(runs: Sequence[TrainedRun]) -> tuple[str, ...]:
    """Warns of compressed networks that their certificate did not pass, or passed for less than they are used for.

    That is at a later look alone, or with the other folds of a cross-validation where one fold is used.

    Returns:
        The warnings; empty where there is no such network.
    """
    failed: list[str] = []
    later: list[str] = []
    together: list[str] = []
    for run in runs:
        said, name = run.claim, real_path(run.path).name
        if said is None:
            continue
        if not said.passes:
            failed.append(name)
        elif said.exploratory:
            later.append(name)
        elif len(runs) == 1 and not said.passes_alone:
            together.append(name)
    where = f"see certificate in {MODEL_FILE}, or in the record of an exported file"
    warnings = tuple(
        f"{some(names)}: {words} ({where})."
        for names, words in (
            (failed, "not shown to be as good as the original"),
            (later, "not inferior to the original, but by a later look at the same patients, so exploratory"),
            (together, "not inferior to the original with the other folds together, but not shown of this fold alone"),
        )
        if names
    )
    for warning in warnings:
        LOG.warning("%s", warning)
    return warnings


def read_run(path: Path) -> TrainedRun:
    """Reads the directory of a single run; see :func:`read_runs`."""
    if folds := fold_directories(path):
        rule, value = "must be a single run", f"{len(folds)} folds"
        raise RunError(Problem(quoted(str(path)), "folds", rule, value, "give one of them"))
    for name in (CONFIG_FILE, WEIGHTS_FILE, MODEL_FILE):
        if not (path / name).is_file():
            rule, inner = "must be the directory of a finished run", _runs_in(path)
            remedy = f"it holds runs, give one: {some(inner, 4)}" if inner else "check --run_dir"
            raise RunError(Problem(quoted(str(path)), "missing", rule, f"no {name}", remedy))
    model = read_description(path)
    return TrainedRun(
        path=path,
        config=read_config(path),
        channel_names=model.channel_names,
        class_names=model.class_names,
        classes=model.classes,
        certificate=model.certificate,
    )


def _runs_in(folder: Path) -> list[str]:
    """Lists the quoted paths of the runs and cross-validations directly inside a folder."""
    found = []
    with suppress(OSError):  # folders that may not be read are no remedy
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                if (path / MODEL_FILE).is_file() or fold_directories(path):
                    found.append(quoted(str(path)))
    return found


def _disagreements(first: TrainedRun, other: TrainedRun) -> list[Problem]:
    pairs = [
        ("channels", first.channel_names, other.channel_names),
        ("classes", first.class_names, other.class_names),
        # Other classes have other values: the classes are what to say then.
        *(
            [("label values", _label_values(first), _label_values(other))]
            if first.class_names == other.class_names
            else []
        ),
        *((f"data.{name}", getattr(first.config.data, name), getattr(other.config.data, name)) for name in SHARED),
        *(
            (f"postprocessing.{name}", ours, getattr(other.config.postprocessing, name))
            for name, ours in vars(first.config.postprocessing).items()
        ),
    ]
    remedy = "predict with each alone, or leave one out"
    return [
        Problem(f"{other.path}: {name}", "average", f"must be {_said(ours)} as in {first.path}", _said(theirs), remedy)
        for name, ours, theirs in pairs
        if ours != theirs
    ]


def _label_values(run: TrainedRun) -> tuple[tuple[int, ...], ...]:
    """Returns the values of each class in label maps, also where they are the numbers of the classes."""
    return tuple((index,) for index in range(len(run.class_names))) if run.classes is None else run.classes.groups


def _said(value: Any) -> str:
    """Formats a value of a configuration for a sentence, as YAML has it; an empty value is "none"."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(_said, value))
    if is_dataclass(value):
        return "; ".join(f"{name} {_said(part)}" for name, part in vars(value).items())
    return f"{value:g}" if isinstance(value, float) else str(value)
