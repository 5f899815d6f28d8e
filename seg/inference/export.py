"""From a trained run to a network that other engines read, checked against torch before it is written."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seg.config import ExperimentConfig, Precision
from seg.config.loading import content_digest
from seg.errors import ConfigError, Problem, RunError
from seg.files import file_digest, write_bytes, write_json
from seg.hardware import package_version
from seg.inference.choice import chosen_classes
from seg.inference.engines import (
    AXES,
    IMAGE,
    INSTALL,
    LOGITS,
    READERS,
    Engine,
    ExportedNetwork,
    Format,
    block_telemetry,
    installed,
    openvino_core,
)
from seg.inference.exported import (
    ENDINGS,
    EXPORT_VERSION,
    PACKAGES,
    Arithmetic,
    Check,
    ExportRecord,
    exported_config,
    record_path,
)
from seg.inference.windows import Triple
from seg.networks import UNet
from seg.runs import NOTICE, TrainedRun
from seg.words import aligned, dimensions

LOG = logging.getLogger(__name__)
OPSET = 20
LEAST_EQUAL = 0.9999
"""Least share of voxels whose most likely class must be that of torch, over all shapes that an engine is checked on."""
LARGEST_DIFFERENCE = 1e-3
"""Largest difference of a logit, relative to the largest logit; sums in another order differ by some 1e-6."""


def export_network(run: TrainedRun, target: Path, format: Format) -> ExportRecord:
    """Exports the network of a run, checks it with every engine that is installed, and writes it with its record.

    Args:
        run: The run.
        target: ONNX file, or the XML file of OpenVINO, whose weights are written beside it.
        format: Format of the file.

    Returns:
        The record, which is written last.

    Raises:
        ConfigError: A package that is needed is not installed.
        RunError: The run's weights cannot be used, the exported network computes something else than torch, or the
            files cannot be written.
    """
    engines = check_packages(format)
    network = run.network()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / target.name
        write_network(network, check_shapes(run.config)[0][1], file, format)
        checks = [check for engine in engines for check in compare(network, file, engine, run)]
        problems = [problem for engine in engines for problem in check_problems(checks, engine)]
        if problems:
            raise RunError(problems)
        names = sorted(path.name for path in Path(folder).iterdir())
        record = export_record(run, format, checks, [Path(folder) / name for name in names])
        for name in names:
            write_bytes(target.with_name(name), (Path(folder) / name).read_bytes())
    write_record(target, record)
    return record


def write_record(file: Path, record: ExportRecord) -> None:
    """Writes the record of an exported network beside it, with its digest."""
    signed = record.model_copy(update={"record_sha256": record.digest()})
    content = signed.model_dump(mode="json", exclude_unset=True)
    write_json(record_path(file), {"schema_version": EXPORT_VERSION, **content})


def check_packages(format: Format) -> tuple[Engine, ...]:
    """Returns the engines that check a format, once all packages that are needed are known to be there.

    Raises:
        ConfigError: A package is not installed.
    """
    from importlib.util import find_spec

    engines = installed(READERS[format])
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if not engines:
        missing.append(" or ".join(READERS[format]))
    if missing:
        rule, value = "must be installed to export a network", "an installation without"
        raise ConfigError([Problem(name, "missing", rule, value, INSTALL) for name in missing])
    return engines


@contextmanager
def in_engine(
    network: UNet | Path, window: Triple, engine: Engine, precision: Precision = "fp32"
) -> Iterator[ExportedNetwork]:
    """Gives a network in an engine, unchecked, with as many threads as torch has here, for as long as the block lasts.

    Args:
        network: In evaluation mode, on the processor; or a file that the engine reads.
        window: Size (X, Y, Z) in voxels of some window that the network takes.
        engine: What runs it.
        precision: Arithmetic of the layers that are not in int8.

    Raises:
        ConfigError: The engine is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = network if isinstance(network, Path) else Path(folder) / f"network{ENDINGS['onnx']}"
        if isinstance(network, UNet):
            write_network(network, window, file, "onnx")
        yield ExportedNetwork(file, engine, precision=precision, threads=torch.get_num_threads())


