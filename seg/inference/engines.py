"""Engines that run an exported network without torch: OpenVINO and ONNX Runtime, on the processor."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seg.config import Precision
from seg.errors import ConfigError, Problem, RunError
from seg.files import quoted
from seg.inference.memory import out_of_memory
from seg.processes import usable_cores

Engine = Literal["torch", "openvino", "onnxruntime"]
Format = Literal["onnx", "openvino"]
Voxels = npt.NDArray[np.float32]
Run = Callable[[Voxels], Voxels]
IMAGE, LOGITS = "image", "logits"
"""Names of the input and of the output of an exported network."""
AXES = ("batch", "x", "y", "z")
"""Names of the axes of the image that have no fixed size in an exported network."""
READERS: Mapping[Format, tuple[Engine, ...]] = {"onnx": ("openvino", "onnxruntime"), "openvino": ("openvino",)}
"""Engines that read a format."""
INSTALL = "pip install 'segnarrow[export]'"
"""The command that installs what exporting a network needs, with the engines that run it."""
INSTALL_TORCH = "pip install 'segnarrow[train]'"
"""The command that installs torch."""
INSTALL_ENGINE = "pip install 'segnarrow[openvino]' or 'segnarrow[onnxruntime]'"
"""The commands that install an engine for exported networks, without torch."""
HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's name of each precision. It is always told one: where the processor has bf16 it would take that unasked."""
COMPILED_SHAPES = 4
"""How many compiled networks a process keeps of one exported network. Each takes one shape of input: the usual batch
of windows, the fewer windows of a last pass, or windows made smaller for want of memory."""


def block_telemetry() -> None:
    """Keeps engines from sending events to their makers; to be called before one of them is imported.

    OpenVINO sends one when it is imported, by a module of its own: where that cannot be imported, its stub takes over.
    ONNX Runtime (1.32 at least, on Linux too) begins a store of events and gives the machine an id when it is imported,
    unless this variable forbids it; the function that turns events off comes too late for both.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def is_installed(engine: Engine) -> bool:
    """Tells whether an engine can be imported; imports nothing."""
    return find_spec(engine) is not None


def installed(engines: Sequence[Engine]) -> tuple[Engine, ...]:
    """Returns those engines that can be imported."""
    return tuple(engine for engine in engines if is_installed(engine))


def has_bf16(engine: Engine) -> bool:
    """Tells whether an installed engine other than torch computes in bf16 on this processor; only OpenVINO may."""
    if engine != "openvino" or not is_installed(engine):
        return False
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def check_installed(engine: Engine) -> None:
    """Checks that an engine can be imported.

    Raises:
        ConfigError: It is not installed.
    """
    if not is_installed(engine):
        rule, value = "must be an engine that is installed", f"{engine}, which is not"
        remedy = f"pip install 'segnarrow[{'train' if engine == 'torch' else engine}]', or choose another"
        raise ConfigError(Problem("--engine", "missing", rule, value, remedy))


class ExportedNetwork:
    """A network in a file, from windows f32 (B, C, X, Y, Z) to logits f32 (B, K, X, Y, Z).

    It is compiled for each shape of windows when that comes first: some engines compute wrong values where shapes are
    left open (https://github.com/openvinotoolkit/openvino/issues/36831). Calls from several threads wait for each
    other, as one call has all processor threads.

    Args:
        file: ONNX file, or the XML file of OpenVINO with its weights beside it.
        engine: What runs it.
        precision: Arithmetic of the layers that the file has in fp32; ``bf16`` is for engines that have it, see
            :func:`has_bf16`.
        threads: Processor threads; None is as many as this process may use.
    """

    def __init__(
        self, file: Path, engine: Engine, *, precision: Precision = "fp32", threads: int | None = None
    ) -> None:
        check_installed(engine)
        block_telemetry()
        self.file, self.engine = file, engine
        compiler = _openvino if engine == "openvino" else _onnxruntime
        self._compile = compiler(file, threads or usable_cores(), precision)
        self._compiled: OrderedDict[tuple[int, ...], Run] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, windows: Voxels) -> Voxels:
        """Returns the logits of windows."""
        with self._lock:
            run = self._compiled.pop(windows.shape, None)
            if run is None:
                while len(self._compiled) >= COMPILED_SHAPES:
                    self._compiled.popitem(last=False)
                run = self._compiled_for(windows.shape)
            self._compiled[windows.shape] = run
            return run(np.ascontiguousarray(windows))

    def check(self, shape: tuple[int, ...]) -> None:
        """Compiles the network for a shape (B, C, X, Y, Z), before a scan is blamed for what is wrong with its file.

        Raises:
            RunError: The engine cannot read the file or compute the network.
        """
        with self._lock:
            self._compiled[shape] = self._compiled_for(shape)

    def _compiled_for(self, shape: tuple[int, ...]) -> Run:
        try:
            return self._compile(shape)
        except Exception as error:  # each engine has exceptions of its own
            if out_of_memory(error):
                raise
            rule, value = f"must be a network that {self.engine} computes", _reason(error)
            remedy = "restore the file, or export the run anew"
            raise RunError(Problem(quoted(str(self.file)), "damaged", rule, quoted(value), remedy)) from error


def _reason(error: Exception) -> str:
    """Returns the kind of an error, and the last line of what it says, where engines name the cause."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1].strip()[-200:]}"


@cache
def openvino_core() -> Any:
    """Returns the one core of this process, so that no core is ever freed before another.

    Its plugin gives the thread a stack for signals, and puts back the one before when it is freed. Of two cores that
    are freed in the order in which they were made, the second puts back a stack that is gone, and the next signal with
    a handler kills the process (OpenVINO 2026.4).
    """
    block_telemetry()
    import openvino

    return openvino.Core()


def _openvino(file: Path, threads: int, precision: Precision) -> Callable[[tuple[int, ...]], Run]:
    core = openvino_core()
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }

    def compiled(shape: tuple[int, ...]) -> Run:
        model = core.read_model(file)
        model.reshape(list(shape))
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda windows: np.array(request.infer({IMAGE: windows}, share_inputs=True)[LOGITS])

    return compiled


def _onnxruntime(file: Path, threads: int, precision: Precision) -> Callable[[tuple[int, ...]], Run]:
    assert precision == "fp32", precision
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # of builds for Windows components, which know no such variable

    def compiled(shape: tuple[int, ...]) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors, which are raised too
        for name, size in zip(AXES, (shape[0], *shape[2:]), strict=True):
            options.add_free_dimension_override_by_name(name, size)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return lambda windows: session.run([LOGITS], {IMAGE: windows})[0]

    return compiled
