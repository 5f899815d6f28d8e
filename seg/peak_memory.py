"""Memory of this process and of its GPU: what is held, and the most since a moment."""

from __future__ import annotations

import re
from pathlib import Path

MIB = 2**20
KIB_PER_MIB = 1024


class PeakMemory:
    """The largest memory from its making on.

    Args:
        gpu: Whether tensors on the GPU are counted, else resident memory of this process; None counts those of the GPU
            where there is one.
    """

    def __init__(self, *, gpu: bool | None = None) -> None:
        self._gpu = _has_gpu() if gpu is None else gpu
        if self._gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._known = self._gpu or _reset_resident()

    def mib(self) -> float | None:
        """Returns it in MiB; None where the system does not tell."""
        if not self._known:
            return None
        if self._gpu:
            import torch

            return torch.cuda.max_memory_allocated() / MIB
        return _resident("VmHWM")


def held_mib(*, gpu: bool = False) -> float | None:
    """Returns the memory that is held now, in MiB: of tensors on the GPU, or resident memory of this process.

    None where the system does not tell.
    """
    if gpu:
        import torch

        return torch.cuda.memory_allocated() / MIB
    return _resident("VmRSS")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _resident(field: str) -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / KIB_PER_MIB if found else None


def _reset_resident() -> bool:
    """Makes Linux count the peak from now on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
