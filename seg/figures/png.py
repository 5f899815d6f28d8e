"""Grey pictures as PNG files, the same bytes for the same picture."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_UP = 2


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes a picture.

    Args:
        pixels: Brightness from 0 (black) to 255, shape (height, width), the top row first.

    Returns:
        A PNG file of 8 bits a pixel.

    References:
        Portable Network Graphics (PNG) Specification, Third Edition, W3C, 2025.
    """
    height, width = pixels.shape
    # Rows are stored as differences to the row above, which compress better; uint8 wraps as the format asks.
    rows = np.diff(pixels, axis=0, prepend=np.zeros((1, width), np.uint8))
    lines = np.insert(rows, 0, _FILTER_UP, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Wraps a part of the file with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
