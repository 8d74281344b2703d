"""What commands say on stderr: errors and warnings, one line each, in colour only where wanted."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
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


class OutputError(Exception):
    """Standard output cannot be written: its disk is full, say."""


class Output:
    """Standard output whose failures can be told from those of files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            BrokenPipeError: nobody reads any more.
            OutputError: it cannot be written.
        """
        return self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush, with the errors of `write`."""
        self._try(self._stream.flush)

    def _try(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def silence(stream: TextIO) -> None:
    """Send what is still to be written to nowhere, so that the interpreter ends in silence."""
    with contextlib.suppress(OSError):  # a stream in memory has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


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
    with contextlib.suppress(OSError):  # nobody reads, or its disk is full: the work goes on
        if "tqdm" in sys.modules:  # a progress bar on the same terminal is drawn again below
            from tqdm import tqdm

            tqdm.write(shown, file=sys.stderr)
        else:
            print(shown, file=sys.stderr)
