"""A picture as PNG (W3C PNG specification, 2nd edition): 8-bit colours of a palette, one zlib stream.

What there is to it is three chunks and the standard library's zlib; a library for images would be the largest of all
that pvstub needs, for nothing else. Text is drawn with letters of 3 by 5 dots.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from stub.trace.pagetables.picture import BACKGROUND, CELL, INK, Picture, Text

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3  # colour type
_DOT = 2  # pixels of a letter's dot
_EMPTY = 255

# Five rows of three dots each, an octal digit a row.
_LETTERS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "a": "25755", "b": "65656", "c": "34443", "d": "65556", "e": "74647", "f": "74644",
    "g": "34553", "h": "55755", "i": "72227", "j": "11152", "k": "55655", "l": "44447", "m": "57755", "n": "65555",
    "o": "25552", "p": "65644", "q": "25563", "r": "65655", "s": "34216", "t": "72222", "u": "55557", "v": "55552",
    "w": "55775", "x": "55255", "y": "55222", "z": "71247", " ": "00000", "-": "00700", ".": "00002", ",": "00024",
    ":": "02020", ";": "02024", "/": "11244", "(": "12221", ")": "42224", "+": "02720", "=": "07070", "'": "22000",
    "_": "00007", ">": "42124",
}  # fmt: skip
_UNKNOWN = "71202"

Canvas = npt.NDArray[np.uint8]


def render(picture: Picture) -> bytes:
    """The file's content."""
    colours: dict[tuple[int, int, int], int] = {BACKGROUND: 0, INK: 1}
    canvas: Canvas = np.zeros((picture.height, picture.width), dtype=np.uint8)
    for cells in picture.cells:
        numbers = np.zeros(256, dtype=np.uint8)
        for kind, (_, colour) in enumerate(cells.palette):
            numbers[kind] = colours.setdefault(colour, len(colours))
        dots = np.where(cells.kinds == _EMPTY, 0, numbers[cells.kinds]).repeat(CELL, axis=0).repeat(CELL, axis=1)
        _paste(canvas, cells.x, cells.y, dots.astype(np.uint8))
    for text in picture.texts:
        _paste(canvas, text.x, text.y, _dots(text))
    return _file(canvas, list(colours))


def _paste(canvas: Canvas, x: int, y: int, dots: Canvas) -> None:
    """Put ``dots`` on the canvas, cut where they reach past it."""
    height, width = min(len(dots), len(canvas) - y), min(dots.shape[1], canvas.shape[1] - x)
    if height > 0 and width > 0:
        canvas[y : y + height, x : x + width] = dots[:height, :width]


def _dots(text: Text) -> Canvas:
    rows = [[int(digit) for digit in _LETTERS.get(letter, _UNKNOWN)] for letter in text.text.lower()]
    bits = np.array(rows, dtype=np.uint8).reshape(len(rows), 5, 1) >> np.array([2, 1, 0], dtype=np.uint8) & 1
    spaced = np.concatenate([bits, np.zeros((len(rows), 5, 1), dtype=np.uint8)], axis=2)
    line = spaced.transpose(1, 0, 2).reshape(5, -1)
    return line.repeat(_DOT, axis=0).repeat(_DOT, axis=1)


def _file(canvas: Canvas, colours: list[tuple[int, int, int]]) -> bytes:
    height, width = canvas.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), canvas], axis=1)  # filter 0 in front of each
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", head),
            _chunk(b"PLTE", bytes(part for colour in colours for part in colour)),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
