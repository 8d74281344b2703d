"""What every command shares: a parser that names the nearest flag, exit statuses, common flags.

Exit status: 0 done, 1 failed, 2 misused, 130 interrupted, 129 and 143 ended by SIGHUP or SIGTERM,
141 nobody reads the output any more. A user's mistake is one sentence on stderr and no traceback
unless `--debug`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from latency.signals import INTERRUPTED, TerminatedError, ending_by_signals, ignore_signals
from latency.terminal import (
    Output,
    OutputError,
    accept_every_name,
    fail,
    silence,
    warnings_as_lines,
)

DISTRIBUTION = "mfagan"
THREADS_PER_CORE = 4
"""`--threads` may ask for so many times the cores there are; far more of them only hang."""
_MEMORY_FLAGS = ("--tile", "--batch", "--patch")
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "failed to map segment",
)
Command = Callable[[argparse.Namespace], int]


class FailureError(Exception):
    """The work could not be done although the command was used rightly (exit status 1)."""


def version() -> str:
    """Return the installed version, or 'unknown' when run from sources that are not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence naming the nearest flag, exit status 2.

    Args:
        args: as for `argparse.ArgumentParser`.
        any_name: take names of files that are not UTF-8, which no file of results can hold.
        kwargs: as for `argparse.ArgumentParser`.
    """

    def __init__(self, *args: object, any_name: bool = False, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        self._words: list[str] = []
        self._any_name = any_name
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse what is known; remember the words, for the sentence of an error."""
        self._words = list(sys.argv[1:] if args is None else args)
        for before, word in zip(["", *self._words], self._words, strict=False):
            if not word or (word.startswith("--") and word.endswith("=")):
                name = word or before
                self.error(f"an empty text was given after '{name}'; is a variable unset?")
            if not self._any_name and any("\udc80" <= letter <= "\udcff" for letter in word):
                self.error(f"{word!a} is not a name in UTF-8; rename that file or folder")
        return super().parse_known_args(self._words, namespace)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, and refuse unknown arguments with the nearest flag."""
        parsed, unknown = self.parse_known_args(args, namespace)  # type: ignore[no-untyped-call]
        if unknown:
            flag, known = unknown[0].split("=")[0], self._known(parsed)
            if flag in known:  # a command's own, given before its name
                self.error(f"'{flag}' belongs after the command's name")
            self.error(_unknown(unknown[0], known))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with status 2."""
        known = self._option_string_actions
        wrong = [w for w in self._words if w.startswith("--") and w.split("=")[0] not in known]
        if wrong and " are required: " in message:  # the required flag may be the misspelt one
            message = _unknown(wrong[0], known)
        fail(self.prog, f"{message} (--help shows the usage)")
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:  # argparse would keep silent about an output that cannot be written
            (file or sys.stderr).write(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(map(str, action.choices))
        raise argparse.ArgumentError(
            action, f"'{value}' is not one of {', '.join(known)}{nearest(str(value), known)}"
        )

    def _known(self, parsed: argparse.Namespace) -> list[str]:
        flags = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(parsed, action.dest, None) or "")
                flags += chosen._option_string_actions if chosen else action.choices
        return flags


def _unknown(word: str, known: Iterable[str]) -> str:
    flag = word.split("=")[0]
    known = sorted(known)
    longer = [k for k in known if k.startswith(flag)]
    ending = [k for k in known if len(flag) > 2 and k.endswith(flag[1:])]  # --lr: --pixel-lr
    hint = nearest(flag, known)
    if 1 <= len(ending) <= 3 or len(longer) == 1:
        meant = ending if 1 <= len(ending) <= 3 else longer
        hint = f"; did you mean {' or '.join(repr(k) for k in meant)}?"
    return f"unknown argument '{flag}'{hint}"


def add_common_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the flags that mean the same in every command.

    Args:
        parser: gets `--debug` and `--version`, and those named.
        names: of `device`, `threads`, `seed`, `json`.
    """
    group = parser.add_argument_group("common flags")
    if "device" in names:
        group.add_argument(
            "--device",
            choices=("auto", "cpu", "cuda"),
            default="auto",
            help="where the network runs; auto takes CUDA when there is one",
        )
    if "threads" in names:
        group.add_argument(
            "--threads",
            type=thread_count,
            default=default_threads(),
            help="CPU threads; the default is the cores this process may use, or OMP_NUM_THREADS",
        )
    if "seed" in names:
        group.add_argument("--seed", type=natural_int, default=0, help="seed of everything random")
    if "json" in names:
        group.add_argument(
            "--json", action="store_true", help="print the result as JSON, without progress"
        )
    group.add_argument("--debug", action="store_true", help="show a traceback with an error")
    group.add_argument("--version", action="version", version=f"%(prog)s {version()}")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """Return the threads to compute with: those of OMP_NUM_THREADS, else one for every core."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return min(wanted, available_cores()) or available_cores()


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _bounded_int(text, 1)


