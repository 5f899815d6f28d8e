"""A server on this machine that sends a small archive, breaks off, and knows ranges or not."""

from __future__ import annotations

import io
import os
import tarfile
from http.server import BaseHTTPRequestHandler, HTTPServer

VOXELS = os.urandom(300_000)


class Server(HTTPServer):
    """Serves one file.

    Attributes:
        content: The file.
        ranges: Whether ranges are understood.
        breaks: Bytes after which each of the next answers breaks off.
        asked: The Range header of each request.
    """

    content: bytes
    ranges: bool
    breaks: list[int]
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        whole, start = self.server.content, 0
        if self.path != "/tiny.tar":  # asks for the code that it names
            self.send_error(int(self.path[1:]))
            return
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        body = whole[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks.pop(0)] if self.server.breaks else body)

    def log_message(self, format, *args):
        pass


def packed(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


TINY = packed(
    {
        "Task00_Tiny/dataset.json": b"{}",
        "Task00_Tiny/imagesTr/a.nii.gz": VOXELS,
        "Task00_Tiny/imagesTr/._a.nii.gz": b"of macOS",
        "._Task00_Tiny": b"of macOS",
    }
)