def write_network(network: UNet, window: Triple, file: Path, format: Format) -> None:
    """Writes a network with open batch and space, unchecked.

    Args:
        network: In evaluation mode, on the processor.
        window: Size (X, Y, Z) in voxels of some window that the network takes.
        file: The file; of OpenVINO, the XML file, whose weights are written beside it.
        format: Its format.
    """
    onnx = file.with_suffix(ENDINGS["onnx"])
    example = torch.zeros((2, network.in_channels, *window))
    block_telemetry()  # whatever the exporter imports
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=[LOGITS],
            external_data=False,
            verbose=False,
        )
    assert program is not None  # as of the dynamo exporter
    graph = program.model.graph
    (logits,) = graph.outputs
    for node in graph.all_nodes():
        node.metadata_props.clear()  # lines of this machine's files
        for value in node.outputs:
            if value is not logits:
                value.shape = None  # of the trace
    # No operator of the network depends on the sizes of batch and space. So they are opened here: a trace that leaves
    # them open gives the same operators, but takes several times as long.
    for value in (*graph.inputs, logits):
        assert value.shape is not None  # as of the exporter
        for axis, name in zip((0, 2, 3, 4), AXES, strict=True):
            value.shape[axis] = name
    program.save(str(onnx))
    if format == "openvino":
        import openvino

        openvino.save_model(openvino_core().read_model(onnx), file, compress_to_fp16=False)
        onnx.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what torch's exporter says of packages that are absent and of its own use of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_shapes(config: ExperimentConfig) -> list[tuple[int, Triple]]:
    """Returns the three shapes that an exported network is checked on, each as windows a pass and their size (X, Y, Z).

    The first is that of prediction. The others differ in every axis, by the network's total stride.
    """
    x, y, z = config.window
    dx, dy, dz = (math.prod(stride[axis] for stride in config.network.strides) for axis in range(3))
    return [(config.inference.batch, (x, y, z)), (2, (x + dx, y, z)), (1, (x, y + dy, z + dz))]


def compare(network: nn.Module, file: Path, engine: Engine, run: TrainedRun) -> list[Check]:
    """Compares the logits of an exported network with those of torch, in fp32 on the processor, on three shapes."""
    exported = ExportedNetwork(file, engine)
    random = np.random.default_rng(0)
    checks = []
    for batch, size in check_shapes(run.config):
        windows = _example(random, (batch, len(run.channel_names), *size))
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows)).numpy()
        found = exported(windows)
        checks.append(
            Check(
                engine=engine,
                shape=windows.shape,
                equal_labels=float((found.argmax(1) == expected.argmax(1)).mean()),
                # A NaN is as far away as can be.
                largest_difference=float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())
                / float(np.abs(expected).max()),
            )
        )
    return checks


def _example(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Draws normalised images: smooth ones, of blocks of 4 voxels, with noise on them."""
    coarse = random.normal(size=(*shape[:2], *(math.ceil(size / 4) for size in shape[2:])))
    for axis in (2, 3, 4):
        coarse = coarse.repeat(4, axis)
    x, y, z = shape[2:]
    return (coarse[..., :x, :y, :z] + 0.5 * random.normal(size=shape)).astype(np.float32)


def check_problems(checks: Sequence[Check], engine: Engine) -> list[Problem]:
    """Says why an exported network is not that of torch, as far as the checks with an engine show."""
    own = [check for check in checks if check.engine == engine]
    voxels = [check.shape[0] * math.prod(check.shape[2:]) for check in own]
    equal = sum(check.equal_labels * count for check, count in zip(own, voxels, strict=True)) / sum(voxels)
    apart = max(check.largest_difference for check in own)
    remedy = "nothing was written; predict with the run directory and torch, and report the versions"
    name, problems = f"{engine} {package_version(engine) or ''}".rstrip(), []
    if not equal >= LEAST_EQUAL:
        rule = f"must give the labels of torch in {LEAST_EQUAL:.2%} of voxels"
        problems.append(Problem(name, "labels", rule, f"{equal:.4%}", remedy))
    if not apart <= LARGEST_DIFFERENCE:
        rule = f"must give the logits of torch to {LARGEST_DIFFERENCE:g} of the largest"
        problems.append(Problem(name, "logits", rule, f"{apart:.2g}", remedy))
    return problems


def export_record(
    run: TrainedRun,
    format: Format,
    checks: Sequence[Check],
    files: Sequence[Path],
    *,
    arithmetic: Arithmetic = "fp32",
) -> ExportRecord:
    """Describes an exported network by its run and its files.

    Args:
        run: The run.
        format: Format of the files.
        checks: How it compares with torch.
        files: Its files.
        arithmetic: Numbers that it computes with.
    """
    config, description = exported_config(run.config), run.description()
    return ExportRecord(
        notice=NOTICE,
        format=format,
        arithmetic=arithmetic,
        files={file.name: file_digest(file).hex() for file in files},
        name=description["name"],
        run=description["run"],
        weights_sha256=description["weights_sha256"],
        channel_names=run.channel_names,
        class_names=run.class_names,
        label_values=None if run.classes is None else run.classes.groups,
        certificate=run.certificate,
        largest_component=chosen_classes([run]),
        config=config,
        config_sha256=content_digest(config),
        checks=tuple(checks),
        made_with={name: package_version(name) or "absent" for name in PACKAGES},
    )


def describe(record: ExportRecord) -> str:
    """Formats the checks of an exported network as a table."""
    rows = [
        (check.engine, dimensions(check.shape), f"{check.equal_labels:.4%}", f"{check.largest_difference:.1e}")
        for check in record.checks
    ]
    return aligned([("engine", "windows", "equal labels", "largest difference"), *rows], right=(2, 3))
