"""Prepared cases, kept in memory or on disk."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset
from monai.data import Dataset as LazyDataset
from monai.transforms import Compose

from seg.config import DataConfig
from seg.data.cases import Case, Dataset
from seg.data.memory import GIB, available_bytes, gib
from seg.data.patches import foreground_voxels
from seg.data.prepare import BYTES_PER_IMAGE_VOXEL, BYTES_PER_LABEL_VOXEL, grid_of, prepare_case, sampled_grid
from seg.data.volumes import read_header, stored_files
from seg.errors import Problem, RunError, SegError
from seg.files import file_digest, written_aside

LOG = logging.getLogger(__name__)
MEMORY_SHARE = 0.25
CACHE_VERSION = 6
"""Raised whenever the same files and settings come to give other voxels: files of older versions are left unread."""


class Preparation(Compose):
    """The preparation of a case as MONAI's data sets call it; what goes wrong names the case."""

    def __init__(self, config: DataConfig, channel_names: Sequence[str]) -> None:
        super().__init__([])
        self._config, self._channel_names = config, tuple(channel_names)

    def __call__(self, input_: Any, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]  # as Compose has it
        """Returns the image f32 (C, X, Y, Z) and the label u8 (1, X, Y, Z) of an item with a case."""
        case = input_["case"]
        try:
            array, label = prepare_case(case, self._config, self._channel_names)
        except (SegError, RuntimeError, MemoryError) as error:
            rule = "must be prepared with data.spacing_mm and data.normalization as given"
            value = f"'{(str(error).strip() or 'no memory left').splitlines()[0]}'"
            remedy = "correct these or the files of the case"
            raise RunError(Problem(f"case {case.id}", "preparation", rule, value, remedy)) from error
        return {"image": torch.from_numpy(array), "label": torch.from_numpy(label)[None]}


class DiskCache(LazyDataset):
    """Prepared cases in files, one each; several processes may share the folder.

    A file is written aside and renamed. A damaged file, by the check sums within it, is prepared anew.
    """

    def __init__(self, items: Sequence[dict[str, Any]], transform: Preparation, folder: Path) -> None:
        super().__init__(items, transform)
        self._folder = folder
        self._checked: set[Path] = set()

    def _transform(self, index: int) -> Any:
        path = self._folder / f"{self.data[index]['digest']}.pt"
        if (found := self._read(path)) is None:
            found = self.transform(self.data[index])
            with written_aside(path) as file:
                torch.save(found, file)
        return found

    def _read(self, path: Path) -> Any:
        """Returns a prepared case; None where there is no whole one."""
        try:
            if path not in self._checked and (damaged := zipfile.ZipFile(path).testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} has another check sum")
            content = torch.load(path, weights_only=True)
            image, label = content["image"], content["label"]
            if image.ndim != 4 or image.shape[1:] != label.shape[1:]:
                raise ValueError("image and label have other shapes")
        except FileNotFoundError:
            return None
        except Exception as error:  # of whatever kind the damage brings about
            LOG.warning("%s: a damaged file of the cache, prepared anew (%s)", path, str(error).partition("\n")[0])
            return None
        self._checked.add(path)
        return content


