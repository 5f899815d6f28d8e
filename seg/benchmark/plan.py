"""Measurements to make on a GPU that is lent for minutes: the most useful first, each saved as it ends."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from seg.benchmark.peers import build_peer
from seg.benchmark.roofline import measure_ceilings
from seg.benchmark.subjects import Runtime, TrainingStep
from seg.benchmark.timing import Timer, interleave, ratios, spread
from seg.config import BottleneckConfig, ExperimentConfig, MemoryFormat, NetworkConfig, Precision, TrainingConfig
from seg.config.loading import content_digest
from seg.data.augmentation import augment
from seg.data.datamodule import SegmentationData
from seg.data.datasets import read_folds
from seg.data.streams import Stream, torch_generator
from seg.errors import Problem, RunError, SegError
from seg.files import check_writable, read_json, write_json
from seg.hardware import choose_precision, environment
from seg.inference.model import autocast
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.networks.conv import MEMORY_FORMATS, use_fast_kernels
from seg.runs import METRICS_FILE, read_history

LOG = logging.getLogger(__name__)
PLAN_VERSION = 1
CHANNELS, CLASSES = 1, 3
ROUNDS, WARMUP = 5, 2
EPOCHS = 3
"""Rounds of an epoch with its data and of as many steps without; one before them does not count."""
BOTTLENECK = BottleneckConfig(ratio=1.0, norm=True, activation="leaky_relu")
PlanName = Literal["gpu", "tiny", "record"]
Shape = tuple[int, tuple[int, int, int]]
COMPILED = ("plain", "decoder_1")
VALIDATED_EVERY = 100
"""Largest number of steps between two validations, by which seconds to a Dice are known."""
TINY_STEPS = 20
GRADIENT_FLOOR = 0.1
"""Gradients of a smaller norm than this share of the largest are compared with that share: in bf16 they are noise."""
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
        name: `gpu` takes ten minutes on one data-centre GPU, `tiny` shows that all of it runs, with small networks and
            few steps of training, and `record` trains the experiment from three seeds.
        training: The experiment to train.
    """
    if name == "record":
        return Plan(shapes=(), compiled=(), stages=(), seconds=inf, training=training, seeds=(0, 1, 2))
    if name == "tiny":
        shape: Shape = (2, (16, 16, 16))
        if training is not None:
            steps = min(TINY_STEPS, training.training.steps)
            optimizer = replace(training.optimizer, warmup_steps=min(training.optimizer.warmup_steps, steps - 1))
            few = replace(training.training, steps=steps, validate_every=steps)
            training = replace(training, training=few, optimizer=optimizer)
        return Plan(shapes=(shape,), compiled=(shape,), stages=(4, 6, 8), seconds=inf, training=training)
    small, large = (40, 56, 40), (128, 128, 128)
    shapes = ((2, small), (8, small), (32, small), (2, large))
    compiled = ((2, small), (2, large))
    return Plan(shapes=shapes, compiled=compiled, stages=(32, 64, 128, 256), seconds=600.0, training=training)


class _PlanFile(BaseModel):
    digest: str = ""
    environment: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    not_measured: dict[str, str] = {}


