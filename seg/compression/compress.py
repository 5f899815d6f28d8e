"""The command that makes smaller networks from a trained one, and certifies them on its held-out patients."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seg.compression import CASES, MACS
from seg.compression.certificate import (
    CERTIFICATE_FILE,
    LEAST_PATIENTS,
    LEDGER_FILE,
    Certificate,
    Look,
    Step,
    certify,
    few_patients,
    format_certificate,
    freeze,
    write_certificate,
)
from seg.compression.cuts import choose, cut, kernel_macs, project, solve_anew
from seg.compression.tuning import tune
from seg.compression.widths import Moments, Place, Projection, measure
from seg.config import ExperimentConfig
from seg.data.cases import Case, Dataset
from seg.data.datamodule import SegmentationData
from seg.data.prepare import prepare_case
from seg.data.splits import Split
from seg.errors import ConfigError, Problem, RunError
from seg.evaluation.scores import CASES_FILE, EVALUATION_FILE, CaseScore, read_cases
from seg.files import check_folder, file_problems, quoted, write_json
from seg.hardware import choose_device, choose_precision, environment
from seg.inference.windows import Windows
from seg.networks import UNet, complexity
from seg.runs import (
    MODEL_FILE,
    Origin,
    TrainedRun,
    check_task,
    fold_directories,
    open_run,
    read_origin,
    read_run,
    save_weights,
    trained_network,
    weights_digest,
)
from seg.workflows.evaluate import describe_model, score_run
from seg.workflows.inputs import read_checked

LOG = logging.getLogger(__name__)
COMPRESSION_FILE = "compression.json"
COMPRESSION_VERSION = 1
CHECKED = 5
"""One training case in so many is kept from the fit, to measure what a step changes."""


@dataclass(frozen=True, kw_only=True)
class SmallNetwork:
    """A step: a smaller network, and what it costs.

    Attributes:
        name: What it is called, as its folder.
        share: Share of the multiply-accumulates that was asked for.
        network: The network.
        macs: Multiply-accumulates of a patch.
        parameters: Learned numbers.
        ranks: Channels of the 1x1 before and behind each kernel that has any.
        predicted: Predicted loss of the cuts, before anything was solved anew, in nats a voxel.
        measured: Divergence of its prediction from the original's on training cases that it was not fitted to, in
            nats a voxel; None where there were none.
        tuned: Step of the tuning whose weights are kept; 0 for none.
    """

    name: str
    share: float
    network: UNet
    macs: int
    parameters: int
    ranks: Mapping[str, tuple[int, int]]
    predicted: float
    measured: float | None
    tuned: int


@file_problems()
def compress(
    run_dir: Path,
    output: Path | None,
    *,
    macs: Sequence[float] = MACS,
    margin: float = 0.005,
    cases: int = CASES,
    multiple: int = 1,
    tune_steps: int = 0,
    data_root: Path | None = None,
) -> Certificate | None:
    """Makes smaller networks from a trained one and certifies them on the patients that it did not see.

    Training cases alone decide what is cut. All steps are made and written down before the held-out cases are looked
    at; the steps are tested from mild to strong, and the first that does not pass ends the test.

    Args:
        run_dir: Finished run of one fold, with its scores.
        output: Folder of the smaller run directories, new; None prints what each kernel can lose, and makes nothing.
        macs: Shares of the multiply-accumulates that the steps keep, in (0, 1).
        margin: Loss of Dice that still counts as not inferior, > 0.
        cases: Training cases that are measured, >= 1.
        multiple: Widths are multiples of this number.
        tune_steps: Steps of training towards the original's probabilities, >= 0; weights are kept only where they are
            better on the measured cases that are kept from the fit.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        The certificate; None without `output`.

    Raises:
        ConfigError: A share is out of range or beyond reach, or there are too few cases to tune by.
        RunError: The run is not finished, has no held-out cases or scores, is compressed already, or the output exists.
        DataError: Cases cannot be read.
    """
    shares = _checked_shares(macs)
    if output is not None:
        _check_new(output)
    run, origin, split = _read(run_dir)
    config = run.config
    if data_root is not None:
        config = replace(config, data=replace(config.data, root=str(data_root)))
    dataset, _ = read_checked(config.data, progress=config.training.progress)
    check_task(
        run_dir,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        source=config.data.root,
        remedy="it is another data set, check --data.root",
    )
    if output is not None and (few := few_patients(dataset, split.validation)) is not None:
        LOG.warning("%d held-out patients are too few for a certificate, which needs %d", few, LEAST_PATIENTS)
    network = trained_network(config.network, len(run.channel_names), len(run.class_names), run_dir)
    assert isinstance(network, UNet)
    chosen = _spread([case for case in dataset.cases if case.id in set(split.train)], cases)
    images = [_window(case, config) for case in chosen]
    fitted = [image for number, image in enumerate(images) if number % CHECKED or len(images) == 1]
    kept_back = [image for number, image in enumerate(images) if not number % CHECKED and len(images) > 1]
    LOG.info("measuring %d kernels on %d training cases", len(_kernels(network)), len(fitted))
    if tune_steps and not kept_back:
        rule = "must be 2 or more where networks are tuned, as one is kept to judge by"
        raise ConfigError(Problem("cases", "range", rule, str(len(images)), "measure more cases, or do not tune"))
    places = measure(network, fitted, seed=config.seed)
    projections = project(places)
    print(format_places(places, projections))
    if output is None:
        return None
    steps = []
    for share in shares:
        LOG.info("making the step of %.3g of the multiply-accumulates", share)
        step = _step(network, config, places, projections, share, fitted, multiple)
        tuned = 0
        if tune_steps:
            batches = _batches(config, dataset, split, chosen[::CHECKED], tune_steps, output)
            judge = partial(divergence, network, images=kept_back)
            tuned = tune(network, step.network, batches, judge, steps=tune_steps)
        measured = divergence(network, step.network, images=kept_back) if kept_back else None
        steps.append(replace(step, tuned=tuned, measured=measured))
    directories = {step.name: output / step.name for step in steps}
    digests = _write(output, run, config, dataset, origin, steps)
    whole = complexity(network.in_channels, network.out_channels, config.network, shape=config.patches.size)
    record = {
        "schema_version": COMPRESSION_VERSION,
        "original": {**run.description(), "macs": whole.macs, "parameters": whole.parameters},
        "patch_size": list(config.patches.size),
        "cases": [case.id for case in chosen],
        "kernels": [_described(place, *projections[place.name]) for place in places],
        "steps": [
            {
                "name": step.name,
                "share": step.share,
                "macs": step.macs,
                "parameters": step.parameters,
                "predicted_loss": step.predicted,
                "measured_divergence": step.measured,
                "tuned_steps": step.tuned,
                "ranks": {name: list(ranks) for name, ranks in step.ranks.items()},
                "weights_sha256": digests[step.name],
            }
            for step in steps
        ],
    }
    write_json(output / COMPRESSION_FILE, record)
    print(format_steps(steps, whole.macs, whole.parameters))
    look = Look(
        original=(weights_digest(run_dir),),
        margin=margin,
        steps=tuple(Step(name=name, sha256=digest) for name, digest in digests.items()),
    )

    def scores(step: Step) -> list[CaseScore]:
        target = directories[step.name]
        small = replace(config, network=next(one.network.config for one in steps if one.name == step.name))
        score_run(target, small, dataset, split)
        return read_cases(target / CASES_FILE)

    number = freeze(run_dir / LEDGER_FILE, look)
    original = read_cases(run_dir / CASES_FILE)
    certificate = certify(look, original, scores, number=number, conditions=_conditions(config))
    write_certificate(output / CERTIFICATE_FILE, certificate)
    print(f"{format_certificate(certificate)}\ncertificate: {output / CERTIFICATE_FILE}")
    if certificate.certified is not None:
        best = shlex.quote(str(directories[certificate.certified]))
        print(f"next: seg predict --run_dir {best} --input SCANS --output LABEL_MAPS")
    return certificate


def _checked_shares(macs: Sequence[float]) -> list[float]:
    problems = [
        Problem("macs", "range", "must be shares in (0, 1)", f"{share:g}", "give what is kept, as in 0.5")
        for share in macs
        if not 0 < share < 1
    ]
    if not macs or len(set(macs)) < len(macs):
        rule = "must be one share or more, each once"
        problems.append(Problem("macs", "repeated", rule, ", ".join(f"{share:g}" for share in macs) or "none"))
    if problems:
        raise ConfigError(problems)
    return sorted(macs, reverse=True)


def _check_new(output: Path) -> None:
    check_folder(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        rule, remedy = "must be absent or an empty folder", "choose another --output"
        raise RunError(Problem(quoted(str(output)), "exists", rule, "other files", remedy))


def _read(run_dir: Path) -> tuple[TrainedRun, Origin, Split]:
    """Reads a run that can be compressed: what it was made from, and its two sides."""
    where = quoted(str(run_dir))
    if folds := fold_directories(run_dir):
        rule, value = "must be a single run", f"{len(folds)} folds"
        raise RunError(Problem(where, "folds", rule, value, "compress each of them"))
    run = read_run(run_dir)
    for name in (EVALUATION_FILE, CASES_FILE):
        if not (run_dir / name).is_file():
            rule, remedy = "must have scores of held-out cases", "evaluate it, or compress a run of a fold"
            raise RunError(Problem(where, "scores", rule, f"no {name}", remedy))
    origin = read_origin(run_dir)
    if origin is None or origin.split is None:
        rule, remedy = "must have a record of its cases", "train it anew with this version"
        raise RunError(Problem(where, "split", rule, "a run of an earlier version", remedy))
    widths = run.config.network.widths
    if widths is not None and (widths.encoder_ranks or widths.decoder_ranks):
        rule, remedy = "must have no 1x1 around its kernels yet", "compress the network that it was made from"
        raise RunError(Problem(where, "compressed", rule, "a compressed network", remedy))
    return run, origin, origin.split


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """Chooses cases evenly from a list."""
    count = min(count, len(cases))
    return [cases[number * len(cases) // count] for number in range(count)]


def _window(case: Case, config: ExperimentConfig) -> Tensor:
    """Returns the window (1, C, X, Y, Z) of a case, of the training patches' size, that holds the most foreground."""
    array, reference = prepare_case(case, config.data)
    image, label = torch.from_numpy(array), torch.from_numpy(reference)
    windows = Windows.over(image.shape[1:], config.patches.size, config.inference.overlap)
    starts = [(x, y, z) for x in windows.starts[0] for y in windows.starts[1] for z in windows.starts[2]]
    best = max(starts, key=lambda start: int((windows.crop(label, start) > 0).sum()))
    window: Tensor = windows.crop(image, best)
    return window[None]


