"""Exports a trained network in int8 and certifies what that costs on the held-out patients."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from seg.compression.certificate import (
    LEAST_PATIENTS,
    LEDGER_FILE,
    Certificate,
    Look,
    Step,
    certify,
    check_ledger,
    few_patients,
    format_certificate,
    freeze,
    write_certificate,
)
from seg.compression.comparing import mirroring
from seg.config import ExperimentConfig
from seg.config.loading import content_digest
from seg.data.cache import PreparedDataset
from seg.data.cases import Dataset
from seg.data.patches import TrainingPatches
from seg.data.splits import Split
from seg.data.streams import Stream, generator
from seg.errors import Problem, RunError
from seg.files import file_problems, quoted, write_bytes
from seg.hardware import INSTRUCTION_SETS, code_version, instruction_sets, package_version, processor_name
from seg.inference.engines import Voxels
from seg.inference.export import compare, export_network, export_record, write_record
from seg.inference.exported import read_export, record_path
from seg.inference.predictor import Predictor, load_predictor
from seg.inference.quantise import INT8_SETS, KEPT, OVERFLOW_FIX, PRESET, check_quantiser, quantise
from seg.runs import TrainedRun, read_run, warn_uncertified
from seg.words import counted, dimensions
from seg.workflows.evaluate import check_unseen, predictor_scores, read_held_out
from seg.workflows.export import check_target, default_file

LOG = logging.getLogger(__name__)
ENDING = "_int8.xml"
INT8 = "int8"
"""Name of the step in int8; behind an underscore, the end of the name of a step that was made from another."""
CERTIFICATE_ENDING = ".certificate.json"
CERTIFIED_SETS = tuple(dict.fromkeys((*INSTRUCTION_SETS, *INT8_SETS)))
"""Instruction sets that are named, where the processor has them, for what int8 was compared on."""
CROPS = 40
"""Training crops that ranges are measured on."""
MARGIN = 0.002
"""Loss of Dice that still counts as not inferior, unless another is asked for."""


@file_problems()
def export_int8(
    run_dir: Path,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    data_root: Path | None = None,
    margin: float = MARGIN,
    allow_inferior: bool = False,
) -> Path:
    """Exports a trained run for OpenVINO in int8, where held-out patients show that it loses less than a margin.

    The network in fp32 and that in int8 both predict the run's held-out cases by OpenVINO, with the same windows,
    mirroring and clean-up.

    Args:
        run_dir: Finished run directory with held-out cases.
        output: The XML file; None is the run directory's name with ``_int8.xml``.
        overwrite: Whether files that are there are replaced.
        data_root: Folder of the data set; None is the one in the run's configuration.
        margin: Loss of Dice, of each class, that still counts as not inferior, > 0.
        allow_inferior: Whether the network is written also where that is not shown.

    Returns:
        The file to predict with.

    Raises:
        SegError: The run, its data set or the file cannot be used; or the network may be inferior, and
            nothing was written but the ledger in the run directory.
    """
    target = output or default_file(run_dir, ENDING)
    beside = target.with_name(target.name + CERTIFICATE_ENDING)
    check_target(target, "openvino", overwrite=overwrite, beside=[beside])
    run = read_run(run_dir)
    warn_uncertified([run])
    check_quantiser()
    check_ledger(run.path / LEDGER_FILE)
    configs, dataset, splits, _ = read_held_out([run.path], data_root=data_root)
    check_unseen(splits, dataset)
    config, split = configs[run.path], splits[run.path]
    if (few := few_patients(dataset, split.validation)) is not None and not allow_inferior:
        rule, remedy = (
            f"must be at least {LEAST_PATIENTS} for a certificate",
            "write it all the same by --allow_inferior",
        )
        raise RunError(Problem("held-out patients", "too_few", rule, str(few), remedy))
    with tempfile.TemporaryDirectory() as folder:
        plain, coarse = (Path(folder) / name / target.name for name in ("fp32", "int8"))
        export_network(run, plain, "openvino")
        _quantise(run, plain, training_crops(config, dataset, split), coarse)
        certificate = _certify(run, plain, coarse, config, dataset, split, margin)
        print(format_certificate(certificate))
        if certificate.passed is None and not allow_inferior:
            rule = f"must be shown to lose less than {margin:g} Dice in every class to be written"
            remedy = "take the network in fp32, or write it all the same by --allow_inferior"
            raise RunError(Problem(quoted(str(target)), "inferior", rule, certificate.steps[0].verdict, remedy))
        write_certificate(beside, certificate)
        mark(coarse, certified=certificate.proves(INT8))
        _copy(coarse, target)
    print(f"exported: {target}\nrecord: {record_path(target)}\ncertificate: {beside}")
    return target


def training_crops(config: ExperimentConfig, dataset: Dataset, split: Split, count: int = CROPS) -> list[Voxels]:
    """Returns the first patches of training as they are cut, not augmented, each f32 (1, C, X, Y, Z).

    Args:
        config: The experiment.
        dataset: The data set.
        split: Its training cases.
        count: Number of patches; no more cases than that are prepared.
    """
    order = generator(config.seed, Stream.ORDER, 0).permutation(len(split.train))[:count]
    by_id = {case.id: case for case in dataset.cases}
    cases = [by_id[split.train[place]] for place in order if split.train[place] in by_id]
    # Every case is read once or a few times, so that a cache would cost more than it saves.
    prepared = PreparedDataset(dataset, cases, replace(config.data, cache="none"), Path(), progress=False)
    patches = TrainingPatches(prepared, config.patches, config.seed)
    return [np.asarray(patches[position]["image"], dtype=np.float32)[None] for position in range(count)]


def _quantise(run: TrainedRun, plain: Path, crops: list[Voxels], coarse: Path) -> None:
    """Writes the network in int8 with its record, which says how far its logits are from those of torch."""
    LOG.info("quantising by %s", counted(len(crops), "training crop"))
    coarse.parent.mkdir()
    quantise(plain, crops, coarse)
    checks = compare(run.network(), coarse, "openvino", run)
    files = [coarse.with_suffix(".bin"), coarse]
    write_record(coarse, export_record(run, "openvino", checks, files, arithmetic="int8"))


def write_int8(run: TrainedRun, target: Path, dataset: Dataset, split: Split) -> None:
    """Writes a network in int8 with its record, which says that it is not certified.

    Args:
        run: The run, with the folder where its data set lies now.
        target: The XML file of OpenVINO, whose weights are written beside it.
        dataset: The data set.
        split: The cases, of which the training cases give the ranges.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, coarse = (Path(folder) / name / target.name for name in ("fp32", "int8"))
        export_network(run, plain, "openvino")
        _quantise(run, plain, training_crops(run.config, dataset, split), coarse)
        mark(coarse, certified=False)
        _copy(coarse, target)


