"""What commands show where: on a terminal, on a pipe, in another encoding, on nothing at all."""

import io
import os
import pty
import signal
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import pytest

from latency.commandline import Parser, add_common_flags, run
from latency.files import replacing, write_json, write_text
from latency.progress import Progress
from latency.terminal import fail, wants_colour, warn

PROGRAM = """
import sys, warnings
from latency.commandline import Parser, add_common_flags, run
from latency.progress import Progress

def command(arguments):
    with Progress("tiles", 3, silent=arguments.json) as progress:
        for _ in range(3):
            progress.update("写真.png")
    if arguments.fail:
        raise ValueError("'写真.png' is damaged")
    print("写真-\\udcff.png")
    return 0

parser = Parser("tool")
parser.add_argument("--fail", action="store_true", help="end badly")
add_common_flags(parser, "json")
sys.exit(run(parser, command))
"""


def on_terminal(*words, columns=80, rows=24, **environment):
    """Run the program with stdout and stderr on a terminal; return status and what it shows."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode()


def piped(*words, redirect="", **environment):
    command = f'"{sys.executable}" -c "$PROGRAM" {" ".join(words)} {redirect}'
    return subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PROGRAM": PROGRAM, "TERM": "xterm", **environment},
    )


def test_a_terminal_gets_a_bar_and_colours():
    status, shown = on_terminal("--fail")
    assert status == 2
    assert "3/3" in shown
    assert "\r" in shown
    assert "\033[1;31mtool:\033[0m '写真.png' is damaged" in shown


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_for_those_who_want_them(environment):
    status, shown = on_terminal("--fail", **environment)
    assert status == 2
    assert "\033[" not in shown.replace("\033[A", "")  # tqdm's own move of the cursor
    assert "tool: '写真.png' is damaged" in shown
    assert ("|" in shown) == (environment.get("TERM") != "dumb")


def test_a_narrow_terminal_is_enough():
    for columns in (1, 12):
        status, shown = on_terminal("--help", columns=columns)
        assert status == 0
        assert "--json" in shown
        assert on_terminal(columns=columns)[0] == 0
    status, shown = on_terminal(columns=30)
    lines = shown.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 30
    assert any(line.startswith("tiles") for line in lines)


def test_a_terminal_that_does_not_know_its_width_gets_a_bar():
    _, shown = on_terminal(columns=0, rows=0)
    assert "3/3" in shown


def test_json_shows_no_progress_even_on_a_terminal():
    status, shown = on_terminal("--json")
    assert status == 0
    assert "tiles" not in shown


def test_a_pipe_gets_lines_without_colours():
    done = piped("--fail")
    assert done.returncode == 2
    assert b"\033" not in done.stderr
    assert b"\r" not in done.stderr
    assert [line.split(b":")[0] for line in done.stderr.splitlines()] == [b"tiles", b"tool"]


def test_names_that_the_encoding_lacks_are_escaped():
    done = piped(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == rb"\u5199\u771f-\udcff.png" + b"\n"
    done = piped(PYTHONUTF8="1")
    assert done.stdout.decode() == "写真-\\udcff.png\n"


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(redirect):
    done = piped(redirect=redirect)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert piped("--fail", redirect=redirect).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [[], ["--help"]])
def test_an_output_that_cannot_be_written_is_one_sentence(words):
    done = piped(*words, redirect="> /dev/full")
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last == "tool: standard output cannot be written: No space left on device"
    assert b"Traceback" not in done.stderr


def test_warnings_are_lines_and_only_ours(capsys):
    def command(_):
        for _ in range(2):
            exec(compile("import warnings; warnings.warn('theirs')", "x", "exec"), {})
        code = "import warnings\nwarnings.warn('the profile\\n is left out')"
        exec(compile(code, "x", "exec"), {"__name__": "mfagan.images"})
        return 0

    parser = Parser("tool")
    add_common_flags(parser)
    before = warnings.showwarning
    assert run(parser, command, []) == 0
    assert capsys.readouterr().err == "tool: warning: the profile is left out\n"
    assert warnings.showwarning is before


def test_errors_and_warnings_are_one_line(capsys):
    warn("tool", "two\nlines")
    fail("tool", "and\n  two more")
    assert capsys.readouterr().err == "tool: warning: two lines\ntool: and two more\n"
    assert not wants_colour(io.StringIO())


def test_progress_without_a_stream_is_silent(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("x", 1) as progress:
        progress.update()
    fail("tool", "nobody hears")


def test_names_that_are_not_utf8(tmp_path):
    import json

    write_json(tmp_path / "a.json", {"file": "a\udcff.png"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"file": "a\udcff.png"}
    with pytest.raises(ValueError, match=r"can only hold UTF-8, but .*a\\udcff.png.* rename"):
        write_text(tmp_path / "b.txt", "a\udcff.png")
    assert not (tmp_path / "b.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_a_command_as_ctrl_c_does(tmp_path, capsys, number):
    def command(_):
        with replacing(tmp_path / "result.txt") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            raise AssertionError("the signal was not heard")

    parser = Parser("tool")
    add_common_flags(parser)
    before = signal.getsignal(number)
    assert run(parser, command, []) == 128 + number
    assert capsys.readouterr().err == "tool: terminated\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(capsys):
    """As under nohup."""

    def command(_):
        os.kill(os.getpid(), signal.SIGHUP)
        return 0

    parser = Parser("tool")
    add_common_flags(parser)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(parser, command, []) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not capsys.readouterr().err


def test_a_signal_during_an_import_waits_for_its_end(tmp_path, monkeypatch, capsys):
    """Native modules that are interrupted while they load crash, or are broken for good."""
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nWHOLE = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def command(_):
        import slow_module

        assert slow_module.WHOLE
        signal.pause()  # until the signal comes again
        raise AssertionError("the signal was not heard")

    parser = Parser("tool")
    add_common_flags(parser)
    assert run(parser, command, []) == 130
    assert capsys.readouterr().err == "tool: interrupted\n"


def test_a_second_signal_does_not_break_the_cleaning_up(tmp_path, capsys):
    def command(_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "cleaned").touch()

    parser = Parser("tool")
    add_common_flags(parser)
    assert run(parser, command, []) == 130
    assert (tmp_path / "cleaned").exists()
    assert capsys.readouterr().err == "tool: interrupted\n"


def test_a_signal_after_the_end_is_ignored():
    """While the interpreter ends: only where the command is the whole process."""
    code = PROGRAM.replace("sys.exit(run(parser, command))", """