def _kernels(network: UNet) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv3d) and max(module.kernel_size) > 1
    ]


def _step(
    network: UNet,
    config: ExperimentConfig,
    places: Sequence[Place],
    projections: Mapping[str, tuple[Projection, Projection]],
    share: float,
    fitted: Sequence[Tensor],
    multiple: int,
) -> SmallNetwork:
    ends, shape = (network.in_channels, network.out_channels), config.patches.size
    whole = complexity(*ends, config.network, shape=shape).macs / (shape[0] * shape[1] * shape[2])
    choice = choose(places, projections, (1 - share) * whole, multiple=multiple)
    smaller = cut(network, choice.ranks, projections)
    solve_anew(network, smaller, fitted, seed=config.seed)
    cost = complexity(*ends, smaller.config, shape=shape)
    return SmallNetwork(
        name=f"macs_{share:g}",
        share=share,
        network=smaller,
        macs=cost.macs,
        parameters=cost.parameters,
        ranks=choice.ranks,
        predicted=choice.loss,
        measured=None,
        tuned=0,
    )


def _batches(
    config: ExperimentConfig, dataset: Dataset, split: Split, kept_back: Sequence[Case], steps: int, output: Path
) -> Iterator[Tensor]:
    """Yields augmented training images of all training patients but those that are kept back."""
    patients = {case.patient or case.id for case in kept_back}
    seen = set(split.train)
    cases = tuple(c.id for c in dataset.cases if c.id in seen and (c.patient or c.id) not in patients)
    if not cases:
        rule, remedy = "must leave training patients to tune on", "tune on a run of more patients"
        raise ConfigError(Problem("tune_steps", "patients", rule, "none", remedy))
    training = replace(config.training, steps=steps, validate_every=steps, accumulate=1, device="cpu")
    tuning = replace(config, training=training)
    data = SegmentationData(tuning, dataset, Split(train=cases, validation=()), output / "cache")
    data.setup("fit")
    for batch in data.train_dataloader():
        image: Tensor = data.augmented(batch)["image"]
        yield image