def thread_count(text: str) -> int:
    """Parse a whole number of at least 1 and at most `THREADS_PER_CORE` times the cores."""
    value, most = positive_int(text), THREADS_PER_CORE * available_cores()
    if value > most:
        raise argparse.ArgumentTypeError(
            f"at most {most} threads, {THREADS_PER_CORE} for each core that this process may use, "
            f"got '{text}'"
        )
    return value


def natural_int(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _bounded_int(text, 0)


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, got '{text}'")
    return value


def image_size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH, e.g. 128x128, in LR pixels."""
    height, cross, width = text.partition("x")
    if not (
        cross and height.isascii() and width.isascii() and height.isdigit() and width.isdigit()
    ):
        raise argparse.ArgumentTypeError(f"HEIGHTxWIDTH is needed, e.g. 128x128, got '{text}'")
    if not (1 <= int(height) <= 16384 and 1 <= int(width) <= 16384):
        raise argparse.ArgumentTypeError(f"height and width must be 1 to 16384, got '{text}'")
    return int(height), int(width)


def existing_path(text: str) -> Path:
    """Parse a path that must exist."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"'{text}' does not exist")
    return path


def _bounded_int(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"a whole number of at least {least} is needed, got '{text}'"
        )
    return value


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is Python's, NumPy's, torch's or ONNX Runtime's want of memory.

    torch and ONNX Runtime have no type for it on the CPU, so their words decide.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


def run(
    parser: argparse.ArgumentParser, command: Command, argv: Sequence[str] | None = None
) -> int:
    """Parse `argv`, run `command` on the result and return the exit status.

    `ValueError`, `FileNotFoundError` and their like are the user's (2), `FailureError`, `OSError`
    and memory the machine's (1); anything else is a defect and keeps its traceback. SIGTERM and
    SIGHUP end a command as Ctrl-C does, so that nothing half-written stays behind. When the reader
    of the output is gone (`| head -1`), the command ends without a word (141).
    """
    accept_every_name()
    stdout = sys.stdout
    try:
        # None when the shell closed it (`>&-`)
        with contextlib.redirect_stdout(stdout and Output(stdout)):
            status = _run(parser, command, argv)
            if stdout is not None:
                sys.stdout.flush()  # here, not when the interpreter ends, which would show errors
    except BrokenPipeError:
        silence(stdout)
        status = 128 + signal.SIGPIPE
    except OutputError as error:
        silence(stdout)
        fail(parser.prog, f"standard output cannot be written: {error}")
        status = 1
    if argv is None:  # the process is the command's
        ignore_signals()  # all is done: one that comes while the interpreter ends changes nothing
        if sys.stderr is not None:
            try:
                sys.stderr.flush()
            except OSError:
                silence(sys.stderr)
    return status


def _run(parser: argparse.ArgumentParser, command: Command, argv: Sequence[str] | None) -> int:
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    try:
        with ending_by_signals(), warnings_as_lines(parser.prog):
            return command(arguments)
    except TerminatedError as interrupt:
        fail(parser.prog, str(interrupt))
        return 128 + interrupt.number
    except KeyboardInterrupt as interrupt:
        fail(parser.prog, str(interrupt) or "interrupted")
        return INTERRUPTED
    except (BrokenPipeError, OutputError):
        raise
    except (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        return _report(parser.prog, error, arguments.debug, 2)
    except (FailureError, OSError, ModuleNotFoundError) as error:
        return _report(parser.prog, error, arguments.debug, 1)
    except Exception as error:
        if not out_of_memory(error):
            raise
        lower = " or ".join(flag for flag in _MEMORY_FLAGS if flag in parser._option_string_actions)
        advice = f"; lower {lower}" if lower else ""
        failure = FailureError(f"out of memory ({_first_line(error)}){advice}")
        failure.__cause__ = error
        return _report(parser.prog, failure, arguments.debug, 1)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _report(prog: str, error: BaseException, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exception(error)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    fail(prog, text or type(error).__name__)
    return status
