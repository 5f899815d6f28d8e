"""The machine: device and precision by capability, what a run is computed with, and memory in use."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg import __version__
from seg.errors import ConfigError, Problem
from seg.processes import usable_cores

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
REVISION_FILE = Path(__file__).parents[1] / "REVISION"
"""Where an image keeps its revision, as the build was told it: there is neither git nor a checkout inside."""
MIB, KIB_PER_MIB = 2**20, 1024
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of malloc.h
INSTRUCTION_SETS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "bf16")
"""Sets that decide which kernels compute, as torch names them; processors of one model name differ in these."""
PACKAGES = ("torch", "monai", "pytorch-lightning", "nibabel", "numpy", "scipy")
CPUINFO = Path("/proc/cpuinfo")


def choose_device(wanted: Literal["auto", "cpu", "cuda", "mps"], *, option: str = "training.device") -> torch.device:
    """Returns the device to compute on; ``auto`` is a CUDA GPU where there is one, else Apple's, else the processor.

    ``option`` names what asks for the device.

    What an Apple GPU (mps) computes of a network is compared with the processor first, see :mod:`seg.inference.apple`.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(wanted, True):
        value = f"'{wanted}' without a GPU"
        raise ConfigError(Problem(option, "unavailable", "must be available", value, "use auto or cpu"))
    if wanted == "auto":
        wanted = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
        LOG.info("device: %s", wanted)
    return torch.device(wanted)


def keep_heap() -> None:
    """Makes glibc keep freed memory for the next step; where the C library is another one, nothing changes.

    By default every tensor of 32 MiB or more is mapped anew, and the end of the heap is given back when it is free.
    The kernel then fills the same pages with zeros at each step: 10 to 15 % of a step on a processor.
    """
    if (library := _glibc()) is not None:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * MIB)):
            library.mallopt(option, value)


def trim_heap() -> None:
    """Gives back the pages of all holes in the heap, where the C library is glibc.

    A network's work space comes and goes while sums of logits stay. glibc does not fit aligned blocks into holes that
    were left by equal ones, so between what stays they add up: to three times the size of all sums on a volume of
    512 x 512 x 600 voxels.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """Returns the arithmetic of the forward pass: bf16 where the hardware computes it; fp32 alone on an Apple GPU.

    Convolutions in fp32 are fp32 from then on: cuDNN's own choice on a GPU is TF32, with 10 bits for 23.
    """
    import torch

    if wanted == "bf16" and device.type == "mps":
        LOG.warning("precision: fp32, in place of bf16, which is not offered on an Apple GPU")
        return "fp32"
    if wanted == "auto":
        wanted = "bf16" if computes_bf16(device) else "fp32"
        LOG.info("precision: %s", wanted)
    torch.backends.cudnn.allow_tf32 = False
    return wanted


def computes_bf16(device: torch.device) -> bool:
    """Tells whether the hardware has bf16 arithmetic; where it has none, torch emulates it, slowly."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def device_name(device: torch.device) -> str:
    """Returns the model name of a GPU, or of the processor where the device is none."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"GPU of {processor_name()}" if device.type == "mps" else processor_name()


def environment(device: torch.device | None, precision: str, *, engine: str = "torch") -> dict[str, Any]:
    """Describes what a run is computed with: versions, device, instruction sets, threads, code revision.

    Args:
        device: Where torch computes; None is the processor without torch.
        precision: Arithmetic of the network.
        engine: What runs the network; where that is not torch, its version is named too.
    """
    packages = PACKAGES if engine == "torch" else (*PACKAGES, engine)
    threads, sets = usable_cores(), instruction_sets()
    if device is not None:
        import torch

        threads, capabilities = torch.get_num_threads(), torch.cpu.get_capabilities()
        sets = [name for name in INSTRUCTION_SETS if capabilities.get(name)]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in packages if (version := package_version(name))},
        "device": processor_name() if device is None else device_name(device),
        "instruction_sets": sets,
        "threads": threads,
        "cores": os.cpu_count(),
        "precision": precision,
        "revision": _revision(),
    }


def load_1min() -> float | None:
    """Returns the load average of the last minute; None where the system keeps none, as Windows."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def package_version(name: str) -> str | None:
    """Returns the version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Returns the model of the processor, as the system names it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets(names: Iterable[str] = INSTRUCTION_SETS) -> list[str]:
    """Returns those of some instruction sets that the processor has, as far as the system says, without torch.

    Where the system does not say, see :func:`tells_instruction_sets`, there are none.
    """
    flags = _processor_flags()
    return [name for name in names if name in flags]


def vector_floats() -> int:
    """Returns how many float32 numbers fit into a vector of the processor: 16 with AVX-512, else 8.

    It is 8 too where the system does not say which instruction sets there are.
    """
    return 16 if "avx512_f" in instruction_sets() else 8


def tells_instruction_sets() -> bool:
    """Tells whether the system says which instruction sets the processor has; Linux alone does."""
    return bool(_processor_flags())


def _processor_flags() -> list[str]:
    return (_cpuinfo("flags") or _cpuinfo("Features") or "").replace("avx512f", "avx512_f").split()


def _cpuinfo(entry: str) -> str | None:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(entry)), None)


def code_version() -> str:
    """Returns the version of the package, with the revision of its code where that is known."""
    revision = _revision()
    return __version__ if revision is None else f"{__version__} ({revision})"


def _revision() -> str | None:
    """Returns the git revision of the code, marked where files differ from it; None outside a checkout and an image."""
    root = Path(__file__).parents[1]
    if REVISION_FILE.is_file():
        return REVISION_FILE.read_text(encoding="utf-8").strip() or None
    if not (root / ".git").exists():  # git would name the commit of any checkout around the installed package
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


class PeakMemory:
    """Measures the largest memory in use since the object was made.

    Args:
        gpu: Whether tensors on the GPU are counted, else resident memory of this process; None counts tensors on the
            GPU where there is one.
        files: Whether pages of files count in resident memory, such as the code of libraries.
    """

    def __init__(self, *, gpu: bool | None = None, files: bool = True) -> None:
        import torch

        self._gpu = torch.cuda.is_available() if gpu is None else gpu
        self._files = files
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        self._known = self._gpu or _reset_resident()

    def mib(self) -> float | None:
        """Returns the largest memory so far, in MiB; None where the system does not tell."""
        if not self._known:
            return None
        if self._gpu:
            import torch

            return torch.cuda.max_memory_allocated() / MIB
        return _resident("VmHWM", files=self._files)


def held_mib(*, gpu: bool = False, files: bool = True) -> float | None:
    """Returns the memory in use now, in MiB: of tensors on the GPU, or resident memory of this process.

    None where the system does not tell.

    Args:
        gpu: Whether tensors on the GPU are counted.
        files: Whether pages of files count in resident memory, such as the code of libraries.
    """
    if gpu:
        import torch

        return torch.cuda.memory_allocated() / MIB
    return _resident("VmRSS", files=files)


def _resident(field: str, *, files: bool) -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = dict(re.findall(r"^(VmHWM|VmRSS|RssFile):\s+(\d+) kB", status, re.MULTILINE))
    if field not in found or not (files or "RssFile" in found):
        return None
    return (int(found[field]) - (0 if files else int(found["RssFile"]))) / KIB_PER_MIB


def _reset_resident() -> bool:
    """Has Linux count the peak of resident memory from now on; returns whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
