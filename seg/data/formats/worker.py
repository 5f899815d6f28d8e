"""Foreign formats are read in a child process, since damaged files can kill or hang libraries in C++.

The child starts when a foreign format is first read, is kept, and is replaced when it ends. Requests and replies are
JSON; voxels follow as they are. A socket carries them: shared memory is 64 MiB in most containers.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from seg.data.formats.base import SLAB_BYTES, Block, Format, Header, OpenVolume, fault, header_of_affine
from seg.data.memory import available_bytes
from seg.errors import DataError, Problem

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SECONDS = 30.0
"""How long the process may be silent, beside the time that reading the file's bytes may take."""
START_SECONDS = 120.0
"""How long the process may take to start, on a machine that is busy."""
BYTES_PER_SECOND = 4 << 20
"""How fast even a slow disk is read."""
READY = b"ready"
OPENED = 16
"""Files whose headers are kept until their voxels are asked for: more than the channels of a case."""
START = "import sys; sys.path[:] = sys.argv[2:]; from seg.data.formats.worker import serve; serve(int(sys.argv[1]))"


class _SilentError(Exception):
    """The process has not answered in time."""


class _RefusedError(Exception):
    """The reading process refused a file; its message says why."""


@contextmanager
def open_foreign(path: Path, kind: Format) -> Iterator[OpenVolume]:
    """Opens a file by the process.

    Raises:
        DataError: The reader refuses the file, or the file made the process end or hang.
    """
    (header,) = (part for part in _WORKER.ask(path, kind, voxels=False) if isinstance(part, Header))

    def blocks() -> Iterator[Block]:
        for part in _WORKER.ask(path, kind, voxels=True):
            if isinstance(part, Block):
                yield part
            elif (part.shape, part.channels, part.dtype) != (header.shape, header.channels, header.dtype):
                raise fault(path, "changed", "must stay as it is while it is read", "another header")

    yield OpenVolume(path=path, header=header, blocks=blocks, reader_bytes=header.voxels_bytes)


