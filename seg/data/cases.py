"""What a data set is: its cases and the meaning of their channels and label values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    patient: str | None = None
    fold: int | None = None
    classes: ClassMap | None = None

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


def of_case(case: Case, problems: Iterable[Problem], role: str = "") -> list[Problem]:
    """Names the case first in problems of its files, then what the file is, such as ``label``."""
    return [
        replace(each, path=f"case {case.id}", rule=" ".join(part for part in (role, each.path, each.rule) if part))
        for each in problems
    ]
