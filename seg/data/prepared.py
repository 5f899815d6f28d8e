"""Prepared cases, kept in memory or on disk."""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import monai
import torch
from monai.data import CacheDataset, PersistentDataset
from monai.data import Dataset as LazyDataset
from monai.transforms import Compose, Transform

from seg.config import DataConfig
from seg.data.cases import Case, Dataset
from seg.data.memory import GIB, available_bytes
from seg.data.patches import foreground_voxels
from seg.data.transforms import preparation
from seg.data.volumes import read_header
from seg.errors import RunError
from seg.files import file_digest

LOG = logging.getLogger(__name__)
MEMORY_SHARE = 0.25
BYTES_PER_IMAGE_VOXEL = 4
BYTES_PER_LABEL_VOXEL = 1


class Plain(Transform):
    """Drops MONAI's meta tensors, which slow indexing, but keeps the affine of the prepared grid."""

    def __call__(self, data: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Returns the image, the label and the affine as tensors."""
        return {
            "image": data["image"].as_tensor().contiguous(),
            "label": data["label"].as_tensor().contiguous(),
            "affine": data["image"].affine.clone(),
        }


class Preparation(Compose):
    """Transforms in a row, whose want of memory and refusals name the case."""

    def __call__(self, input_: Any, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]  # as Compose has it
        """Returns what the transforms make of an item of a case."""
        try:
            return super().__call__(input_, *arguments, **options)
        except (RuntimeError, MemoryError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # MONAI wraps whatever a transform raises
                cause = cause.__cause__
            if not isinstance(cause, RuntimeError | MemoryError):
                raise
            reason = (str(cause).strip() or "no memory left").splitlines()[0]
            raise RunError(
                f"case {input_['case_id']}: must be prepared with data.spacing_mm and data.normalization as given, got "
                f"'{reason}'; correct these or the files of the case."
            ) from error


class DiskCache(PersistentDataset):
    """MONAI's disk cache, which prepares a case again where a killed process left its file incomplete."""

    def _cachecheck(self, item_transformed: dict[str, Any]) -> Any:
        parent: Any = super()
        try:
            return parent._cachecheck(item_transformed)
        except (RuntimeError, EOFError, FileNotFoundError):
            # Another process that shares the folder may have met the same file, and removed it or written it anew.
            (Path(str(self.cache_dir)) / f"{item_transformed['digest']}.pt").unlink(missing_ok=True)
            return parent._cachecheck(item_transformed)


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
        items = [
            {"image": [str(p) for p in case.images], "label": str(case.label), "case_id": case.id}
            for case in self.cases
        ]
        # Flat: MONAI's caches stop at the first step that may be random, and take any nested Compose for one.
        transform = Preparation([*preparation(config, with_label=True).transforms, Plain()])
        kind = choose_cache(self.cases, config)
        self._items: LazyDataset
        if kind == "memory":
            shown = progress and sys.stderr.isatty()
            self._items = CacheDataset(items, transform, progress=shown, num_workers=torch.get_num_threads())
        elif kind == "disk":
            recipe = _recipe(config)
            for item, case in zip(items, self.cases, strict=True):
                item["digest"] = case_digest(case, recipe)
            folder = Path(config.cache_dir) if config.cache_dir is not None else cache_dir
            self._items = DiskCache(items, transform, cache_dir=folder, hash_func=_item_digest)
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
        raise RunError(
            f"data.cache_dir must be a folder that can be written, got {config.cache_dir!r} ({error.strerror}); choose "
            "another or null."
        ) from error


def choose_cache(cases: Sequence[Case], config: DataConfig) -> str:
    """Chooses where prepared volumes are kept and announces an automatic choice.

    Args:
        cases: The cases to keep.
        config: ``cache`` is followed unless it is ``auto``, which takes memory where the volumes fit into a quarter
            of what is available now, within the container's limit, else the disk.

    Returns:
        ``memory``, ``disk`` or ``none``.
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
        digest.update(file_digest(path))
    return digest.hexdigest()


def _check_fit(cases: Sequence[Case], config: DataConfig) -> None:
    free = available_bytes()
    sizes = {case.id: _prepared_bytes(case, config) for case in cases} if free is not None else {}
    spacing = "its own voxel size" if config.spacing_mm is None else f"data.spacing_mm {list(config.spacing_mm)}"
    problems = [
        f"case {case_id}: prepared at {spacing} it must fit in memory, got {size / GIB:.3g} GiB with "
        f"{(free or 0) / GIB:.3g} GiB available; choose larger voxels, crop it or take a machine with more."
        for case_id, size in sizes.items()
        if size > (free or 0)
    ]
    if problems:
        raise RunError(problems)


def _recipe(config: DataConfig) -> str:
    fields = {key: asdict(config)[key] for key in ("spacing_mm", "normalization", "ct")}
    return f"4 monai {monai.__version__} {sorted(fields.items())}"


def _item_digest(item: dict[str, Any]) -> bytes:
    return str(item["digest"]).encode()


def _prepared_bytes(case: Case, config: DataConfig) -> float:
    voxels = 1.0
    header = read_header(case.images[0]).oriented()
    for axis in range(3):
        zoom = 1.0 if config.spacing_mm is None else header.spacing_mm[axis] / config.spacing_mm[axis]
        voxels *= header.shape[axis] * zoom
    channels = len(case.images) if header.channels == 1 else header.channels
    return voxels * (channels * BYTES_PER_IMAGE_VOXEL + BYTES_PER_LABEL_VOXEL)