def run_plan(plan: Plan, device: torch.device, output: Path) -> dict[str, Any]:
    """Measures section by section, and writes all that is known after each.

    A section that ends in an error is recorded with it, and the next ones run. Sections that `output` has from an
    earlier run of the same plan and experiment on the same device are not measured again.

    Args:
        plan: What to measure.
        device: Where.
        output: JSON file, written after each section.

    Returns:
        The content of the file: `digest` of device, plan and experiment, `environment`, one entry per section, and
        `not_measured` with the reason of each section that is missing.

    Raises:
        RunError: `output` is there and no file of a plan, or cannot be written.
    """
    check_writable(output.parent, given=output)
    start = time.monotonic()
    precision = choose_precision("auto", device)  # from here on fp32 is fp32, in what bf16 is compared with too
    about = environment(device, precision)
    digest = content_digest({"device": about["device"], **asdict(plan)})
    runs = output.with_name(f"{output.stem}_{digest[:8]}")
    done: dict[str, Any] = {}
    if output.exists():
        earlier = read_json(output, _PlanFile, newest=PLAN_VERSION, remedy="name another file by --output")
        if earlier.digest == digest:
            done = {name: entry for name, entry in earlier.sections.items() if "error" not in entry}

    def layout() -> MemoryFormat:
        """Returns the faster memory format, by what is measured of networks by now."""
        names = [_named_by("networks", shape) for shape in plan.shapes]
        return best_layout([row for name in names for row in done.get(name, {}).get("rows", ())])

    def compiled(shape: Shape) -> list[dict[str, Any]]:
        return _times(plan, device, precision, shape, layout=layout())

    sections: dict[str, Callable[[], Any]] = {
        "bf16_outputs": lambda: [_bf16_outputs(plan, device, *one) for one in _networks(plan)],
        "ceilings": lambda: _ceilings(device, precision),
        **{_named_by("networks", shape): partial(_times, plan, device, precision, shape) for shape in plan.shapes},
        **{_named_by("compiled", shape): partial(compiled, shape) for shape in plan.compiled},
        "augmentation": lambda: [_augmentation(device, shape) for shape in plan.shapes],
        "epoch": lambda: _epoch(plan, device, layout()),
        "training": lambda: _train(plan, device, layout(), runs.with_name(f"{runs.name}_training")),
    }
    if plan.seeds:
        sections = {f"seed_{seed}": partial(_record, plan, device, seed, runs) for seed in plan.seeds}
    missing = {name: "the time was up" for name in sections if name not in done}
    content = {"digest": digest, "environment": about, "sections": done, "not_measured": missing}
    for name in list(missing):
        if time.monotonic() - start > plan.seconds:
            break
        LOG.info("plan: %s, after %.0f s", name, time.monotonic() - start)
        begun = time.monotonic()
        try:
            entry: dict[str, Any] = {"rows": sections[name]()}
            del missing[name]
        except (RuntimeError, SegError) as error:  # of one section: the others are worth having
            missing[name] = f"{error}".splitlines()[0] if isinstance(error, SegError) else _named(error)
            LOG.warning("plan: %s is not measured: %s", name, missing[name])
            entry = {"error": missing[name]}
        done[name] = {**entry, "seconds": round(time.monotonic() - begun, 1)}
        write_json(output, {"schema_version": PLAN_VERSION, **content})
    return content


def _named_by(section: str, shape: Shape) -> str:
    batch, size = shape
    return f"{section}_{batch}_{'x'.join(map(str, size))}"


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
    """Measures how far outputs and gradients of a network in bf16 are from those in fp32, at all shapes of the plan.

    Convolutions of some shapes were wrong in bf16 without a word (https://github.com/pytorch/pytorch/issues/163539).

    Returns:
        Largest difference over the largest logit, share of voxels with equal labels, and norm of the difference of a
        parameter's gradients over the norm of its gradient; the worst over all shapes and parameters.
    """
    row: dict[str, Any] = {"name": name, "memory_format": layout}
    try:
        runtime = Runtime(device=device, precision="fp32", memory_format=MEMORY_FORMATS[layout])
        network = _build(name, config, runtime)
        difference, equal, gradient = 0.0, 1.0, 0.0
        for batch, size in plan.shapes:
            image = runtime.image(batch, CHANNELS, size)
            exact, exact_gradients = _outputs(network, image, device, "fp32")
            rounded, gradients = _outputs(network, image, device, "bf16")
            difference = max(difference, float((rounded - exact).abs().max() / exact.abs().max()))
            equal = min(equal, float((rounded.argmax(1) == exact.argmax(1)).float().mean()))
            norms = [float(one.norm()) for one in exact_gradients]
            least = GRADIENT_FLOOR * max(norms)
            for one, other, norm in zip(gradients, exact_gradients, norms, strict=True):
                gradient = max(gradient, float((one - other).norm()) / max(norm, least))
    except RuntimeError as error:  # want of memory: of this network alone
        return row | {"error": _named(error)}
    return row | {"largest_difference": difference, "equal_labels": equal, "gradient_difference": gradient}


def _outputs(
    network: nn.Module, image: Tensor, device: torch.device, precision: Precision
) -> tuple[Tensor, list[Tensor]]:
    """Returns logits f32 (B, K, X, Y, Z), and the gradient of each parameter, for labels that are always the same."""
    noise = torch.Generator().manual_seed(1)
    label = torch.randint(CLASSES, (len(image), *image.shape[2:]), generator=noise).to(device)
    with autocast(device, precision):
        logits = network(image)
    logits = logits.float()
    gradients = torch.autograd.grad(F.cross_entropy(logits, label), list(network.parameters()))
    return logits.detach(), list(gradients)


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