def divergence(network: UNet, other: UNet, *, images: Sequence[Tensor]) -> float:
    """Returns the Kullback-Leibler divergence of a network's prediction from another's, in nats a voxel."""
    total = 0.0
    with torch.no_grad():
        for image in images:
            p, q = (one(image).double().log_softmax(1) for one in (network, other))
            total += float((p.exp() * (p - q)).sum(1).mean())
    return total / len(images)


def _write(
    output: Path,
    run: TrainedRun,
    config: ExperimentConfig,
    dataset: Dataset,
    origin: Origin,
    steps: Sequence[SmallNetwork],
) -> dict[str, str]:
    """Writes every step as a run directory; returns the digest of its weights by name."""
    computed_with = environment(torch.device("cpu"), "fp32")
    made_from = replace(origin, computed_with=computed_with, initial_weights=weights_digest(run.path))
    digests = {}
    for step in steps:
        target = output / step.name
        small = replace(config, network=step.network.config)
        (target / "checkpoints").mkdir(parents=True)
        save_weights(step.network, target, channel_names=run.channel_names, class_names=run.class_names)
        open_run(small, target, made_from)
        write_json(target / MODEL_FILE, describe_model(target, small, dataset, None))
        digests[step.name] = weights_digest(target)
    return digests


def _conditions(config: ExperimentConfig) -> dict[str, str]:
    device = choose_device(config.training.device)
    return {
        "engine": "torch",
        "device": device.type,
        "precision": choose_precision(config.training.precision, device),
        "mirroring": "on" if config.inference.tta else "off",
    }


