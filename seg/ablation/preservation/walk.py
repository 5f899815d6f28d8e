"""Cases through a trained network, voxel by voxel of every tapped stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seg.ablation.preservation.moments import CHUNK
from seg.ablation.preservation.places import Places, known, places
from seg.ablation.preservation.taps import Tap, find_taps, tapped
from seg.config import DataConfig
from seg.data.cases import Case
from seg.data.prepare import prepare_case
from seg.inference.model import Model
from seg.networks import UNet

Rows = Callable[[Tap, Tensor, Tensor | None, Tensor], None]
"""Takes wide features (n, wide), those handed over (n, handed) or None, and labels i64 (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Walker:
    """A network whose features are read, and how cases are prepared for it.

    Attributes:
        network: The network in evaluation mode.
        model: The same with its windows and device.
        data: How cases are prepared.
        ignore_label: Label whose voxels count nowhere; None where there is none.
    """

    network: UNet
    model: Model
    data: DataConfig
    ignore_label: int | None

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The places whose features are read."""
        return find_taps(self.network)

    def visit(self, case: Case, receive: Rows) -> None:
        """Runs the windows of a prediction over a case and hands on every voxel that counts, in chunks.

        Args:
            case: The case.
            receive: What takes the features.

        Raises:
            DataError: The case has no label.
        """
        image, label = self._prepared(case)
        windows = self.model.windows(image.shape[1:])
        for _, start in windows.in_order((0, 1, 2)):
            # Built per window: which voxels of a stage count depends on where the window lies.
            here = {tap.name: places(windows, start, tap.stride) for tap in self.taps}

            def take(tap: Tap, wide: Tensor, narrow: Tensor | None, here: dict[str, Places] = here) -> None:
                self._hand_on(tap, here[tap.name], (wide, narrow, label), receive)

            with (
                torch.inference_mode(),
                tapped(self.network, self.taps, take),
            ):
                self.network(windows.crop(image, start)[None].to(self.model.device))

    def _prepared(self, case: Case) -> tuple[Tensor, Tensor]:
        array, label = prepare_case(case, self.data)
        return torch.from_numpy(array), torch.from_numpy(label).long().to(self.model.device)

    def _hand_on(self, tap: Tap, here: Places, tensors: tuple[Tensor, Tensor | None, Tensor], receive: Rows) -> None:
        wide, narrow, labels = tensors
        x, y = here.features(wide), None if narrow is None else here.features(narrow)
        t = here.labels(labels)
        kept = known(t, self.ignore_label)
        if kept is not None:
            x, y, t = x[kept], None if y is None else y[kept], t[kept]
        for first in range(0, len(t), CHUNK):
            chunk = slice(first, first + CHUNK)
            receive(tap, x[chunk], None if y is None else y[chunk], t[chunk])
