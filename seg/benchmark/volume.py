"""Time and memory of the prediction of one whole volume, from file to file."""

from __future__ import annotations

import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seg.benchmark.measure import place_of
from seg.benchmark.prediction import FilePrediction
from seg.benchmark.subjects import Subject
from seg.data.geometry import geometry_of_affine
from seg.data.volumes import write_maps
from seg.hardware import environment
from seg.inference.sweep import trim_heap
from seg.peak_memory import MIB, PeakMemory, held_mib
from seg.words import NOT_MEASURED

FLOAT_BYTES = 4
MOST_IN_A_BYTE = 256
GREY_VALUES = 1000


def measure_volume(
    subject: Subject,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
) -> dict[str, Any]:
    """Segments a synthetic volume, and says what that took.

    Args:
        subject: The network.
        shape: Voxels of the volume (X, Y, Z).
        device: Where to compute.
        spacing_mm: Voxel size of the volume; None is that of the network, which then resamples nothing.

    Returns:
        Seconds; resident memory at the start, with the network loaded, and the most beyond it; the image in 32-bit
        floats and the label map, in MiB; and what the peak leaves beyond these two. Memory of a GPU comes beside it.

    Raises:
        RunError: The volume cannot be predicted.
    """
    place = place_of(subject, device)
    own = subject.config.data.spacing_mm
    spacing = spacing_mm or own or (1.0, 1.0, 1.0)
    gpu = device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_volume(path, shape, subject.ends[0], spacing_mm=spacing)
        predict = FilePrediction(subject, place.put(subject.network()), place, [(path,)], Path(folder) / "labels")
        trim_heap()
        start, peak = held_mib(), PeakMemory(gpu=False)
        on_gpu = PeakMemory(gpu=True) if gpu else None
        begun = time.perf_counter()
        predict()
        seconds = time.perf_counter() - begun
        most = peak.mib()
    image = prod(shape) * subject.ends[0] * FLOAT_BYTES / MIB
    labels = prod(shape) * (1 if subject.ends[1] <= MOST_IN_A_BYTE else 2) / MIB
    beyond = None if most is None or start is None else most - start
    return {
        "network": subject.name,
        "device": environment(device, place.precision)["device"],
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "precision": place.precision,
        "environment": environment(device, place.precision),
        "volume_shape": list(shape),
        "volume_spacing_mm": list(spacing),
        "network_spacing_mm": list(own or spacing),
        "num_channels": subject.ends[0],
        "num_classes": subject.ends[1],
        "seconds": seconds,
        "start_mib": start,
        "peak_beyond_start_mib": beyond,
        "image_mib": image,
        "labels_mib": labels,
        "beyond_image_and_labels_mib": None if beyond is None else beyond - image - labels,
        "peak_memory_gpu_mib": on_gpu.mib() if on_gpu is not None else None,
    }


def write_volume(
    path: Path, shape: tuple[int, int, int], channels: int, *, spacing_mm: tuple[float, float, float]
) -> None:
    """Writes noise as an image, the same in every plane along Z, so that writing needs the memory of one."""
    plane = np.random.default_rng(0).integers(0, GREY_VALUES, (channels, *shape[:2], 1)).astype(np.float32)
    affine = np.diag([*spacing_mm, 1.0])
    maps = np.broadcast_to(plane, (channels, *shape))
    write_maps(path, maps, geometry_of_affine(shape, affine))


def volume_text(found: dict[str, Any]) -> str:
    """Words what was measured."""
    shape = " x ".join(map(str, found["volume_shape"]))
    sizes = [" x ".join(f"{mm:g}" for mm in found[f"{of}_spacing_mm"]) for of in ("volume", "network")]
    lines = [
        f"{found['network']}: {shape} voxels, {found['num_channels']} channel(s), {found['num_classes']} classes, "
        f"{found['device']}, {found['threads']} thread(s), {found['precision']}",
        f"voxels of {sizes[0]} mm, network at {sizes[1]} mm",
        f"{'from file to file':<34}{found['seconds']:>10.1f} s",
    ]
    for key, words in (
        ("start_mib", "resident at the start"),
        ("peak_beyond_start_mib", "peak beyond the start"),
        ("image_mib", "image in 32-bit floats"),
        ("labels_mib", "label map"),
        ("beyond_image_and_labels_mib", "peak beyond image and labels"),
        ("peak_memory_gpu_mib", "peak on the GPU"),
    ):
        if found[key] is not None:
            lines.append(f"{words:<34}{found[key]:>10.0f} MiB")
        elif key != "peak_memory_gpu_mib":
            lines.append(f"{words:<34}{NOT_MEASURED}")
    return "\n".join(lines)