def _described(place: Place, before: Projection, behind: Projection) -> dict[str, Any]:
    sides = {"before": (place.before, before), "behind": (place.behind, behind)}
    return {
        "name": place.name,
        "taps": place.taps,
        "macs_per_voxel": kernel_macs(place),
        **{
            side: {"channels": moments.channels, "predicted_loss_by_width": found.loss.tolist()}
            for side, (moments, found) in sides.items()
        },
    }


def format_places(places: Sequence[Place], projections: Mapping[str, tuple[Projection, Projection]]) -> str:
    """Formats what each kernel can lose before and behind, at half and at a quarter of its channels."""
    whole = sum(map(kernel_macs, places))
    header = f"{'kernel':28}{'work':>6}  {'reads':>5}{'1/2':>21}{'1/4':>21}  {'writes':>6}{'1/2':>21}{'1/4':>21}"
    lines = ["predicted loss of a narrower map, in millionths of a nat a voxel (standard error over cases)", header]
    for place in places:
        before, behind = projections[place.name]
        reads, writes = _losses(place.before, before), _losses(place.behind, behind)
        lines.append(
            f"{place.name:28}{kernel_macs(place) / whole:6.1%}  {place.before.channels:5}{reads}"
            f"  {place.behind.channels:6}{writes}"
        )
    return "\n".join(lines)


def _losses(moments: Moments, projection: Projection) -> str:
    cells = []
    for divisor in (2, 4):
        rank = moments.channels // divisor
        if rank < 1:
            cells.append(f"{'-':>21}")
            continue
        found = 1e6 * moments.loss(projection.left[:, :rank] @ projection.right[:, :rank].T)
        spread = f" ({float(found.std() / len(found) ** 0.5):.2g})" if len(found) > 1 else ""
        cells.append(f"{f'{float(found.mean()):.3g}{spread}':>21}")
    return "".join(cells)


def format_steps(steps: Sequence[SmallNetwork], macs: int, parameters: int) -> str:
    """Formats the steps beside the original."""
    lines = [f"{'step':12}{'GMAC':>8}{'parameters':>12}{'predicted loss':>16}{'measured':>14}{'tuned':>7}"]
    lines.append(f"{'original':12}{macs / 1e9:8.3f}{parameters:12,}")
    for step in steps:
        measured = "not measured" if step.measured is None else f"{step.measured:.3g}"
        cost = f"{step.name:12}{step.macs / 1e9:8.3f}{step.parameters:12,}"
        lines.append(f"{cost}{step.predicted:16.3g}{measured:>14}{step.tuned or '-':>7}")
    lines.append("losses in nats a voxel: predicted of the cuts alone, measured on other training cases at the end")
    return "\n".join(lines)
