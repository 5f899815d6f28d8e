"""Fill the disk under a training, a prediction and a study, and compare what they end with once there is room.

python -m tests.fuzz.disk [--sizes 12] [--only KIND ...]

Each command writes into a file system in memory that is too small, which takes root on Linux. It must end with exit
code 1 or 2 and a sentence about the want of room, without a traceback. Then the file system grows, and the same command
must end with the results of a run that always had room.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.kills import KINDS, STORED, Kind, different, prepare, results, start

SECONDS = 600.0
ROOM_KIB = 1 << 20
WANT_OF_ROOM = "No space left on device"
PREDICTION = Kind(
    name="prediction",
    arguments=("predict", "--run_dir", str(STORED / "finished"), "--input", "data/imagesTr", "--skip_existing"),
    directory="--output",
)
COMMANDS = (*KINDS, PREDICTION)


@contextmanager
def file_system(folder: Path, kib: int) -> Iterator[Callable[[int], object]]:
    """Lays a file system of some KiB over a folder for the time of a block; gives a function that changes its size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=True)
    try:
        yield lambda kib: subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def run(kind: Kind, work: Path, directory: Path) -> tuple[int, str]:
    """Runs a command to its end; returns its exit code and what it printed."""
    with (work / "printed").open("w+b") as printed:
        process = start(kind, work, directory, printed)
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:  # a fault of the command, or of a machine that is too busy
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        printed.seek(0)
        return code, printed.read().decode()


def size_kib(directory: Path) -> int:
    """Returns the room that the files of a directory take in a file system of pages of 4 KiB."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in directory.rglob("*") if path.is_file())


def check(kind: Kind, sizes: int, work: Path) -> tuple[list[str], int]:
    """Runs a command in file systems of some sizes; returns what is wrong, and how often there was too little room."""
    code, printed = run(kind, work, work / "whole")
    if code:
        return [f"with room it ended with {code}: {printed[-2000:]}"], 0
    expected, needed = results(work / "whole"), size_kib(work / "whole")
    assert expected, "a run with room leaves weights, label maps or tables"
    faults: list[str] = []
    full = 0
    for number in range(sizes):
        kib = max(4, round(needed * (number + 0.5) / sizes))
        disk = work / f"disk_{number}"
        with file_system(disk, kib) as resize:
            code, printed = run(kind, work, disk / "out")
            full += code != 0
            if code not in (0, 1, 2) or "Traceback" in printed or (code and WANT_OF_ROOM not in printed):
                faults.append(f"{kib} KiB: exit code {code}: {printed[-2000:]}")
            if code == 0:
                faults += [f"{kib} KiB, code 0: {name}" for name in different(expected, results(disk / "out"))]
            resize(ROOM_KIB)
            code, printed = run(kind, work, disk / "out")
            if code:
                faults.append(f"{kib} KiB, then room: exit code {code}: {printed[-2000:]}")
            faults += [f"{kib} KiB, then room: {name}" for name in different(expected, results(disk / "out"))]
            hidden = [path for path in disk.rglob(".*") if path.is_file()]
            faults += [f"{kib} KiB, then room: {path.name} was left" for path in hidden]
    return faults, full


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=12, help="sizes of the file system, up to what the command leaves")
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in COMMANDS])
    options = parser.parse_args(arguments)
    failed = False
    for kind in COMMANDS:
        if options.only and kind.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            faults, full = check(kind, options.sizes, Path(folder))
        head = f"{kind.name}: {options.sizes} sizes, {full} too small, {len(faults)} faults"
        print(head, *faults[:20], sep="\n  ", flush=True)
        failed |= bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
