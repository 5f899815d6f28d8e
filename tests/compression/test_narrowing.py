"""What narrower layers save, found from times that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from seg.compression import narrowing
from seg.compression.narrowing import time_narrowing
from seg.config import NetworkConfig, WidthsConfig

SHAPE = (16, 16, 16)


def test_what_a_narrower_map_saves_is_of_rounds_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    full = NetworkConfig(channels=(6, 8), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 2)
    narrow = replace(full, widths=WidthsConfig(encoder=(3, 8)))
    written: dict[str, list[list[int]]] = {}

    def known(calls: Any, timer: Any, *, rounds: int, warmup: int) -> dict[str, tuple[float, ...]]:
        for name, call in calls.items():
            own = written.setdefault(name, [])
            hook = nn.modules.module.register_module_forward_hook(
                lambda module, _inputs, output, own=own: (
                    own.append([*output.shape[1:]]) if isinstance(module, nn.Conv3d) else None
                )
            )
            call()
            hook.remove()
        assert rounds > warmup > 0
        return {"full": (0.4, 0.2, 0.3), "narrow": (0.2, 0.1, 0.2)}

    monkeypatch.setattr(narrowing, "interleave", known)
    found = time_narrowing(1, 2, full, narrow, SHAPE)
    assert (found.full_ms, found.saved_ms, found.speedup) == pytest.approx((300, 100, 2))
    assert found.speedup_quartiles == pytest.approx((1.75, 2))
    # The kernel that writes the narrower map and the one that reads it, and nothing else.
    assert written == {"full": [[6, *SHAPE], [6, *SHAPE]], "narrow": [[3, *SHAPE], [6, *SHAPE]]}
