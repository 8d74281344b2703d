"""`mfagan-latency build-runner`: build the program that measures on the phone (runner.c).

For this machine with its C compiler; for arm64 Linux with Debian's cross compiler or ziglang; for
Android with the NDK's clang where there is one, else with clang and lld alone: the program then
starts by bionic_start.c and is linked against empty libraries with the names of Android's.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from latency.commandline import FailureError, Parser, add_common_flags
from latency.files import check_parents, replacing

TARGETS = ("host", "linux-arm64", "android-arm64")
ANDROID_API = 26
_FOLDER = Path(__file__).parent
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
_LINUX = ("-ldl", "-lpthread")
_PAGES = "-Wl,-z,max-page-size=16384"
"""Android 15 has phones whose pages are 16 KiB; the program runs on smaller ones as well."""
_LIBRARIES = {"dl": ("dlopen", "dlsym", "dlerror"), "c": ()}


def add_build_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the subcommand `build-runner`."""
    parser = subparsers.add_parser(
        "build-runner",
        help="build the program that measures on a phone",
        description="Build the program that measures on a phone. `profile --device adb` does it by "
        "itself; where it cannot, build it elsewhere and give it to --runner.",
    )
    parser.add_argument(
        "--for", dest="target", choices=TARGETS, default="android-arm64", help="what it runs on"
    )
    parser.add_argument("--out", type=Path, required=True, help="the program")
    add_common_flags(parser)


def run_build(arguments: argparse.Namespace) -> int:
    """Build the program and print its path."""
    if arguments.out.is_dir():
        raise ValueError(f"--out must be a file, '{arguments.out}' is a folder")
    check_parents(arguments.out)
    print(f"built with {build(arguments.target, arguments.out)}")
    print(arguments.out)
    return 0


def build(target: str, out: Path) -> str:
    """Build the phone-side program.

    Args:
        target: one of `TARGETS`.
        out: where to; replaced when it is there.

    Returns:
        The compiler's name.

    Raises:
        FailureError: no compiler for the target, or it failed.
    """
    with replacing(out) as program, tempfile.TemporaryDirectory(prefix="mfagan-") as folder:
        if target == "android-arm64":
            name = _build_android(program, Path(folder))
        else:
            command = _host_compiler() if target == "host" else _arm64_compiler()
            name = " ".join(Path(command[0]).name if k == 0 else w for k, w in enumerate(command))
            _compile([*command, *_FLAGS, _FOLDER / "runner.c", "-o", program, *_LINUX])
        program.chmod(0o755)
    return name


def _host_compiler() -> list[str]:
    for name in (os.environ.get("CC", ""), "gcc", "cc", "clang"):
        if name and (found := shutil.which(name)):
            return [found]
    raise FailureError("there is no C compiler; install gcc (apt-get install gcc libc6-dev)")


def _arm64_compiler() -> list[str]:
    if platform.machine() in ("aarch64", "arm64") and sys.platform == "linux":
        return _host_compiler()
    if found := shutil.which("aarch64-linux-gnu-gcc"):
        return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28"]
    raise FailureError(
        "there is no compiler for arm64 Linux; install one (apt-get install gcc-aarch64-linux-gnu "
        "libc6-dev-arm64-cross, or pip install ziglang)"
    )


def _build_android(program: Path, folder: Path) -> str:
    if compiler := _ndk_compiler():
        _compile([compiler, *_FLAGS, _PAGES, _FOLDER / "runner.c", "-o", program, "-ldl"])
        return f"the NDK's {compiler.name}"
    clang, lld = shutil.which("clang"), shutil.which("ld.lld")
    if clang is None or lld is None:
        raise FailureError(
            "Android's programs need the NDK (set ANDROID_NDK_HOME to its folder), or clang and "
            "lld (apt-get install clang lld)"
        )
    base = [clang, f"--target=aarch64-linux-android{ANDROID_API}", "-nostdlib", "-fuse-ld=lld"]
    for name, listed in _LIBRARIES.items():
        symbols = listed or sorted(_declared() - set(_LIBRARIES["dl"]) | {"__libc_init"})
        source = folder / f"{name}.c"
        source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in symbols))
        library = folder / f"lib{name}.so"
        # The names are of functions that the compiler believes to know better.
        words = ["-ffreestanding", "-w", "-shared", f"-Wl,-soname,lib{name}.so", source]
        _compile([*base, *words, "-o", library])
    words = ["-nostdlibinc", "-ffreestanding", "-fPIE", "-pie", "-DWITHOUT_NDK", _PAGES]
    words += ["-Wl,-z,relro,-z,now", "-Wl,-dynamic-linker,/system/bin/linker64", f"-L{folder}"]
    sources = [_FOLDER / "runner.c", _FOLDER / "bionic_start.c"]
    _compile([*base, *_FLAGS, *words, *sources, "-o", program, "-lc", "-ldl"])
    return "clang and lld, without the NDK"


def _declared() -> set[str]:
    """Return the functions that bionic.h declares."""
    text = (_FOLDER / "bionic.h").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:_Noreturn )?[\w ]+[ *(]+\*?(\w+)\(.*;$", text, re.MULTILINE))


def _ndk_compiler() -> Path | None:
    for variable in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"):
        if root := os.environ.get(variable):
            pattern = f"toolchains/llvm/prebuilt/*/bin/aarch64-linux-android{ANDROID_API}-clang"
            if found := sorted(Path(root).glob(pattern)):
                return found[0]
            raise FailureError(f"{variable} is '{root}', where there is no '{pattern}'")
    return None


def _compile(command: list[object]) -> None:
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [one for one in done.stderr.splitlines() if "error" in one] or ["it failed"]
        raise FailureError(f"'{words[0]}' cannot build the program: {lines[0][:300]}")