def best_layout(rows: Sequence[dict[str, Any]]) -> MemoryFormat:
    """Returns the memory format with the shortest total time of `decoder_1` training steps, summed over all shapes.

    Without any row it is channels_last_3d, as by default.
    """
    total = dict.fromkeys(MEMORY_FORMATS, 0.0)
    for row in rows:
        if row["name"] == "decoder_1":
            total[row["memory_format"]] += row["training_step_ms"]["median"] if "training_step_ms" in row else inf
    return "contiguous" if total["contiguous"] < total["channels_last_3d"] else "channels_last_3d"


def _epoch(plan: Plan, device: torch.device, layout: MemoryFormat) -> dict[str, Any]:
    """Times the steps between two validations: with patches that are read and augmented, and on noise.

    Returns:
        Seconds of either, and the share of the first that the second takes, in the same round.
    """
    if plan.training is None:
        raise _no_experiment()
    config = replace(plan.training, training=replace(_often_validated(plan.training.training), progress=False))
    dataset, splits = read_folds(config.data)
    number = config.fold or 0
    if number >= len(splits):
        raise RunError(Problem("fold", "range", f"must be below {len(splits)}", str(number), "choose another"))
    ends = len(dataset.channel_names), len(dataset.class_names)
    precision = choose_precision(config.training.precision, device)
    runtime = Runtime(device=device, precision=precision, memory_format=MEMORY_FORMATS[layout])
    network = network_from_config(config.network, *ends)
    initialise(network, config.seed)
    step = TrainingStep(
        config,
        runtime.put(network),
        channels=ends[0],
        num_classes=ends[1],
        runtime=runtime,
        ignore_index=dataset.ignore_label,
    )
    steps = config.training.validate_every
    with tempfile.TemporaryDirectory() as folder:
        data = SegmentationData(config, dataset, splits[number], Path(folder))
        data.setup("fit")
        loader = data.train_dataloader()

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in loader:
                found = data.augmented(data.transfer_batch_to_device(batch, device, 0))
                yield found["image"], found["label"]

        def whole() -> None:
            drawn = batches()
            for _ in range(steps):
                step(drawn)

        def network_alone() -> None:
            for _ in range(steps):
                step()

        calls = {"whole": whole, "network": network_alone}
        times = interleave(calls, Timer(wait=runtime.wait), rounds=EPOCHS, warmup=1, words="epoch")
    return {
        "memory_format": layout,
        "precision": precision,
        "steps": steps,
        "workers": loader.num_workers,
        "whole_s": spread(times["whole"]),
        "network_s": spread(times["network"]),
        "network_share": ratios(times["network"], times["whole"]),
    }


def _often_validated(training: TrainingConfig) -> TrainingConfig:
    """Returns settings with a validation every hundredth step, or every so many fewer that divide the steps evenly.

    Where all divisors are small, validations would take the time: then they stay as they are.
    """
    least = min(VALIDATED_EVERY // 5, training.steps)
    divisors = [every for every in range(least, VALIDATED_EVERY + 1) if training.steps % every == 0]
    return replace(training, validate_every=max(divisors, default=training.validate_every))


def _no_experiment() -> RunError:
    remedy = "give --config and --data.root"
    return RunError(Problem("training", "missing", "must have an experiment and its data set", remedy=remedy))


def _train(plan: Plan, device: torch.device, layout: MemoryFormat, run_dir: Path) -> dict[str, Any]:
    """Trains the experiment in a memory format, and reads the seconds to each Dice from its curve."""
    from seg.workflows.train import train

    if plan.training is None:
        raise _no_experiment()
    kind: Any = device.type
    often = _often_validated(plan.training.training)
    training = replace(often, memory_format=layout, device=kind, progress=False)
    begun = time.monotonic()
    train(replace(plan.training, training=training), run_dir=run_dir, folds=[plan.training.fold], resume=True)
    return {
        "memory_format": layout,
        "precision": choose_precision(training.precision, device),
        "whole_s": round(time.monotonic() - begun, 1),
        **seconds_to(run_dir),
    }


def _record(plan: Plan, device: torch.device, seed: int, runs: Path) -> dict[str, Any]:
    """Trains from a seed and returns the seconds to each validation Dice of :data:`TARGETS`, validations included."""
    if plan.training is None:
        raise _no_experiment()
    own = replace(plan, training=replace(plan.training, seed=seed))
    return _train(own, device, plan.training.training.memory_format, runs.with_name(f"{runs.name}_seed_{seed}"))


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
