"""What a data set is: its cases and the meaning of their channels and label values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from seg.data.classes import ClassMap
from seg.errors import Problem

LABEL_TOLERANCE = 1e-3
"""How far a label stored as a float may lie from its integer; preparation rounds it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and its label.

    Attributes:
        id: Name, unique within the data set; also the stem of the files written for the case.
        images: One 3-D file per channel, or one 4-D file with channels on its last axis.
        label: Label map on the image's grid; null where the case has none.
        patient: Whose case it is; null makes the case a patient of its own.
        fold: Fold whose validation side holds the case; null where the data set does not say.
        classes: What the values of the label map mean; null where each is the index of its class.
        label_on_image: Whether the label map lies on the grid of the first image, whatever its own header says.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    patient: str | None = None
    fold: int | None = None
    classes: ClassMap | None = None
    label_on_image: bool = False

    @property
    def patient_or_id(self) -> str:
        """Identifier of the patient; that of the case where the patient is not known."""
        return self.patient or self.id

    @property
    def label_on(self) -> Path | None:
        """The file whose grid the label map lies on; null where its own header says where it lies."""
        return self.images[0] if self.label_on_image else None

    @property
    def files(self) -> tuple[Path, ...]:
        """Its images and its label."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A folder of cases, whatever its layout.

    Attributes:
        name: Name the data set gives itself, else that of its folder.
        root: Folder of the data set.
        layout: ``msd``, ``nnunet`` or ``manifest``.
        cases: The cases, in the order of the data set.
        class_names: Name of each class, the background (index 0) first.
        channel_names: Name of each image channel.
        ignore_label: Class index left out of training and scores; null where there is none.
        licence: Licence the data set states, else ``not stated``.
        attribution: Whom the data set asks to be named (``reference`` in its description), else ``not stated``.
        classes: The values of label files, as its cases have it; null where each is the index of its class.
        regions: Class indices of each scored region, by its name, where regions overlap; none where classes are scored.
        unused_patients: Patients of a table beside the data that stated folds put on both sides. Where there are any,
            the table is not used, and every case is a patient of its own.
    """

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    ignore_label: int | None
    licence: str
    attribution: str = "not stated"
    classes: ClassMap | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unused_patients: tuple[str, ...] = ()

    @property
    def class_map(self) -> ClassMap:
        """The values of label files: those it names, else each the index of its class."""
        each = tuple((index,) for index in range(len(self.class_names)))
        return self.classes or ClassMap(each, self.ignore_label)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names by index of what has scores: classes, and behind them the regions that are no class."""
        return (*self.class_names, *(name for name, parts in self.regions.items() if len(parts) > 1))

    @property
    def scored(self) -> dict[int, tuple[int, ...]]:
        """Class indices of each foreground mask that is scored, by its index in the names of scores."""
        if not self.regions:
            return {index: (index,) for index in range(1, len(self.class_names))}
        names = self.score_names
        return {parts[0] if len(parts) == 1 else names.index(name): parts for name, parts in self.regions.items()}


def of_case(case: Case, problems: Iterable[Problem], role: str = "") -> list[Problem]:
    """Names the case first in problems of its files, then what the file is, such as ``label``."""
    return [
        replace(each, path=f"case {case.id}", rule=" ".join(part for part in (role, each.path, each.rule) if part))
        for each in problems
    ]
