"""Training patches: which case, which corner, as a function of a position in one endless stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from seg.config import PatchConfig
from seg.data.streams import Stream, generator

MAX_VOXELS_PER_CLASS = 4000


class PreparedCases(Protocol):
    """Prepared cases in a fixed order."""

    def __len__(self) -> int:
        """Returns the number of cases."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns case_id, image f32 (C, X, Y, Z), label u8 (1, X, Y, Z) and foreground, voxels (N, 3) by class."""


def foreground_voxels(label: torch.Tensor, num_classes: int) -> dict[int, torch.Tensor]:
    """Lists voxels of each foreground class that is present, at most 4000 per class.

    Of more, a random subset is listed, always the same one: every n-th voxel would lie in few slices where n divides
    the voxels of a slice.

    Args:
        label: Class indices of shape (1, X, Y, Z).
        num_classes: Number of classes, background included; larger values (an ignore label) are left out.

    Returns:
        Class index to coordinates i16 of shape (N, 3).
    """
    found = {}
    for index in range(1, num_classes):
        voxels = (label[0] == index).nonzero()
        if len(voxels):
            if len(voxels) > MAX_VOXELS_PER_CLASS:
                chance = torch.Generator().manual_seed(index)
                voxels = voxels[torch.randperm(len(voxels), generator=chance)[:MAX_VOXELS_PER_CLASS]]
            found[index] = voxels.to(torch.int16)
    return found


class TrainingPatches(Dataset[dict[str, Any]]):
    """Patches addressed by their position in the stream.

    Every pass over the cases is a new permutation. Corner and centre class are drawn from a generator seeded by
    ``(seed, position)``, so a patch depends on nothing that was drawn before it: a resumed run, another number of
    worker processes and another variant of the network see the same patches.

    An item has the source of a patch, ``image`` f32 (C, x, y, z) and ``label`` u8 (1, x, y, z), the ``corner`` of the
    patch in it, its ``position`` and the ``case_id``. Without a margin the source is the patch.

    Args:
        cases: Prepared cases.
        config: Patch size and share of foreground-centred patches.
        seed: Seed of the experiment.
        padding_label: Label of voxels outside the volume.
        margin: Voxels around a patch, per axis and side, that come with it as far as the volume reaches, so that its
            deformation finds there what the volume holds.
    """

    def __init__(
        self,
        cases: PreparedCases,
        config: PatchConfig,
        seed: int,
        padding_label: int = 0,
        margin: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.cases = cases
        self.config = config
        self.seed = seed
        self.padding_label = padding_label
        self.margin = margin
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, position: int) -> dict[str, Any]:
        case = self.cases[self._case_at(position)]
        rng = generator(self.seed, Stream.PATCH, position)
        corner = self._corner(case, rng)
        spans = self._spans(corner, case["image"].shape[1:])
        return {
            "image": _crop(case["image"], spans, 0.0),
            "label": _crop(case["label"], spans, self.padding_label),
            "corner": tuple(start - begin for start, (begin, _) in zip(corner, spans, strict=True)),
            "position": position,
            "case_id": case["case_id"],
        }

    def _case_at(self, position: int) -> int:
        epoch, index = divmod(position, len(self.cases))
        if self._order[0] != epoch:
            self._order = (epoch, generator(self.seed, Stream.ORDER, epoch).permutation(len(self.cases)))
        return int(self._order[1][index])

    def _corner(self, case: dict[str, Any], rng: np.random.Generator) -> list[int]:
        shape = np.array(case["image"].shape[1:])
        size = np.array(self.config.size)
        low, high = np.minimum(0, shape - size), np.maximum(0, shape - size)
        corner = rng.integers(low, high, endpoint=True)
        if rng.random() < self.config.foreground_fraction and case["foreground"]:
            classes = sorted(case["foreground"])
            voxels = case["foreground"][classes[rng.integers(len(classes))]]
            centre = voxels[int(rng.integers(len(voxels)))].numpy().astype(int)
            centred = np.clip(centre - size // 2, low, high)
            # An axis shorter than the patch keeps its random place: all of it is in the patch anyway.
            corner = np.where(shape > size, centred, corner)
        return [int(c) for c in corner]

    def _spans(self, corner: Sequence[int], shape: Sequence[int]) -> list[tuple[int, int]]:
        """Returns first voxel and end of a patch's source along each axis of the volume; negative ones are padding."""
        return [
            (min(start, max(0, start - margin)), max(start + length, min(extent, start + length + margin)))
            for start, length, margin, extent in zip(corner, self.config.size, self.margin, shape, strict=True)
        ]


def _crop(volume: torch.Tensor, spans: Sequence[tuple[int, int]], fill: float) -> torch.Tensor:
    patch = volume.new_full((volume.shape[0], *(end - begin for begin, end in spans)), fill)
    source, target = [slice(None)], [slice(None)]
    for (begin, end), extent in zip(spans, volume.shape[1:], strict=True):
        first, last = max(0, begin), min(extent, end)
        source.append(slice(first, last))
        target.append(slice(first - begin, last - begin))
    patch[tuple(target)] = volume[tuple(source)]
    return patch


class PositionSampler(Sampler[int]):
    """Positions of one training epoch; epoch ``e`` begins where epoch ``e - 1`` ended.

    Args:
        per_epoch: Positions in an epoch.
        first: Position that a resumed run begins with, in the middle of its epoch or at the start.
    """

    def __init__(self, per_epoch: int, first: int = 0) -> None:
        self.per_epoch = per_epoch
        self.first = first
        # The trainer has workers begin on its first epoch before it tells the sampler which one that is.
        self.epoch = first // per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; the trainer calls it, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.per_epoch
        return iter(range(max(start, self.first), start + self.per_epoch))