class _Worker:
    """Asks the process, a request at a time, and replaces the process where it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def ask(self, path: Path, kind: Format, *, voxels: bool) -> Iterator[Header | Block]:
        """Yields the header of a file, then the parts of its voxels where they are wanted.

        Raises:
            DataError: As for :func:`open_foreign`.
        """
        seconds = SECONDS + _size(path, kind) / BYTES_PER_SECOND
        request = {
            "path": str(path.absolute()),
            "format": kind.name,
            "voxels": voxels,
            "bytes": available_bytes(),
            "seconds": seconds,
        }
        with self._lock:
            whole = False
            try:
                connection = self._connected()
                _send(connection, request)
                yield from _answers(path, connection, seconds)
                whole = True
            except _RefusedError as refusal:
                whole = True
                raise DataError([Problem(**problem) for problem in refusal.args[0]]) from None
            except (_SilentError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
                raise fault(path, "damaged", f"must be a readable {kind.name} image", self._end(error)) from error
            finally:
                if not whole:  # what it would still send is not for the next request
                    self.stop()

    def _connected(self) -> Connection:
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self._connection, other = Pipe()
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", START, str(other.fileno()), *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[other.fileno()],
                    start_new_session=True,  # Ctrl-C is for the process that asks
                )
            _received(self._connection, START_SECONDS)
        return self._connection

    def _end(self, error: Exception) -> str:
        """Says how the process ended."""
        process = self._process
        if process is None or isinstance(error, _SilentError):
            return "a reader that does not come to an end"
        self.stop()
        code = process.returncode
        return f"a reader that ended by {signal.Signals(-code).name}" if code < 0 else "a reader that ended"

    def stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)  # it may be ending, by a signal that is worth knowing
            process.kill()
            process.wait()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """Leaves the process to the process that this one is a fork of."""
        self.__init__()  # type: ignore[misc]


_WORKER = _Worker()
atexit.register(_WORKER.stop)
os.register_at_fork(after_in_child=_WORKER.forget)


def _size(path: Path, kind: Format) -> int:
    """Returns the bytes of a file with its companions, or of a folder."""
    files = path.iterdir() if path.is_dir() else (path, *kind.companions(path))
    return sum(file.stat().st_size for file in files if file.is_file())


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _answers(path: Path, connection: Connection, seconds: float) -> Iterator[Header | Block]:
    """Receives what the process says of a file."""
    header: Header | None = None
    while True:
        answer = json.loads(_received(connection, seconds))
        if "problems" in answer:
            raise _RefusedError(answer["problems"])
        if "end" in answer:
            return
        if header is None:
            header = header_of_affine(
                path,
                answer["shape"],
                answer["channels"],
                np.dtype(answer["dtype"]),
                np.array(answer["affine"], dtype=np.float64),
                answer["warnings"],
            )
            yield header
            continue
        x, y, _ = header.shape
        channels, z = answer["count"]
        array = (
            np.frombuffer(_received(connection, seconds), header.dtype).reshape(channels, z, y, x).transpose(0, 3, 2, 1)
        )
        yield Block(channel=answer["channel"], z=answer["z"], array=array)


def _received(connection: Connection, seconds: float) -> bytes:
    if not connection.poll(seconds):
        raise _SilentError
    return connection.recv_bytes()


def serve(descriptor: int) -> None:
    """Answers the requests that come over a socket until it closes."""
    from seg.data.formats import FORMATS

    connection = Connection(descriptor)
    warnings.simplefilter("ignore")
    _lower("RLIMIT_CORE", 0)
    kinds = {kind.name: kind for kind in FORMATS}
    connection.send_bytes(READY)
    opened: dict[Path, OpenVolume] = {}  # those whose voxels are likely to be asked for next
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        path, kind = Path(request["path"]), kinds[request["format"]]
        _limit(request["bytes"], request["seconds"])
        try:
            volume = opened.pop(path, None)
            if volume is None or not request["voxels"]:
                with kind.open(path) as volume:  # readers of foreign formats keep no file open
                    pass
            _send(connection, _described(volume.header))
            for block in volume.blocks() if request["voxels"] else ():
                _send_block(connection, block)
            _send(connection, {"end": True})
            if not request["voxels"]:
                opened = {path: volume, **dict(list(opened.items())[: OPENED - 1])}
        except DataError as error:
            _send(connection, {"problems": [asdict(problem) for problem in error.problems]})
        except Exception as error:  # whatever a library says of a file
            # ITK says where in its source it was before it says why.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = f"'{type(error).__name__}: {lines[-1] if lines else ''}".strip(": ") + "'"
            problem = fault(path, "damaged", f"must be a readable {kind.name} image", reason).problems[0]
            _send(connection, {"problems": [asdict(problem)]})


def _limit(memory: int | None, seconds: float) -> None:
    """Bounds the address space, where Linux counts it, and the time on a processor of what follows."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        memory = None
    if memory is not None:
        _lower("RLIMIT_AS", pages * mmap.PAGESIZE + memory)
    _lower("RLIMIT_CPU", int(time.process_time() + seconds) + 1)


def _lower(name: str, value: int) -> None:
    """Sets a limit that a later request may set anew; never above that of the environment. Windows has none."""
    if resource is not None:
        limit = getattr(resource, name)
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _described(header: Header) -> dict[str, Any]:
    return {
        "shape": header.shape,
        "channels": header.channels,
        "affine": header.affine.tolist(),
        "dtype": header.dtype.str,
        "warnings": header.warnings,
    }


def _send_block(connection: Connection, block: Block) -> None:
    channels, x, y, z = block.array.shape
    step = max(1, SLAB_BYTES // max(1, channels * x * y * block.array.itemsize))
    for first in range(0, z, step):
        slab = np.ascontiguousarray(block.array[..., first : first + step].transpose(0, 3, 2, 1))
        _send(connection, {"channel": block.channel, "z": block.z + first, "count": [channels, slab.shape[1]]})
        connection.send_bytes(slab.tobytes())
