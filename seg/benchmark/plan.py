"""Measurements to make on a GPU that is lent for minutes: the most useful first, each saved as it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel
from torch import nn

from seg.benchmark.peers import build_peer
from seg.benchmark.roofline import measure_ceilings
from seg.benchmark.subjects import Runtime, TrainingStep
from seg.benchmark.timing import Timer, interleave, spread
from seg.config import BottleneckConfig, ExperimentConfig, NetworkConfig
from seg.data.augmentation import augment
from seg.data.streams import Stream, torch_generator
from seg.errors import Problem, RunError, SegError
from seg.files import read_json, write_json
from seg.hardware import choose_precision, computes_bf16, environment
from seg.inference.model import autocast
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.networks.conv import MEMORY_FORMATS, use_fast_kernels
from seg.runs import METRICS_FILE, read_history

LOG = logging.getLogger(__name__)
PLAN_VERSION = 1
CHANNELS, CLASSES = 1, 3
ROUNDS, WARMUP = 5, 2
BOTTLENECK = BottleneckConfig(ratio=1.0, norm=True, activation="leaky_relu")
Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["channels_last_3d", "contiguous"]
PlanName = Literal["gpu", "tiny", "record"]
Shape = tuple[int, tuple[int, int, int]]
COMPILED = ("plain", "decoder_1")
TARGETS = (0.88, 0.889)
"""Validation Dice of the hippocampus whose seconds of training are recorded."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: Batch and patch (X, Y, Z) of the networks.
        compiled: Shapes at which networks are compiled, which takes long.
        stages: Channels of the networks.
        seconds: Seconds after which no further section is begun.
        training: Experiment that is trained at the end; None leaves that out.
        seeds: Seeds of trainings that are all that is measured; without any it is all the rest.
    """

    shapes: tuple[Shape, ...]
    compiled: tuple[Shape, ...]
    stages: tuple[int, ...]
    seconds: float
    training: ExperimentConfig | None
    seeds: tuple[int, ...] = ()


def make_plan(name: PlanName, training: ExperimentConfig | None) -> Plan:
    """Returns a plan by its name.

    Args:
        name: `gpu` takes ten minutes on one data-centre GPU, `tiny` shows within a minute that all of it runs, and
            `record` trains the experiment from three seeds.
        training: The experiment to train.
    """
    if name == "record":
        return Plan(shapes=(), compiled=(), stages=(), seconds=inf, training=training, seeds=(0, 1, 2))
    if name == "tiny":
        shape: Shape = (2, (16, 16, 16))
        return Plan(shapes=(shape,), compiled=(), stages=(4, 6, 8), seconds=inf, training=training)
    small, large = (40, 56, 40), (128, 128, 128)
    shapes = ((2, small), (8, small), (32, small), (2, large))
    compiled = ((2, small), (2, large))
    return Plan(shapes=shapes, compiled=compiled, stages=(32, 64, 128, 256), seconds=600.0, training=training)


class _PlanFile(BaseModel):
    environment: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    not_measured: dict[str, str] = {}


def run_plan(plan: Plan, device: torch.device, output: Path) -> dict[str, Any]:
    """Measures section by section, and writes all that is known after each.

    A section that ends in an error is recorded with it, and the next ones run. Sections that `output` has from an
    earlier run on the same device are not measured again.

    Args:
        plan: What to measure.
        device: Where.
        output: JSON file, written after each section.

    Returns:
        The content of the file: `environment`, one entry per section, and `not_measured` with the reason of each
        section that is missing.

    Raises:
        RunError: `output` is there and no file of a plan.
    """
    start = time.monotonic()
    precision: Precision = "bf16" if computes_bf16(device) else "fp32"
    about = environment(device, precision)
    done: dict[str, Any] = {}
    if output.exists():
        earlier = read_json(output, _PlanFile, newest=PLAN_VERSION, remedy="name another file by --output")
        if earlier.environment.get("device") == about["device"]:
            done = {name: entry for name, entry in earlier.sections.items() if "error" not in entry}
    sections: dict[str, Callable[[], Any]] = {
        "bf16_outputs": lambda: [_bf16_outputs(plan, device, *one) for one in _networks(plan)],
        "ceilings": lambda: _ceilings(device, precision),
        "networks": lambda: [row for shape in plan.shapes for row in _times(plan, device, precision, shape)],
        "compiled": lambda: [
            row
            for shape in plan.compiled
            for row in _times(plan, device, precision, shape, layout=best_layout(done["networks"]["rows"]))
        ],
        "augmentation": lambda: [_augmentation(device, shape) for shape in plan.shapes],
        "training": lambda: _train(
            plan, device, best_layout(done["networks"]["rows"]), output.with_name(f"{output.stem}_training")
        ),
    }
    if plan.seeds:
        sections = {f"seed_{seed}": partial(_record, plan, device, seed, output) for seed in plan.seeds}
    missing = {name: "the time was up" for name in sections if name not in done}
    for name in list(missing):
        if time.monotonic() - start > plan.seconds:
            break
        LOG.info("plan: %s, after %.0f s", name, time.monotonic() - start)
        begun = time.monotonic()
        try:
            entry: dict[str, Any] = {"rows": sections[name]()}
            del missing[name]
        except (RuntimeError, KeyError, SegError) as error:  # of one section: the others are worth having
            missing[name] = f"{error}".splitlines()[0] if isinstance(error, SegError) else _named(error)
            LOG.warning("plan: %s is not measured: %s", name, missing[name])
            entry = {"error": missing[name]}
        done[name] = {**entry, "seconds": round(time.monotonic() - begun, 1)}
        content = {"schema_version": PLAN_VERSION, "environment": about, "sections": done, "not_measured": missing}
        write_json(output, content)
    return {"environment": about, "sections": done, "not_measured": missing}


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _networks(plan: Plan) -> Iterator[tuple[str, NetworkConfig, str]]:
    """Yields name, configuration and memory format of the networks, each network in both formats."""
    levels = len(plan.stages)
    plain = NetworkConfig(
        channels=plan.stages,
        strides=((1, 1, 1), *((2, 2, 2),) * (levels - 1)),
        kernel_sizes=((3, 3, 3),) * levels,
    )
    linear = replace(plain, upsample="linear")
    configs = {
        "plain": plain,
        "decoder_1": replace(linear, decoder_bottleneck=BOTTLENECK),
        "decoder_1-2": replace(linear, decoder_bottleneck=replace(BOTTLENECK, ratio=0.5)),
        "dynunet": plain,
    }
    for (name, config), layout in product(configs.items(), MEMORY_FORMATS):
        yield name, config, layout


def _build(name: str, config: NetworkConfig, runtime: Runtime) -> nn.Module:
    if name == "dynunet":
        return runtime.put(use_fast_kernels(build_peer("dynunet", config, CHANNELS, CLASSES)))
    network = network_from_config(config, CHANNELS, CLASSES)
    initialise(network, 0)
    return runtime.put(network)


def _bf16_outputs(plan: Plan, device: torch.device, name: str, config: NetworkConfig, layout: str) -> dict[str, Any]:
    """Compares a network's outputs in bf16 with those in fp32, at every patch of the plan.

    Convolutions of some shapes were wrong in bf16 without a word (https://github.com/pytorch/pytorch/issues/163539).

    Returns:
        Largest difference over the largest logit, and share of voxels with equal labels, the worst over all patches.
    """
    runtime = Runtime(device=device, precision="fp32", memory_format=MEMORY_FORMATS[layout])
    network = _build(name, config, runtime).eval()
    difference, equal = 0.0, 1.0
    for size in {size for _, size in plan.shapes}:
        image = runtime.image(1, CHANNELS, size)
        with torch.inference_mode():
            exact = network(image)
            with autocast(device, "bf16"):
                rounded = network(image).float()
        difference = max(difference, float((rounded - exact).abs().max() / exact.abs().max()))
        equal = min(equal, float((rounded.argmax(1) == exact.argmax(1)).float().mean()))
    return {"name": name, "memory_format": layout, "largest_difference": difference, "equal_labels": equal}


def _ceilings(device: torch.device, precision: Precision) -> list[dict[str, Any]]:
    rows = []
    for kind in dict.fromkeys((precision, "fp32")):
        found = measure_ceilings(Runtime(device=device, precision=kind))
        rows.append({"precision": kind, "gflops": found.flops / 1e9, "gb_per_s": found.bytes / 1e9})
    return rows


def _times(
    plan: Plan, device: torch.device, precision: Precision, shape: Shape, *, layout: str | None = None
) -> list[dict[str, Any]]:
    """Times networks side by side, forwards and in a step of training.

    With `layout` given, `plain` and `decoder_1` alone are compiled in this layout; else all run eagerly in both.
    """
    batch, size = shape
    experiment = ExperimentConfig(name="plan")
    experiment = replace(experiment, patches=replace(experiment.patches, size=size, batch=batch))
    forward: dict[str, Callable[[], object]] = {}
    steps: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, config, one in _networks(plan):
        if layout is not None and (one != layout or name not in COMPILED):
            continue
        runtime = Runtime(device=device, precision=precision, memory_format=MEMORY_FORMATS[one])
        row: dict[str, Any] = {"name": name, "memory_format": one, "precision": precision, "batch": batch}
        row |= {"patch_size": list(size), "compiled": layout is not None}
        rows[f"{name}, {one}"] = row
        try:
            begun = time.monotonic()
            network = _build(name, config, runtime)
            run = network if layout is None else cast(nn.Module, torch.compile(network))
            step = TrainingStep(experiment, run, channels=CHANNELS, num_classes=CLASSES, runtime=runtime)
            call = _forward(run, runtime, batch, size)
            call()
            step()
            runtime.wait()
            row["first_calls_s"] = round(time.monotonic() - begun, 2)
        except RuntimeError as error:  # want of memory, or no compiler: of this network alone
            row["error"] = _named(error)
            continue
        forward[f"{name}, {one}"], steps[f"{name}, {one}"] = call, step
    timer = Timer(wait=Runtime(device=device, precision=precision).wait)
    for measure, calls in (("forward_ms", forward), ("training_step_ms", steps)):
        for key, seconds in interleave(calls, timer, rounds=ROUNDS, warmup=WARMUP, words=measure).items():
            rows[key][measure] = spread([1e3 * value for value in seconds])
    return list(rows.values())


def _forward(network: nn.Module, runtime: Runtime, batch: int, size: tuple[int, int, int]) -> Callable[[], object]:
    image = runtime.image(batch, CHANNELS, size)

    def call() -> object:
        network.eval()
        with torch.inference_mode(), autocast(runtime.device, runtime.precision):
            out = network(image)
        network.train()
        return out

    return call


def _augmentation(device: torch.device, shape: Shape) -> dict[str, Any]:
    batch, size = shape
    config = ExperimentConfig(name="plan").augmentation
    runtime = Runtime(device=device, precision="fp32", memory_format=torch.contiguous_format)
    image = runtime.image(batch, CHANNELS, size)
    label = torch.zeros((batch, 1, *size), dtype=torch.int64, device=device)
    drawn = iter(range(10**9))

    def call() -> object:
        return augment(image, label, config, generator=torch_generator(0, Stream.AUGMENTATION, next(drawn)))

    times = interleave({"augment": call}, Timer(wait=runtime.wait), rounds=ROUNDS, warmup=WARMUP, words="augmentation")[
        "augment"
    ]
    return {"batch": batch, "patch_size": list(size), "ms": spread([1e3 * one for one in times])}


def best_layout(rows: list[dict[str, Any]]) -> MemoryFormat:
    """Returns the memory format with the shortest total time of `decoder_1` training steps, summed over all shapes."""
    total = dict.fromkeys(MEMORY_FORMATS, 0.0)
    for row in rows:
        if row["name"] == "decoder_1":
            total[row["memory_format"]] += row["training_step_ms"]["median"] if "training_step_ms" in row else inf
    return "contiguous" if total["contiguous"] < total["channels_last_3d"] else "channels_last_3d"


def _no_experiment() -> RunError:
    remedy = "give --config and --data.root"
    return RunError(Problem("training", "missing", "must have an experiment and its data set", remedy=remedy))


def _train(plan: Plan, device: torch.device, layout: MemoryFormat, run_dir: Path) -> dict[str, Any]:
    """Trains the experiment in a memory format, and reads the seconds to each Dice from its curve."""
    from seg.workflows.train import train

    if plan.training is None:
        raise _no_experiment()
    kind: Any = device.type
    training = replace(plan.training.training, memory_format=layout, device=kind, progress=False)
    begun = time.monotonic()
    train(replace(plan.training, training=training), run_dir=run_dir, folds=[plan.training.fold], resume=True)
    return {
        "memory_format": layout,
        "precision": choose_precision(training.precision, device),
        "whole_s": round(time.monotonic() - begun, 1),
        **seconds_to(run_dir),
    }


def _record(plan: Plan, device: torch.device, seed: int, output: Path) -> dict[str, Any]:
    """Trains from a seed and returns the seconds to each validation Dice of :data:`TARGETS`, validations included."""
    if plan.training is None:
        raise _no_experiment()
    training = replace(plan.training.training, validate_every=min(100, plan.training.training.validate_every))
    own = replace(plan, training=replace(plan.training, seed=seed, training=training))
    return _train(own, device, training.memory_format, output.with_name(f"{output.stem}_seed_{seed}"))


def seconds_to(run_dir: Path) -> dict[str, Any]:
    """Reads from a run's curve how long it trained, and in which second its validation Dice passed each target.

    Raises:
        RunError: The run has no curve.
    """
    rows = read_history(run_dir)
    if rows is None:
        raise RunError(Problem(str(run_dir / METRICS_FILE), "missing", "must be there", remedy="train the run anew"))
    reached = {
        str(target): next((row["seconds"] for row in rows if row["val_dice"] >= target), None) for target in TARGETS
    }
    last = rows[-1]
    return {"steps": last["step"], "training_s": last["seconds"], "val_dice": last["val_dice"], "seconds_to": reached}
