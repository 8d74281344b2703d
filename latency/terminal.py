"""What commands say on stderr: errors and warnings, one line each, in colour only where wanted."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_RED, _YELLOW, _PLAIN = "\033[1;31m", "\033[1;33m", "\033[0m"
_OURS = r"(latency|mfagan|export|nas)\b"


def wants_colour(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that shows colours, and its user has not said no.

    `NO_COLOR`, set to anything, switches them off (no-color.org), as `TERM=dumb` does.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def is_dumb() -> bool:
    """Tell whether the terminal says that it can neither show colours nor move the cursor."""
    return os.environ.get("TERM", "") in ("", "dumb")


def fail(prog: str, text: str) -> None:
    """Print an error as one line."""
    _print(prog, text, _RED)


def warn(prog: str, text: str) -> None:
    """Print a warning as one line."""
    _print(prog, f"warning: {text}", _YELLOW)


def accept_every_name() -> None:
    """Let stdout show names that its encoding lacks, escaped, as stderr does from the start."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not one in memory
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def warnings_as_lines(prog: str) -> Iterator[None]:
    """Show what our rooms warn of as one line each, once, and nothing of other packages' warnings.

    A warning of torch's or onnx's is about their use, which is not the user's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=_OURS)
        warnings.showwarning = lambda message, *_, **__: warn(prog, str(message))
        yield


def _print(prog: str, text: str, colour: str) -> None:
    if sys.stderr is None:  # closed by the shell (`2>&-`)
        return
    line = " ".join(text.split())
    shown = f"{prog}: {line}"
    if wants_colour(sys.stderr):
        shown = f"{colour}{prog}:{_PLAIN} {line}"
    if "tqdm" in sys.modules:  # a progress bar on the same terminal is drawn again below the line
        from tqdm import tqdm

        tqdm.write(shown, file=sys.stderr)
    else:
        print(shown, file=sys.stderr)
