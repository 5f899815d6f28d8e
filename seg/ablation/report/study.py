"""The plan of a study, study.json, and what a device measured of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg.errors import RunError
from seg.files import read_versioned, reading

STUDY_FILE = "study.json"
SCHEMA_VERSION = 1
NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class VariantRecord:
    """A variant as the study planned it.

    Attributes:
        name: Its name.
        changes: Values by dotted path in which it differs from the baseline.
        parameters: Parameters of its network; None where they were not counted.
        macs: Multiply-accumulates of one image at the patch size; None where they were not counted.
    """

    name: str
    changes: Mapping[str, Any]
    parameters: int | None
    macs: int | None


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """The content of ``study.json``.

    Attributes:
        name: Name of the study.
        command: Command that repeats it.
        base: Experiment that is varied.
        baseline: Name of the variant that the others are compared with.
        margin: Loss of Dice that still counts as not inferior.
        folds: Folds of every variant.
        seeds: Seeds of every variant.
        variants: The variants, baseline first.
        trials: Ids of all trials that were planned.
        contrasts: Pairs of variants that are compared with each other.
        training: Steps, batch, patch_size and validate_every, as far as stated.
        data: Name, licence, attribution, num_cases, class_names and nsd_tolerance_mm, as far as stated.
        notes: What a reader must know that no record says.
        nominal_spacing: Whether spacing is not the true one, so that distances mean nothing.
        pictures: Whether pictures of cases may be shown.
    """

    name: str
    command: str
    base: str
    baseline: str
    margin: float
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    variants: tuple[VariantRecord, ...]
    trials: tuple[str, ...]
    contrasts: tuple[tuple[str, str], ...]
    training: Mapping[str, Any]
    data: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    nominal_spacing: bool = False
    pictures: bool = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return tuple(self.data["class_names"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variants, baseline first."""
        return tuple(variant.name for variant in self.variants)


@dataclass(frozen=True, kw_only=True)
class DeviceSpeed:
    """Speed of the variants on one device.

    Attributes:
        about: What the record says of the device, without its variants.
        variants: Record of each measured variant by name.
        number: Which of the devices of its kind and threads it is, from 1.
    """

    about: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    number: int = 1

    @property
    def label(self) -> str:
        """Names the device with its threads, precision and layout."""
        return ", ".join(filter(None, (self.named, self.about.get("memory_format"))))

    @property
    def named(self) -> str:
        """Names the device with its threads and precision, for a sentence."""
        parts = [str(self.about["device"])]
        if self.about["kind"] == "cpu" and self.about.get("threads"):
            threads = self.about["threads"]
            parts.append(f"{threads} thread{'s' if threads != 1 else ''}")
        return ", ".join([*parts, *filter(None, (self.about.get("precision"),))])

    @property
    def slug(self) -> str:
        """Names the device in files: its kind, a processor with its threads, and a number where there are several."""
        name = str(self.about["kind"])
        threads = self.about.get("threads")
        if name == "cpu" and threads:
            name += str(threads)
        return name if self.number == 1 else f"{name}_{self.number}"

    def spread(self, variant: str, key: str) -> tuple[float, float, float] | None:
        """Gives median, lower and upper quartile of a measure; None where it was not measured."""
        value = self.variants.get(variant, {}).get(key)
        return None if value is None else (float(value["median"]), float(value["q1"]), float(value["q3"]))

    def value(self, variant: str, key: str) -> float | None:
        """Gives a measure that is one number; None where it was not measured."""
        value = self.variants.get(variant, {}).get(key)
        return None if value is None else float(value)

    def latencies(self, baseline: str) -> dict[str, float]:
        """Gives the latency of each variant that has one, in ms.

        It is the baseline's median over the median of the ratios by round: rounds are paired, and what slows a machine
        for a while does not put one variant before another. Without a ratio it is the variant's own median.
        """
        found = {name: spread[0] for name in self.variants if (spread := self.spread(name, "latency_ms")) is not None}
        ratios = {name: self.spread(name, "latency_ratio") for name in found}
        if baseline not in found:
            return found
        return {name: found[baseline] / ratio[0] if (ratio := ratios[name]) else own for name, own in found.items()}


def read_study(folder: Path) -> StudyRecord:
    """Reads ``study.json``.

    Raises:
        RunError: It is absent, damaged or of a newer version.
    """
    path = folder / STUDY_FILE
    content = read_record_file(
        path, "the plan of a study", "give the directory of a study that was started, or start it again"
    )
    try:
        study = StudyRecord(
            name=str(content["name"]),
            command=str(content["command"]),
            base=str(content.get("base", NOT_STATED)),
            baseline=str(content["baseline"]),
            margin=float(content["margin"]),
            folds=tuple(map(int, content["folds"])),
            seeds=tuple(map(int, content["seeds"])),
            variants=tuple(_variant(entry) for entry in content["variants"]),
            trials=tuple(map(str, content["trials"])),
            contrasts=tuple((str(one["variant"]), str(one["against"])) for one in content.get("contrasts", ())),
            training=dict(content.get("training") or {}),
            data={"class_names": ("background",), **content["data"]},
            notes=tuple(map(str, content.get("notes") or ())),
            nominal_spacing=bool(content.get("nominal_spacing", False)),
            pictures=bool(content.get("pictures", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, "the plan of a study", error) from error
    if study.baseline not in study.names:
        raise RunError(
            f"{path}: the baseline must be one of the variants, got {study.baseline!r} beside "
            f"{', '.join(study.names)}; start the study again to write its plan anew."
        )
    if unknown := {name for pair in study.contrasts for name in pair} - set(study.names):
        raise RunError(
            f"{path}: contrasts must compare variants of the study, got {', '.join(sorted(unknown))}; start the study "
            "again to write its plan anew."
        )
    return study


def read_record_file(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Reads a record of a study; see :func:`seg.files.reading`."""
    with reading(path, what=f"{what}, whole", remedy=remedy):
        return read_versioned(path, SCHEMA_VERSION)


def damaged(path: Path, what: str, error: Exception) -> RunError:
    """Gives the error for a file that is not what its name says."""
    return RunError(
        f"{path}: must be {what}, whole, got {type(error).__name__} ({error}); restore it, or remove it and run the "
        "study again."
    )


def _variant(entry: Mapping[str, Any]) -> VariantRecord:
    counts = {key: None if entry.get(key) is None else int(entry[key]) for key in ("parameters", "macs")}
    return VariantRecord(name=str(entry["name"]), changes=dict(entry.get("changes") or {}), **counts)
