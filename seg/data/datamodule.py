"""Loaders of one fold."""

from __future__ import annotations

import logging
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from seg.config import ExperimentConfig
from seg.data.augmentation import Frame, augment, margins
from seg.data.cache import PreparedDataset
from seg.data.cases import Dataset
from seg.data.patches import PositionSampler, TrainingPatches
from seg.data.splits import Split
from seg.data.streams import Stream, torch_generator
from seg.processes import capped_workers

LOG = logging.getLogger(__name__)
Batch = dict[str, Any]
SHARED_MEMORY = Path("/dev/shm")
MIB = 1 << 20
PREFETCHED = 2
"""Batches that a worker has ready, torch's default; one more is in use."""
LARGER = 2
"""How many times as large as the first batch a later one may be: the sources of patches differ in size."""


class SegmentationData(pl.LightningDataModule):
    """Training patches and whole validation cases of one fold.

    Training batches are ``{"image": f32 (B, C, X, Y, Z), "label": i64 (B, 1, X, Y, Z), "position": list, "case_id":
    list}``; validation batches hold one whole prepared case. On their way to the device, patches lie in sources with a
    margin, from which they are deformed.

    Args:
        config: The experiment.
        dataset: The data set.
        split: Case ids of the two sides.
        cache_dir: Folder of the disk cache where the config names none.
    """

    def __init__(self, config: ExperimentConfig, dataset: Dataset, split: Split, cache_dir: Path) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset
        self.split = split
        self.cache_dir = cache_dir
        self._prepared: dict[str, PreparedDataset] = {}

    def setup(self, stage: str) -> None:
        """Prepares both sides of the split once."""
        by_id = {case.id: case for case in self.dataset.cases}
        for side in ("train", "validation"):
            cases = [by_id[case_id] for case_id in getattr(self.split, side)]
            if cases and side not in self._prepared:
                self._prepared[side] = PreparedDataset(
                    self.dataset, cases, self.config.data, self.cache_dir, progress=self.config.training.progress
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns patches from where the trainer stands; an epoch is the stretch between two validations."""
        config = self.config
        patches = TrainingPatches(
            self._prepared["train"],
            config.patches,
            config.seed,
            padding_label=self._padding_label,
            margin=margins(config.augmentation.spatial, config.patches.size),
        )
        step = 0 if self.trainer is None else self.trainer.global_step
        per_step = config.training.accumulate * config.patches.batch
        sampler = PositionSampler(config.training.validate_every * per_step, first=step * per_step)
        workers = self._workers(patches, sampler)
        return DataLoader(
            patches,
            batch_size=config.patches.batch,
            sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _workers(self, patches: TrainingPatches, sampler: PositionSampler) -> int:
        """Returns as many workers as there are cores, and shared memory for, through which they hand over batches.

        Where there is too little, a worker dies or waits for ever. Batches are the same with any number.
        """
        wanted = capped_workers("data.workers", self.config.data.workers)
        if not wanted or not SHARED_MEMORY.is_dir():
            return wanted
        items = [patches[position] for position in islice(sampler, self.config.patches.batch)]
        size: int = LARGER * sum(item[name].nbytes for item in items for name in ("image", "label"))
        free = shutil.disk_usage(SHARED_MEMORY).free
        workers = max(0, min(wanted, (free // size - 1) // PREFETCHED))
        if workers < wanted:
            LOG.warning(
                "data.workers: %d in place of %d, as a batch takes up to %.3g MiB of shared memory and %s has %.3g MiB "
                "free; give it more (docker run --shm-size 2g)",
                *(workers, wanted, size / MIB, SHARED_MEMORY, free / MIB),
            )
        return workers

    def val_dataloader(self) -> DataLoader[Any]:
        """Returns whole validation cases, one a batch."""
        return DataLoader(_Whole(self._prepared["validation"]), batch_size=None)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments a training batch on the processor where the device is an Apple GPU."""
        return self.augmented(batch) if self._training_on("mps") else batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments a training batch on any other device."""
        return self.augmented(batch) if self._training_on("cpu", "cuda") else batch

    def _training_on(self, *kinds: str) -> bool:
        trainer = self.trainer
        return trainer is not None and bool(trainer.training) and trainer.strategy.root_device.type in kinds

    def augmented(self, batch: Batch) -> Batch:
        """Augments a batch of :meth:`train_dataloader`, from the stream of its first position."""
        image, label = augment(
            batch["image"],
            batch["label"],
            self.config.augmentation,
            generator=torch_generator(self.config.seed, Stream.AUGMENTATION, batch["position"][0]),
            frame=Frame(size=self.config.patches.size, corners=batch["corner"]),
            padding_label=self._padding_label,
        )
        return batch | {"image": image, "label": label}

    @property
    def _padding_label(self) -> int:
        return self.dataset.ignore_label or 0


def collate(items: list[dict[str, Any]]) -> Batch:
    """Makes a batch of items with equal keys, each entry a list: sources of patches differ in size."""
    return {key: [item[key] for item in items] for key in items[0]}


class _Whole(torch.utils.data.Dataset[Batch]):
    """Validation cases with a batch axis."""

    def __init__(self, cases: PreparedDataset) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Batch:
        item = self.cases[index]
        return {"image": item["image"][None], "label": item["label"][None].long(), "case_id": item["case_id"]}
