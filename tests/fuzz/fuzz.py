"""Feed damaged files to every reader, and name each input that does not end in a result or a refusal.

python -m tests.fuzz.fuzz [--inputs 10000] [--seed 0] [--only KIND ...]
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from seg.ablation.store import read_results
from seg.config import load_config
from seg.config.loading import load_study
from seg.data.datasets import read_dataset
from seg.data.splits import make_splits
from seg.data.volumes import read_volume
from seg.errors import SegError
from seg.evaluation.scores import read_cases, read_evaluation
from seg.files import file_problems
from seg.inference.archive import pack, unpacked
from seg.networks import network_from_config
from seg.runs import load_weights, read_history, read_origin, read_runs
from seg.training.callbacks import check_checkpoint
from seg.training.module import SegmentationModule
from seg.workflows.manifest import StoredManifest

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "compatibility"
STUDY = ROOT / "docs" / "results" / "phantom_small"
SECONDS = 60.0
"""How long one input may take."""
MEMORY = 4 << 30
"""Bytes of address space beyond what the process has before it reads."""
NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"-inf", b"9" * 400, b"0x1F", b"1_000", b"2147483648", b"0.1", b"1e-320")
TOKENS = (b"null", b"[]", b"{}", b"true", b'""', b'"x"', b"[" * 3000, b"{a: " * 300, b"!!int ''", b"&a", b"*a", b"~")
BYTES = (b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\t", b'"', b"\n", b"'", b"../", b"=1+1", b"\x1b[2J")
FIELDS = ("<i2", "<i4", "<i8", "<f4", "<f8", ">i2", ">f4")
VALUES = (0, -1, 1, 7, 255, 32767, -32768, 2**31 - 1, -(2**31), 2**62, float("nan"), float("inf"), 1e-40, -1e38)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input: a folder with valid files, one of which is damaged, and what reads the folder."""

    name: str
    file: str
    read: Callable[[Path], object]
    text: bool = False
    oracle: Callable[[Path], object] | None = None
    """Reads the same values by other code; raises where that code refuses the file."""


