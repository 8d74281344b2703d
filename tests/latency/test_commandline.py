import argparse
import hashlib
import io
import json
import os
import stat
import subprocess
import sys

import pytest

from latency.commandline import (
    FailureError,
    Parser,
    add_common_flags,
    available_cores,
    default_threads,
    image_size,
    nearest,
    positive_float,
    run,
)
from latency.files import replacing, sha256, write_json, write_text
from latency.progress import Progress


def parser():
    made = Parser("tool")
    made.add_argument("--steps", type=int, default=1, help="steps")
    add_common_flags(made, "threads", "json")
    return made


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad value"), 2),
        (FileNotFoundError("no such thing"), 2),
        (FailureError("gave up"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_statuses_and_one_sentence(capsys, error, status):
    def command(_):
        raise error

    assert run(parser(), command, []) == status
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("tool: ")
    assert captured.err.count("\n") == 1


class OutOfMemoryError(RuntimeError):
    """As torch's, by name."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 4.00 GiB for an array with shape (9, 9)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 9209857024 bytes. Error code 12 (Cannot allocate "
            "memory)\nsecond line"
        ),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Status Message: std::bad_alloc"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (["--batch", "--patch"], "; lower --batch or --patch"),
        (["--tile"], "; lower --tile"),
        ([], ")"),
    ],
)
def test_too_little_memory_is_one_sentence_that_says_what_to_lower(capsys, error, flags, advice):
    made = parser()
    for flag in flags:
        made.add_argument(flag)

    def command(_):
        raise error

    assert run(made, command, []) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("tool: out of memory (")
    assert captured.err.endswith(f"{advice}\n")
    assert captured.err.count("\n") == 1
    assert "second line" not in captured.err


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("words", [[], ["--help"]], ids=str)
def test_a_reader_that_goes_away_ends_the_command_in_silence(lines, words):
    """Few lines are still in the buffer when the command ends; many break it in the middle."""
    code = (
        "import sys\nfrom latency.commandline import *\n"
        "parser = Parser('tool')\nadd_common_flags(parser)\n"
        f"def command(_):\n    for _ in range({lines}):\n        print('line')\n    return 0\n"
        "sys.exit(run(parser, command))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupted_command_may_say_how_to_go_on(capsys):
    def command(_):
        raise KeyboardInterrupt("stopped after step 3; the same command goes on")

    assert run(parser(), command, []) == 130
    assert capsys.readouterr().err == "tool: stopped after step 3; the same command goes on\n"


def test_debug_shows_the_traceback(capsys):
    def command(_):
        raise ValueError("bad value")

    assert run(parser(), command, ["--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("defect"), RuntimeError("shapes do not match")])
def test_defects_keep_their_traceback(error):
    def command(_):
        raise error

    with pytest.raises(type(error)):
        run(parser(), command, [])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--step", "3"], "unknown argument '--step'; did you mean '--steps'?"),
        (["--stesp=3"], "did you mean '--steps'?"),
        (["--xyzzy"], "unknown argument '--xyzzy' "),
        (["--steps"], "expected one argument"),
        (["--threads", "0"], "at least 1 is needed, got '0'"),
        (["--threads", "100000"], f"at most {4 * available_cores()} threads, 4 for each core"),
        (["extra"], "unknown argument 'extra'"),
    ],
)
def test_misuse_is_one_sentence(capsys, words, sentence):
    assert run(parser(), lambda _: 0, words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--arch", "; did you mean '--architecture'? "),
        ("--lr", "; did you mean '--gan-lr' or '--pixel-lr'? "),
        ("--lr=1", "; did you mean '--gan-lr' or '--pixel-lr'? "),
        ("--pixel-l", "; did you mean '--pixel-lr'? "),
        ("--gan-lrs", "; did you mean '--gan-lr'? "),
        ("--data", "; did you mean '--lr-data'? "),
    ],
)
def test_a_part_of_a_flag_names_the_flags_that_hold_it(capsys, word, hint):
    made = Parser("tool")
    for flag in ("--architecture", "--patch", "--rho", "--pixel-lr", "--gan-lr", "--lr-data"):
        made.add_argument(flag)
    assert run(made, lambda _: 0, [word, "1"]) == 2
    flag = word.split("=")[0]
    assert f"tool: unknown argument '{flag}'{hint}" in capsys.readouterr().err


def test_subcommands_name_their_own_flags(capsys):
    made = Parser("tool")
    made.add_subparsers(dest="verb").add_parser("fit").add_argument("--target")
    assert run(made, lambda _: 0, ["fit", "--taget", "x"]) == 2
    assert "did you mean '--target'?" in capsys.readouterr().err


def test_values():
    assert image_size("12x34") == (12, 34)
    assert positive_float("0.5") == 0.5
    for text in ("12", "x", "0x4", "1x-1", "1x99999", "1x1x1", "１x2"):
        with pytest.raises(argparse.ArgumentTypeError):
            image_size(text)
    for text in ("0", "-1", "nan", "inf", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            positive_float(text)
    assert nearest("pixl", ["pixel", "gan"]) == "; did you mean 'pixel'?"
    assert nearest("zzz", ["pixel"]) == ""


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "a.json"
    write_json(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}
    assert stat.S_IMODE(file.stat().st_mode) & 0o400
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, float("nan"))

    def interrupted():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(file.parent.iterdir()) == [file]
    assert sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "t", "写真\n")
    assert (tmp_path / "t").read_bytes() == "写真\n".encode()


def test_a_pipe_gets_a_last_line_and_silence_nothing():
    stream = io.StringIO()
    with Progress("work", 3, stream=stream) as progress:
        for _ in range(3):
            progress.update("loss 1")
    assert stream.getvalue().startswith("work: 3/3, ")
    assert "loss 1" in stream.getvalue()
    silent = io.StringIO()
    with Progress("work", 3, stream=silent, silent=True) as progress:
        progress.update()
    assert silent.getvalue() == ""


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress("work", 2, initial=1, stream=stream) as progress:
        progress.update("loss 1")
    assert "work: 100%" in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "threads"), [("1", 1), ("999", None), ("0", None), ("two", None), ("", None)]
)
def test_threads_are_those_of_the_environment_or_one_for_every_core(value, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert default_threads() == (threads or available_cores())
