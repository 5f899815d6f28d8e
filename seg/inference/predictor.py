"""One case from its files to a label map on the image's own grid, by trained networks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seg.config import DataConfig, DeviceName, PrecisionName
from seg.data.classes import ClassMap
from seg.data.memory import check_memory
from seg.data.prepare import prepare, read_image
from seg.errors import ConfigError, Problem, RunError
from seg.files import real_path
from seg.hardware import (
    choose_device,
    choose_precision,
    computes_bf16,
    instruction_sets,
    tells_instruction_sets,
)
from seg.inference.apple import agreed_device, logits_of
from seg.inference.arrays import HOST
from seg.inference.choice import CHOICE_FILE, chosen_classes
from seg.inference.cleaning import CleaningRule, clean_labels, cleaning_rules
from seg.inference.engine_choice import check_settings
from seg.inference.engines import Engine, ExportedNetwork
from seg.inference.exported import ExportedRun, exported_file
from seg.inference.memory import Attempt, MemoryHistory, place
from seg.inference.model import Model, model_from_config, named_axes, processor
from seg.inference.quantise import INT8_SETS, int8_kernels
from seg.inference.segmentation import Prepared, Segmentation
from seg.inference.sweep import segment
from seg.runs import TrainedRun, warn_uncertified
from seg.words import some

if TYPE_CHECKING:
    import torch

    from seg.inference.apple import Work

LOG = logging.getLogger(__name__)
STAGES = ("read", "prepare", "network", "resample", "write")
"""Stages of a case. ``resample`` is all that makes labels of logits: blending, resampling, choice, clean-up."""
PROBABILITY_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Trained networks, with the settings that apply them to files.

    Attributes:
        models: Networks whose probabilities are averaged.
        data: How images are prepared.
        channel_names: Channels that an image must have.
        class_names: Classes, the background first.
        classes: The values of label maps; None where each is the index of its class.
        rules: Clean-up by class index.
        engine: What runs the networks.
        chosen: Classes whose largest component is kept because that was found to help on held-out cases.
        probabilities: Whether probabilities are kept.
        warnings: Sentences on what is other than asked for, in all cases.
        memory: What cases taught about memory.
    """

    models: Sequence[Model]
    data: DataConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    classes: ClassMap | None = None
    rules: dict[int, CleaningRule] = field(default_factory=dict)
    engine: Engine = "torch"
    chosen: tuple[str, ...] = ()
    probabilities: bool = False
    warnings: tuple[str, ...] = ()
    memory: MemoryHistory = field(default_factory=MemoryHistory)

    def __post_init__(self) -> None:
        """Has sums of logits kept on the processor where the networks lie on an Apple GPU."""
        if self.models[0].device.type == "mps":
            self.memory.attempt = Attempt(models=tuple(self.models), device=processor())

    @property
    def torch_device(self) -> torch.device | None:
        """Where torch computes; None where another engine does."""
        device = self.models[0].device
        return None if device == HOST else device


def predict_case(predictor: Predictor, paths: Sequence[Path]) -> Segmentation:
    """Segments one case.

    Args:
        predictor: What to segment with.
        paths: One file per channel, one 4-D file, or the folder of a DICOM series.

    Returns:
        The label map.

    Raises:
        DataError: A file cannot be read, or is no image that the networks take, or its probabilities would not fit in
            memory.
        RunError: Memory does not suffice for the networks.
    """
    return finish_case(predictor, segment_case(predictor, load_case(predictor, paths)))


def load_case(predictor: Predictor, paths: Sequence[Path]) -> Prepared:
    """Reads and prepares a case; see :func:`predict_case`."""
    start = time.perf_counter()
    image = read_image(paths, predictor.channel_names, fill=predictor.data.nan == "background")
    middle = time.perf_counter()
    warnings = list(image.geometry.warnings)
    for name, values in zip(predictor.channel_names, image.array, strict=True):
        if values.min() == values.max():
            warnings.append(f"channel {name} must vary, got {values.flat[0]:g} in every voxel; check the file.")
    array, step = prepare(image, predictor.data)
    return Prepared(
        image=array,
        step=step,
        target=image.geometry,
        seconds={"read": middle - start, "prepare": time.perf_counter() - middle},
        warnings=tuple(warnings),
    )


def segment_case(predictor: Predictor, prepared: Prepared) -> Segmentation:
    """Applies the networks to a case; see :func:`predict_case`."""
    if predictor.probabilities:
        classes, shape = len(predictor.class_names), prepared.target.shape
        check_memory(
            f"probabilities of {classes} classes on the scan's grid of {' x '.join(map(str, shape))} voxels",
            PROBABILITY_BYTES * classes * math.prod(shape),
            remedy="leave --probabilities out, crop the scan or take a machine with more",
        )
    start = time.perf_counter()
    done = segment(predictor.models, prepared, predictor.memory, probabilities=predictor.probabilities)
    network = done.seconds["network"]
    seconds = {**prepared.seconds, "network": network, "resample": time.perf_counter() - start - network}
    return replace(done, seconds=seconds, warnings=(*prepared.warnings, *done.warnings))