def mark(file: Path, *, certified: bool) -> None:
    """Writes into the record of an int8 file whether a first look certified it, and on which instruction sets."""
    changes = {"certified": certified, "certified_on": tuple(instruction_sets(CERTIFIED_SETS))}
    write_record(file, read_export(file).record.model_copy(update=changes))


def quantising(config: ExperimentConfig) -> dict[str, str]:
    """Returns the conditions of a certificate for int8: how the network is quantised, and on which instruction sets."""
    return {
        "instruction sets": ", ".join(instruction_sets(CERTIFIED_SETS)) or "not known",
        "quantised by": f"nncf {package_version('nncf')}, {counted(CROPS, 'training crop')}, seed {config.seed}",
        "overflow fix": OVERFLOW_FIX,
        "preset": PRESET,
        "kept in fp32": ", ".join(KEPT),
    }


def _copy(made: Path, target: Path) -> None:
    """Copies an exported network to another path: its files first, its record last."""
    for file in (made.with_suffix(".bin"), made):
        write_bytes(target.with_name(file.name), file.read_bytes())
    write_record(target, read_export(made).record)


def _certify(
    run: TrainedRun,
    plain: Path,
    coarse: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    margin: float,
) -> Certificate:
    """Compares the two networks on the held-out cases."""
    first, second = _predictor(plain), _predictor(coarse)
    tested = {
        "engine": f"openvino {package_version('openvino')}, both",
        "windows": f"{dimensions(first.models[0].window)}, {first.models[0].batch} a pass",
        "mirroring": mirroring(config),
        "largest component": ", ".join(first.chosen) or "as configured",
        "network": f"SHA-256 {read_export(coarse).record.files[coarse.with_suffix('.bin').name]}",
    }
    conditions = {**tested, **quantising(config), "processor": processor_name()}
    # Kernels of other processors have other sums. The version of this code does not count: the file made again is the
    # same look.
    step = Step(name=INT8, sha256=content_digest({**conditions, "cases": split.validation}))
    look = Look(original=(run.description()["weights_sha256"],), margin=margin, steps=(step,))
    number = freeze(run.path / LEDGER_FILE, look)
    original = predictor_scores(first, config, dataset, split, "fp32")
    return certify(
        look,
        original,
        lambda step: predictor_scores(second, config, dataset, split, step.name),
        number=number,
        conditions={**conditions, "segnarrow": code_version()},
    )


def _predictor(file: Path) -> Predictor:
    """Loads an exported network for OpenVINO on the CPU, without a second warning about its certificate."""
    run = replace(read_export(file), certificate=None)
    return load_predictor([run], device="cpu", tta=False, probabilities=False, engine="openvino")