class PreparedDataset:
    """Cases after loading, orientation, resampling and normalisation, in the order given.

    Args:
        dataset: The data set, for its number of classes.
        cases: The cases to prepare, each with a label.
        config: Preparation and cache.
        cache_dir: Folder of the disk cache, used where the config names none.
        progress: Whether a terminal on stderr shows a progress bar while memory is filled.

    Raises:
        RunError: Cases do not fit in memory once prepared, one by one, all of which are named; or one cannot be
            prepared. The latter comes where it is first asked for, unless memory keeps it.
    """

    def __init__(
        self, dataset: Dataset, cases: Sequence[Case], config: DataConfig, cache_dir: Path, *, progress: bool = True
    ) -> None:
        self.cases = tuple(cases)
        self.num_classes = len(dataset.class_names)
        self._foreground: dict[int, dict[int, torch.Tensor]] = {}
        _check_fit(self.cases, config)
        items: list[dict[str, Any]] = [{"case": case} for case in self.cases]
        transform = Preparation(config, dataset.channel_names)
        kind = choose_cache(self.cases, config)
        self._items: LazyDataset
        if kind == "memory":
            shown = progress and sys.stderr.isatty()
            self._items = CacheDataset(items, transform, progress=shown, num_workers=torch.get_num_threads())
        elif kind == "disk":
            for item, case in zip(items, self.cases, strict=True):
                item["digest"] = case_digest(case, _recipe(config, case))
            folder = Path(config.cache_dir) if config.cache_dir is not None else cache_dir
            self._items = DiskCache(items, transform, folder)
        else:
            self._items = LazyDataset(items, transform)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self._items[index])
        if index not in self._foreground:
            self._foreground[index] = foreground_voxels(item["label"], self.num_classes)
        return item | {"foreground": self._foreground[index], "case_id": self.cases[index].id}


def check_cache_dir(config: DataConfig) -> None:
    """Checks that the folder of the disk cache can be made and written, where the config names one.

    Raises:
        RunError: It cannot.
    """
    if config.cache_dir is None:
        return
    folder = Path(config.cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        rule, value = "must be a folder that can be written", f"{config.cache_dir!r} ({error.strerror})"
        raise RunError(Problem("data.cache_dir", "writable", rule, value, "choose another or null")) from error


def choose_cache(cases: Sequence[Case], config: DataConfig) -> str:
    """Chooses where prepared volumes are kept, ``memory``, ``disk`` or ``none``, and announces an automatic choice.

    Automatic is memory where the volumes fit into a quarter of what is available now, within the container's limit,
    else the disk.
    """
    if config.cache != "auto":
        return config.cache
    needed = sum(_prepared_bytes(case, config) for case in cases)
    free = available_bytes()
    kind = "disk" if free is None or needed > MEMORY_SHARE * free else "memory"
    of = "unknown" if free is None else f"{free / GIB:.1f} GiB"
    LOG.info("cache: %s (%d cases, %.2f GiB prepared, memory available: %s)", kind, len(cases), needed / GIB, of)
    return kind


def case_digest(case: Case, recipe: str = "") -> str:
    """Returns the SHA-256 of a case's files and of what is done with them."""
    digest = hashlib.sha256(recipe.encode())
    for path in case.files:
        for file in stored_files(path):
            digest.update(file_digest(file))
    return digest.hexdigest()


def _check_fit(cases: Sequence[Case], config: DataConfig) -> None:
    free = available_bytes()
    if free is None:
        return
    spacing = "its own voxel size" if config.spacing_mm is None else f"data.spacing_mm {list(config.spacing_mm)}"
    rule, remedy = f"must fit in memory at {spacing}", "choose larger voxels, crop it or take a machine with more"
    problems = [
        Problem(f"case {case.id}", "memory", rule, f"{gib(size)} with {gib(free)} available", remedy)
        for case in cases
        if (size := _prepared_bytes(case, config)) > free
    ]
    if problems:
        raise RunError(problems)


def _recipe(config: DataConfig, case: Case) -> str:
    fields = {name: getattr(config, name) for name in ("spacing_mm", "normalization", "ct")}
    # Only what is not as it always was, so that cases prepared before keep their names.
    fields |= {} if case.classes is None else {"classes": case.classes}
    fields |= {"label_grid": "image"} if case.label_on_image else {}
    fields |= {} if config.nan == "refuse" else {"nan": config.nan}
    return f"{CACHE_VERSION} {sorted(fields.items())}"


def _prepared_bytes(case: Case, config: DataConfig) -> int:
    header = read_header(case.images[0])
    _, shape = sampled_grid(grid_of(header), config.spacing_mm)
    channels = header.channels if len(case.images) == 1 else len(case.images)
    return math.prod(shape) * (channels * BYTES_PER_IMAGE_VOXEL + BYTES_PER_LABEL_VOXEL)