def finish_case(predictor: Predictor, predicted: Segmentation) -> Segmentation:
    """Cleans a label map up, in place; see :func:`predict_case`."""
    start = time.perf_counter()
    removed = clean_labels(predicted.labels, predictor.rules, predicted.geometry.voxel_ml)
    predicted.seconds["resample"] += time.perf_counter() - start
    notes = tuple(
        f"clean-up removed {volume:.3g} ml of class {predictor.class_names[index]}."
        for index, volume in removed.items()
        if volume > 0
    )
    return replace(predicted, warnings=predicted.warnings + notes)


def load_model(run: TrainedRun, device: torch.device, precision: str, *, tta: bool | None = None) -> Model:
    """Loads the network of a run in evaluation mode on a device, with its windows; see :func:`model_from_config`.

    Raises:
        RunError: There are no weights, they cannot be read, they are those of another network or task, or memory of
            the device does not suffice.
    """
    network = run.network()
    device, _ = agreed_device([(network, _forward(run))], device)
    place([network], [run.config.training.memory_format], device, fall_back=False)
    return model_from_config(network, run.config, device=device, precision=precision, tta=tta)


def _forward(run: TrainedRun) -> Work:
    """Returns what the network of a run is compared by on an Apple GPU: a pass of one of its windows."""
    return logits_of(run.config.window, len(run.channel_names))


def load_predictor(
    runs: Sequence[TrainedRun],
    *,
    device: DeviceName,
    tta: bool,
    probabilities: bool,
    precision: PrecisionName = "auto",
    engine: Engine = "torch",
) -> Predictor:
    """Loads the networks of runs that agree with one another, in evaluation mode on the device, and their settings.

    Args:
        runs: The runs.
        device: Where to compute.
        tta: Whether logits are averaged over mirrored copies; else each run does as its configuration says.
        probabilities: Whether probabilities are kept.
        precision: Arithmetic of all networks; ``auto`` is that of each run's configuration, and fp32 or int8 of other
            engines than torch, as their files are.
        engine: What runs the networks; others than torch take exported runs, or export a run once.

    Raises:
        RunError: Weights cannot be used, are those of two runs, or do not fit in memory.
        ConfigError: The device is not there, or has no such arithmetic, or the engine is not installed.
    """
    first: dict[str, TrainedRun] = {}
    copies = []
    for run in runs if len(runs) > 1 else ():
        other = first.setdefault(run.description()["weights_sha256"], run)
        if other is not run:
            value, remedy = f"the weights of {other.path}", "they would count double, leave one of them out"
            copies.append(Problem(str(run.path), "twice", "must differ from the other runs", value, remedy))
    if copies:
        raise RunError(copies)
    load = _torch_models if engine == "torch" else partial(_exported_models, engine=engine)
    models, warnings = load(runs, device=device, precision=precision, tta=tta)
    warnings += warn_uncertified(runs)
    if kept := chosen_classes(runs):
        LOG.info(
            "post-processing: the largest component alone is kept of %s, which raised Dice on held-out cases (%s of "
            "the run; without that file nothing is removed)",
            *(", ".join(kept), CHOICE_FILE),
        )
    warnings += _unlike_their_certificates(runs, models, engine, kept)
    predictor = predictor_of(runs[0], models, engine=engine, chosen=kept)
    return replace(predictor, probabilities=probabilities, warnings=warnings)


def predictor_of(
    run: TrainedRun, models: Sequence[Model], *, engine: Engine = "torch", chosen: tuple[str, ...] = ()
) -> Predictor:
    """Returns networks with the settings of a run that apply them to files.

    Args:
        run: The run.
        models: Its network, or those of runs that agree with it.
        engine: What runs the networks.
        chosen: Classes whose largest component is kept; none leaves what the configuration says.
    """
    postprocessing = run.config.postprocessing
    if chosen:
        postprocessing = replace(postprocessing, largest_component=chosen)
    return Predictor(
        models=models,
        data=run.config.data,
        channel_names=run.channel_names,
        class_names=run.class_names,
        classes=run.classes,
        rules=cleaning_rules(postprocessing, run.class_names),
        engine=engine,
        chosen=chosen,
    )


