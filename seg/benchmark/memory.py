"""Peak memory of inference and of a training step, each network in fresh processes of its own.

What a process has held before stays with its heap, so networks that share one cannot be told apart. On a processor the
heap differs by several MiB from one process to the next, so the median of some is taken; a GPU counts its tensors.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from statistics import median
from typing import TypeVar

import torch

from seg.benchmark.peers import PEERS_HOME
from seg.benchmark.subjects import Runtime, Subject, TrainingStep
from seg.hardware import PeakMemory, held_mib
from seg.inference.model import autocast

LOG = logging.getLogger(__name__)
Found = TypeVar("Found")
PASSES = 2
"""How many passes are measured. The second also holds what the first leaves, such as moments of the optimiser."""
PROCESSES = {"cpu": 5, "cuda": 1}
"""Fresh processes of which the median is taken, by kind of device."""


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Largest memory in MiB over forward passes and over training steps of one patch; None where it is not known.

    Weights count, the memory of a process with all imports and the code of libraries do not.
    """

    inference_mib: float | None
    training_mib: float | None


def measure_peaks(subject: Subject, runtime: Runtime) -> Peaks:
    """Measures peak memory in fresh processes: resident memory on a processor, memory of tensors on a GPU.

    Where a process dies, such as for lack of memory, or the system does not tell, a warning is logged.

    Returns:
        The median over `PROCESSES`.
    """
    # Processes start with torch imported, in a tenth of a second, and share nothing else with one another.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    count = PROCESSES[runtime.device.type]
    try:
        found = [in_fresh_process(peaks, subject, runtime, context=context) for _ in range(count)]
    except ChildProcessError as error:
        LOG.warning("%s: peak memory is not known: %s.", subject.name, error)
        return Peaks(inference_mib=None, training_mib=None)
    inference, training = ([getattr(one, name) for one in found] for name in ("inference_mib", "training_mib"))
    return Peaks(inference_mib=_median(inference), training_mib=_median(training))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def in_fresh_process(measure: Callable[..., Found], *arguments: object, context: BaseContext) -> Found:
    """Calls a function in a fresh process, with as many threads as torch has here.

    Args:
        measure: Function of a module.
        arguments: What it is called with.
        context: How the process is started.

    Raises:
        ChildProcessError: The function raised an exception, which is named, or the process died.
    """
    receiver, sender = context.Pipe(duplex=False)
    call = (sender, torch.get_num_threads(), measure, arguments)
    process = context.Process(target=_child, args=call, daemon=True)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        succeeded, found = receiver.recv()
    except EOFError:
        succeeded, found = False, "the process died"
    process.join()
    if not succeeded:
        raise ChildProcessError(found)
    result: Found = found
    return result


def _child(sender: Connection, threads: int, measure: Callable[..., object], arguments: Sequence[object]) -> None:
    torch.set_num_threads(threads)
    try:
        sender.send((True, measure(*arguments)))
    except Exception as error:  # named by the parent
        sender.send((False, f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": .")))
    sender.close()


def peaks(subject: Subject, runtime: Runtime) -> Peaks:
    """Measures in this process, which has to be a fresh one."""
    gpu = runtime.device.type == "cuda"
    if gpu:
        torch.cuda.set_device(runtime.device)
    if subject.peer is not None:
        import_module(PEERS_HOME)  # its code is no memory of the network
    before = held_mib(gpu=gpu, files=False)
    found = []
    for work in (_infer, _train):
        peak = PeakMemory(gpu=gpu, files=False)
        work(subject, runtime)
        runtime.wait()
        most = peak.mib()
        found.append(None if most is None or before is None else most - before)
    return Peaks(inference_mib=found[0], training_mib=found[1])


def _infer(subject: Subject, runtime: Runtime) -> None:
    network = runtime.put(subject.network())
    image = runtime.image(1, subject.ends[0], subject.config.patches.size)
    with torch.inference_mode(), autocast(runtime.device, runtime.precision):
        for _ in range(PASSES):
            network(image)


def _train(subject: Subject, runtime: Runtime) -> None:
    channels, classes = subject.ends
    network = runtime.put(subject.network(trained=False))
    step = TrainingStep(subject.config, network, channels=channels, num_classes=classes, runtime=runtime)
    for _ in range(PASSES):
        step()