def damaged(content: bytes, chance: random.Random, *, text: bool) -> bytes:
    """Changes a file in one to three places, as disks, transfers, editors and hurried programs do."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = (_damaged_text if text and chance.random() < 0.8 else _damaged_bytes)(content, chance)
    return content


def _damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    # Headers are short and decide the most.
    at = chance.randrange(min(len(content), chance.choice((64, 400, len(content)))))
    changed = bytearray(content)
    match chance.randrange(8):
        case 0:
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            changed[at] = chance.randrange(256)
        case 2:
            del changed[at:]
        case 3:
            del changed[at : at + chance.randrange(1, 65)]
        case 4:
            changed[at:at] = changed[at : at + chance.randrange(1, 65)]
        case 5:
            with np.errstate(all="ignore"):
                value = np.array([chance.choice(VALUES)]).astype(chance.choice(FIELDS)).tobytes()
            changed[at - at % 2 : at - at % 2 + len(value)] = value
        case 6:
            changed += bytes(chance.randrange(1, 5000))
        case _:
            other = chance.randrange(len(content))
            changed[at : at + 8], changed[other : other + 8] = changed[other : other + 8], changed[at : at + 8]
    return bytes(changed)


def _damaged_text(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    line = chance.randrange(len(lines))
    match chance.randrange(7):
        case 0:
            del lines[line]
        case 1:
            lines.insert(line, lines[chance.randrange(len(lines))])
        case 2:
            lines[line] = lines[line][: chance.randrange(len(lines[line]) + 1)]
        case 3:
            at = chance.randrange(len(lines[line]) + 1)
            lines[line] = lines[line][:at] + chance.choice(BYTES) + lines[line][at:]
        case 4 | 5:
            found = list(re.finditer(rb"-?[0-9][0-9.e+-]*", content))
            return _replaced(content, chance, found, chance.choice(NUMBERS + TOKENS))
        case _:
            found = list(re.finditer(rb"[A-Za-z_]\w*|\"[^\"\n]*\"", content))
            return _replaced(content, chance, found, chance.choice(TOKENS + NUMBERS))
    return b"\n".join(lines)


def _replaced(content: bytes, chance: random.Random, found: list[re.Match[bytes]], new: bytes) -> bytes:
    if not found:
        return content + new
    start, end = chance.choice(found).span()
    return content[:start] + new + content[end:]


def volume(name: str) -> Callable[[Path], object]:
    return lambda folder: read_volume(folder / name).array


def nibabel_voxels(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        array = np.asanyarray(nib.load(folder / name).dataobj)
        return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]

    return read


def whole_run(folder: Path) -> object:
    return read_runs([folder]), load_weights(folder), read_history(folder), read_origin(folder)


def packed_run(folder: Path) -> object:
    with unpacked([folder / "run.zip"]) as (path,):
        return read_runs([path]), load_weights(path)


def checkpoint(folder: Path) -> object:
    config, dataset = load_config([folder / "config.yaml"]), read_dataset(STORED / "data")
    classes = len(dataset.class_names)
    module = SegmentationModule(
        network_from_config(config.network, len(dataset.channel_names), classes),
        torch.nn.Identity(),
        lambda network, image: image,
        num_classes=classes,
        optimizer=config.optimizer,
        total_steps=config.training.steps,
    )
    check_checkpoint(folder / "checkpoints" / "last.ckpt", module, averaged=config.training.ema_decay > 0)
    return None


def splits(folder: Path) -> object:
    return make_splits(read_dataset(folder), folds=2, seed=0, splits_file=folder / "splits.json")


def write_inputs(folder: Path) -> Iterator[Kind]:
    """Writes a folder of valid files for each kind that this environment reads."""
    chance = np.random.default_rng(0)
    array = chance.integers(-500, 500, (5, 7, 9)).astype("<i2")
    for name, image in {
        "nifti.nii": nib.Nifti1Image(array, np.eye(4)),
        "nifti.nii.gz": nib.Nifti1Image(array, np.eye(4)),
        "nifti2.nii": nib.Nifti2Image(array, np.eye(4)),
        "channels.nii": nib.Nifti1Image(chance.normal(size=(3, 4, 5, 2)).astype("<f4"), np.diag((1, 2, 3, 1))),
    }.items():
        nib.save(image, folder / name)
        yield Kind(name=name, file=name, read=volume(name), oracle=nibabel_voxels(name))
    yield from _foreign(folder, array)
    for name, files in {
        "dataset": STORED / "data",
        "run": STORED / "finished",
        "killed": STORED / "killed",
        "predicted": STORED / "predicted",
        "trials": STORED / "study",
        "study": STUDY,
    }.items():
        skipped = shutil.ignore_patterns("report.*", "figures", "results.csv", "predictions", "*.html", "tensorboard")
        shutil.copytree(files, folder / name, ignore=skipped)
    (folder / "dataset" / "splits.json").write_text('[{"train": ["ball_0", "ball_1"], "val": ["ball_2"]}]')
    yield Kind(
        name="dataset.json", file="dataset/dataset.json", read=lambda at: read_dataset(at / "dataset"), text=True
    )
    yield Kind(name="splits.json", file="dataset/splits.json", read=lambda at: splits(at / "dataset"), text=True)
    (folder / "listed").mkdir()
    shutil.copytree(folder / "dataset" / "imagesTr", folder / "listed" / "imagesTr")
    shutil.copytree(folder / "dataset" / "labelsTr", folder / "listed" / "labelsTr")
    names = sorted(path.name for path in (folder / "listed" / "imagesTr").iterdir())
    rows = [f"{name[:-7]},imagesTr/{name},labelsTr/{name},p{n},{n % 2}" for n, name in enumerate(names)]
    (folder / "listed" / "manifest.csv").write_text("\n".join(["id,image,label,patient,fold", *rows, ""]))
    yield Kind(name="manifest.csv", file="listed/manifest.csv", read=lambda at: read_dataset(at / "listed"), text=True)
    for name in ("config.yaml", "model.json", "metrics.csv", "environment.json"):
        yield Kind(name=name, file=f"run/{name}", read=lambda at: whole_run(at / "run"), text=True)
    yield Kind(name="weights.pt", file="run/checkpoints/weights.pt", read=lambda at: whole_run(at / "run"))
    pack(read_runs([folder / "run"]), folder / "run.zip")
    yield Kind(name="run.zip", file="run.zip", read=packed_run)
    yield Kind(name="last.ckpt", file="killed/checkpoints/last.ckpt", read=lambda at: checkpoint(at / "killed"))
    scored: dict[str, Callable[[Path], object]] = {
        "evaluation.json": lambda at: read_evaluation(at / "run" / "evaluation.json"),
        "cases.csv": lambda at: read_cases(at / "run" / "cases.csv"),
    }
    for name, read in scored.items():
        yield Kind(name=name, file=f"run/{name}", read=read, text=True)
    manifest = "predicted/predictions.json"
    yield Kind(name="predictions.json", file=manifest, read=lambda at: StoredManifest.read(at / manifest), text=True)
    for path in sorted((ROOT / "configs").glob("*.yaml"))[:3]:
        shutil.copy(path, folder / path.name)
        yield Kind(name=f"configs/{path.name}", file=path.name, read=_config(path.name), text=True)
    shutil.copy(ROOT / "configs" / "ablation" / "phantom.yaml", folder / "ablation.yaml")
    yield Kind(name="configs/ablation", file="ablation.yaml", read=_study, text=True)
    for path in sorted((folder / "study").iterdir()):
        name = path.name
        yield Kind(name=f"study/{name}", file=f"study/{name}", read=lambda at: read_results(at / "study"), text=True)
    first = sorted((folder / "trials" / "trials").iterdir())[0]
    for path in sorted(first.iterdir()):
        name = str(path.relative_to(folder))
        yield Kind(name=f"trial/{path.name}", file=name, read=lambda at: read_results(at / "trials"), text=True)


def _config(name: str) -> Callable[[Path], object]:
    return lambda folder: load_config([folder / name])


def _study(folder: Path) -> object:
    study, problems = load_study(folder / "ablation.yaml", {})
    if problems:
        raise SegError(problems)
    return study


def _foreign(folder: Path, array: Any) -> Iterator[Kind]:
    try:
        import pydicom  # noqa: F401
        import SimpleITK as sitk  # noqa: N813
    except ImportError:
        print("NRRD, MetaImage and DICOM are left out: their packages are not installed", file=sys.stderr)
        return
    files = {"a.nrrd": False, "packed.nrrd": True, "a.mha": False, "packed.mha": True, "pair/a.mhd": False}
    (folder / "pair").mkdir()
    for name, packed in files.items():
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name), packed)
        yield Kind(name=name, file=name, read=volume(name))
    series = folder / "series"
    series.mkdir()
    from tests.data.formats.test_dicom import place, write_slice

    for number in range(3):
        write_slice(series / f"{number}.dcm", array[number], place(number), number)
    yield Kind(name="series", file="series/1.dcm", read=lambda at: read_volume(at / "series").array)


def outcome(kind: Kind, folder: Path) -> str:
    """Reads a folder; returns `read`, `refused`, `wrong voxels`, or the traceback."""
    try:
        with file_problems():
            found = kind.read(folder)
    except SegError:
        return "refused"
    except BaseException:  # also what is no Exception
        return traceback.format_exc()
    if kind.oracle is not None:
        try:
            expected = np.asarray(kind.oracle(folder))
        except Exception:  # the other reader refuses the file
            return "read"
        if not np.array_equal(np.asarray(found), expected.astype(np.asarray(found).dtype), equal_nan=True):
            return "wrong voxels"
    return "read"


def write_damaged(kind: Kind, source: Path, target: Path, seed: str) -> None:
    """Copies a folder, one of whose files is damaged; the seed decides how."""
    chance = random.Random(f"{seed} {kind.name}")
    target.mkdir(parents=True)
    top = Path(kind.file).parts[0]
    if (source / top).is_dir():
        shutil.copytree(source / top, target / top, copy_function=os.link)
    content = (source / kind.file).read_bytes()
    if kind.file.endswith(".gz") and chance.random() < 0.7:
        content = gzip.compress(damaged(gzip.decompress(content), chance, text=kind.text), 1)
    else:
        content = damaged(content, chance, text=kind.text)
    path = target / kind.file
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def read_all(kind: Kind, source: Path, work: Path, seeds: list[str]) -> dict[str, str]:
    """Reads damaged inputs in a forked process with limits; after a death or a hang another one goes on."""
    found: dict[str, str] = {}
    while len(found) < len(seeds):
        left = seeds[len(found) :]
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reader)
            os.setsid()
            _limit()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            for seed in left:
                folder = work / seed.replace(" ", "_")
                write_damaged(kind, source, folder, seed)
                said = outcome(kind, folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.write(writer, said.encode(errors="replace")[:60_000] + b"\0")
            os._exit(0)
        os.close(writer)
        pending = b""
        ended = ""
        while not ended:
            if not select.select([reader], [], [], SECONDS)[0]:
                ended = "hang"
            elif chunk := os.read(reader, 65536):
                *whole, pending = (pending + chunk).split(b"\0")
                for text in whole:
                    found[seeds[len(found)]] = text.decode(errors="replace")
            else:
                ended = "death"
        if ended == "hang":
            os.killpg(process, signal.SIGKILL)
        os.close(reader)
        status = os.waitpid(process, 0)[1]
        if len(found) < len(seeds):
            found[seeds[len(found)]] = ended if ended == "hang" else f"death (status {status})"
    return found


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fuzz(inputs: int, seed: int, only: list[str] | None = None) -> tuple[Counter[tuple[str, str]], dict[str, str]]:
    """Reads damaged inputs, as many of each kind.

    Returns:
        How many inputs of each kind ended how, and of each fault (by kind and seed) what happened.
    """
    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "valid"
        source.mkdir()
        kinds = [kind for kind in write_inputs(source) if not only or kind.name in only]
        for number, kind in enumerate(kinds):
            said = outcome(kind, source)
            assert said == "read", f"{kind.name}: the whole input must be read, got {said}"
            share = inputs // len(kinds) + (number < inputs % len(kinds))
            seeds = [f"{seed} {index}" for index in range(share)]
            for name, said in read_all(kind, source, Path(temporary) / "work", seeds).items():
                result = said if said in ("read", "refused", "wrong voxels", "hang") else said.split()[0].rstrip(":")
                result = "traceback" if result == "Traceback" else result
                counts[kind.name, result] += 1
                if result not in ("read", "refused"):
                    faults[f"{kind.name}, seed {name}"] = said
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged inputs, spread evenly over the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="kinds to damage (default: all)")
    options = parser.parse_args()
    counts, faults = fuzz(options.inputs, options.seed, options.only)
    for name, said in faults.items():
        print(f"--- {name}\n{said}")
    print("| kind | inputs | read | refused | faults |\n|---|---|---|---|---|")
    for kind in dict.fromkeys(name for name, _ in counts):
        of = {result: count for (name, result), count in counts.items() if name == kind}
        bad = sum(of.values()) - of.get("read", 0) - of.get("refused", 0)
        print(f"| {kind} | {sum(of.values())} | {of.get('read', 0)} | {of.get('refused', 0)} | {bad} |")
    print(f"{sum(counts.values())} inputs, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