def _torch_models(
    runs: Sequence[TrainedRun], *, device: DeviceName, precision: PrecisionName, tta: bool
) -> tuple[list[Model], tuple[str, ...]]:
    """Loads networks of torch; see :func:`load_predictor`. Returns sentences on what is other than asked for, too."""
    warnings = _idle_mirroring(runs, tta=tta)
    chosen = choose_device(device, option="--device")
    if precision == "bf16" and not computes_bf16(chosen):
        kind = "processor" if chosen.type == "cpu" else "GPU"
        rule = f"must be one that the {kind} computes"
        raise ConfigError(Problem("--precision", "hardware", rule, "'bf16', which it lacks", "use fp32"))
    networks = [run.network() for run in runs]
    # Where the GPU is full and --device is auto, the processor computes, if it has the arithmetic asked for.
    bearable = precision != "bf16" or computes_bf16(processor())
    chosen, unlike = agreed_device(
        [(network, _forward(run)) for run, network in zip(runs, networks, strict=True)], chosen
    )
    layouts = [run.config.training.memory_format for run in runs]
    chosen, full = place(networks, layouts, chosen, fall_back=device == "auto" and bearable)
    warnings += tuple(note for note in (unlike, full) if note)
    models = []
    for run, network in zip(runs, networks, strict=True):
        own = choose_precision(run.config.training.precision if precision == "auto" else precision, chosen)
        models.append(model_from_config(network, run.config, device=chosen, precision=own, tta=True if tta else None))
    return models, warnings


def _exported_models(
    runs: Sequence[TrainedRun],
    *,
    engine: Engine,
    device: DeviceName,
    precision: PrecisionName,
    tta: bool,
) -> tuple[list[Model], tuple[str, ...]]:
    """Loads exported networks into an engine; see :func:`load_predictor`."""
    check_settings(runs, engine=engine, device=device, precision=precision)
    warnings = _idle_mirroring(runs, tta=tta)
    models = []
    for run in runs:
        warnings += _warn_uncertified_int8(run)
        network = ExportedNetwork(exported_file(run), engine, precision="bf16" if precision == "bf16" else "fp32")
        network.check((run.config.inference.batch, len(run.channel_names), *run.config.window))
        stored = run.record.arithmetic if isinstance(run, ExportedRun) else "fp32"
        own = stored if precision == "auto" else precision
        models.append(model_from_config(network, run.config, device=HOST, precision=own, tta=True if tta else None))
    return models, warnings


def _warn_uncertified_int8(run: TrainedRun) -> tuple[str, ...]:
    """Logs a warning where int8 was not shown to be as good as fp32 on such a processor, and returns it."""
    if not isinstance(run, ExportedRun) or run.record.certified_on is None:
        return ()
    if run.record.certified is False:
        warning = f"{run.path.name}: no first look has shown it to be not inferior in int8; see its certificate."
        LOG.warning("%s", warning)
        return (warning,)
    there, here = map(int8_kernels, (run.record.certified_on, instruction_sets(INT8_SETS)))
    known_there, known_here = bool(run.record.certified_on), tells_instruction_sets()
    if there == here and known_there and known_here:
        return ()
    with_there, with_here = (
        (", ".join(sorted(sets)) or "none of these sets") if known else "instruction sets that are not known"
        for sets, known in ((there, known_there), (here, known_here))
    )
    claim = "not for this one" if known_there and known_here else "which may not be this one"
    warning = f"{run.path.name}: its certificate holds for a processor with {with_there}, {claim} with {with_here}."
    LOG.warning("%s", warning)
    return (warning,)


def _unlike_their_certificates(
    runs: Sequence[TrainedRun], models: Sequence[Model], engine: Engine, kept: Sequence[str]
) -> tuple[str, ...]:
    """Warns of compressed networks that are run otherwise than their certificates compared them; int8 has its own."""
    named: dict[str, list[str]] = {}
    for run, model in zip(runs, models, strict=True):
        if (claim := run.claim) is None or not claim.passes or model.precision == "int8":
            continue
        compared = {name: claim.conditions.get(name, "") for name in ("engine", "precision", "mirroring")}
        compared["engine"] = compared["engine"].partition(" ")[0]
        now = {"engine": engine, "precision": model.precision, "mirroring": named_axes(model.mirror_axes)}
        apart = [f"{name} {value}, not {now[name]}" for name, value in compared.items() if value not in ("", now[name])]
        apart += ["without post-processing that was chosen on the held-out cases"] if kept else []
        if apart:
            named.setdefault("; ".join(apart), []).append(real_path(run.path).name)
    warnings = tuple(f"{some(names)}: compared otherwise by the certificate ({how})." for how, names in named.items())
    for warning in warnings:
        LOG.warning("%s", warning)
    return warnings


def _idle_mirroring(runs: Sequence[TrainedRun], *, tta: bool) -> tuple[str, ...]:
    """Warns where mirroring is asked for and training mirrored along no axis; returns the sentence."""
    asked = [run for run in runs if tta or run.config.inference.tta]
    idle = [run for run in asked if not run.config.augmentation.spatial.mirror_axes]
    if not idle:
        return ()
    name = "--tta" if tta else "inference.tta"
    whom = "" if len(idle) == len(runs) else f" for {', '.join(str(run.path) for run in idle)}"
    cause = "training mirrored along no axis (augmentation.spatial.mirror_axes)"
    warning = f"{name} changes nothing{whom}: {cause}."
    LOG.warning("%s", warning)
    return (warning,)