import os, signal
def interrupted(arguments):
    os.kill(os.getpid(), signal.SIGINT)
status = run(parser, interrupted)
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(status)
""")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"tool: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_progress_that_cannot_be_shown_stops_no_work():
    done = piped(redirect="2> /dev/full")
    assert done.returncode == 0
    assert done.stdout
    assert piped("--fail", redirect="2> /dev/full").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_more_output_than_a_buffer_holds_says_what_is_full():
    code = PROGRAM.replace('print("写真', 'print("x" * 100_000 + "写真')
    command = f'"{sys.executable}" -c "$PROGRAM" > /dev/full'
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False,
        env={**os.environ, "PROGRAM": code},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tool: standard output cannot be written: ")


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], [""]])
def test_an_empty_text_is_refused(words, capsys):
    parser = Parser("tool")
    parser.add_argument("--out", type=Path, help="file")
    parser.add_argument("rest", nargs="*", help="more")
    add_common_flags(parser)
    assert run(parser, lambda _: 0, words) == 2
    assert "an empty text was given after" in capsys.readouterr().err


def test_want_of_address_space_is_want_of_memory(capsys):
    def command(_):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    parser = Parser("tool")
    add_common_flags(parser)
    assert run(parser, command, []) == 1
    assert capsys.readouterr().err.startswith("tool: out of memory (libtorch_cpu.so: failed to map")


def test_a_name_that_is_not_utf8_is_refused_unless_it_is_wanted(capsys):
    for any_name in (False, True):
        parser = Parser("tool", any_name=any_name)
        parser.add_argument("file", type=Path, help="file")
        add_common_flags(parser)
        assert run(parser, lambda _: 0, ["a\udce9.png"]) == (0 if any_name else 2)
    assert "'a\\udce9.png' is not a name in UTF-8; rename" in capsys.readouterr().err
