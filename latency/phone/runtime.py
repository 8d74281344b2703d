"""ONNX Runtime for the phone: out of AARs or a wheel that the user has."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from latency.commandline import FailureError
from latency.phone.facts import Facts

LIBRARY = "libonnxruntime.so"
_QNN_PLUGIN = "libonnxruntime*qnn*.so"
_BUNDLE = (
    *("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"),
    *("librt.so.1", "libstdc++.so.6", "libgcc_s.so.1"),
)
"""What an arm64 wheel's library needs where the system is not glibc's; the first is the loader."""
_TAGS = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Files that make a folder on the phone in which the program finds ONNX Runtime.

    Attributes:
        files: every file; the name on the phone is its own, the library's is `LIBRARY`.
        runner_target: what `latency.phone.build` builds the program for.
        loader: name of the loader to start it with, or None for the system's own.
        qnn_plugin: name of the library that brings QNN, or None where it is built in, if at all.
    """

    files: tuple[Path, ...]
    runner_target: str
    loader: str | None = None
    qnn_plugin: str | None = None


def from_aars(paths: Sequence[Path], facts: Facts, folder: Path) -> Runtime:
    """Unpack the native libraries of AARs for a device.

    Args:
        paths: `onnxruntime-android`, and what else is needed, e.g. QNN's plugin and runtime.
        facts: of the device.
        folder: to unpack into.

    Raises:
        FileNotFoundError, ValueError: no AAR, none with ONNX Runtime, or not for this device.
    """
    if not facts.bionic:
        raise ValueError(f"{facts.name} is not Android; give --ort-wheel instead of --ort-aar")
    if "arm64-v8a" not in facts.abis:
        raise ValueError(
            f"{facts.name} is {facts.abis[0]}; AARs are measured on arm64-v8a phones only"
        )
    found: dict[str, Path] = {}
    for path in paths:
        for name in _names(path, ".aar", "an AAR"):
            place = PurePosixPath(name)
            if place.parts[:2] == ("jni", "arm64-v8a") and place.suffix == ".so":
                found[place.name] = _unpack(path, name, folder / place.name)
    if LIBRARY not in found:
        listed = ", ".join(f"'{path}'" for path in paths)
        raise ValueError(f"{listed} has no jni/arm64-v8a/{LIBRARY}; give onnxruntime-android's AAR")
    plugins = sorted(path.name for path in folder.glob(_QNN_PLUGIN))
    return Runtime(
        files=tuple(found[name] for name in sorted(found)),
        runner_target="android-arm64",
        qnn_plugin=plugins[0] if plugins else None,
    )


def from_wheel(path: Path, facts: Facts, folder: Path) -> Runtime:
    """Unpack ONNX Runtime's library of a Linux wheel for a device.

    On a device without glibc (Android) the wheel's library runs under a glibc that is pushed with
    it; only Linux's part of the kernel is asked of Android, and it is experimental.

    Args:
        path: wheel of onnxruntime for Linux on the device's processor.
        facts: of the device.
        folder: to unpack into.

    Raises:
        FileNotFoundError, ValueError: no wheel, none of ONNX Runtime, or not for this device.
        FailureError: there is no glibc for arm64 on this machine to push.
    """
    tag = _TAGS.get(facts.abis[0])
    if tag is None:
        raise ValueError(
            f"{facts.name} is {facts.abis[0]}; ONNX Runtime has wheels for {', '.join(_TAGS)}"
        )
    names = _names(path, ".whl", "a wheel")
    if not path.stem.endswith(tag):
        raise ValueError(f"'{path}' is not for {facts.name}, which needs a Linux wheel for {tag}")
    start = f"onnxruntime/capi/{LIBRARY}"
    library = next((name for name in names if name.startswith(start)), None)
    if library is None:
        raise ValueError(f"'{path}' has no '{start}'; give a newer wheel of onnxruntime")
    files = [_unpack(path, library, folder / LIBRARY)]
    target = "linux-arm64" if tag == "aarch64" else "host"
    if facts.glibc:
        return Runtime(files=tuple(files), runner_target=target)
    if tag != "aarch64":
        raise ValueError(f"{facts.name} has no glibc, and the toolkit brings one for arm64 only")
    files += [Path(shutil.copy(_glibc(name), folder / name)) for name in _BUNDLE]
    return Runtime(files=tuple(files), runner_target=target, loader=_BUNDLE[0])


def _glibc(name: str) -> Path:
    """Return a library of the cross compiler's glibc."""
    if compiler := shutil.which("aarch64-linux-gnu-gcc"):
        words = [compiler, f"-print-file-name={name}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if (path := Path(done.stdout.strip())).is_file() and path.is_absolute():
            return path
    for folder in ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib"):
        if (path := Path(folder, name)).is_file():
            return path
    raise FailureError(
        f"there is no '{name}' for arm64 to push with the wheel's library "
        "(apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
    )


def _names(path: Path, suffix: str, kind: str) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'")
    if path.suffix != suffix or not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not {kind} ({suffix}, a zip file)")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _unpack(path: Path, name: str, place: Path) -> Path:
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(name) as packed,
            place.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"'{path}' is damaged: '{name}' cannot be unpacked") from error
    return place
