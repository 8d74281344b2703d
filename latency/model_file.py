"""What a file that claims to be a model really is, told from its first bytes; and how to show it.

Model files come from strangers: whatever of them is shown is cut and made printable.
"""

from __future__ import annotations

import re

MOST_SHOWN = 60
PICKLES = frozenset({".pth", ".pt", ".ckpt", ".pkl", ".pickle", ".bin"})
"""Suffixes of PyTorch's files of weights, which may run code when they are unpickled."""

_STARTS = (
    # First: the length with which it begins may look like a pickle's first bytes.
    (re.compile(rb".{5}\x00\x00\x00\{", re.DOTALL), "a .safetensors file"),
    (re.compile(rb"PK\x03\x04"), "a PyTorch file or another zip file"),
    (re.compile(rb"\x80[\x02-\x05]"), "a PyTorch file or another pickle"),
    (re.compile(rb"\x08[\x01-\x3f][\x12\x1a\x22\x2a\x32\x3a\x42]"), "an ONNX file"),
    (re.compile(rb".{4}TFL3", re.DOTALL), "a TensorFlow Lite file"),
    (re.compile(rb"GGUF"), "a GGUF file"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff"), "a picture"),
    (re.compile(rb"\s*<(!doctype|html|\?xml|head)", re.IGNORECASE), "a web page"),
    (re.compile(rb"version https://"), "a Git LFS pointer, not the file itself"),
)


def kind_of(start: bytes) -> str | None:
    """Return what a file is by its first 16 bytes, e.g. `an ONNX file`, or None."""
    return next((kind for pattern, kind in _STARTS if pattern.match(start)), None)


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """Return a stranger's text for a sentence: printable, on one line, of at most so many signs."""
    word = str(text)
    cut = word if len(word) <= most else f"{word[: most - 3]}..."
    return "".join(sign if sign.isprintable() else "�" for sign in cut)
