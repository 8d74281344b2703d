"""Hold an APK to what it promises: signatures, manifest, classes, libraries, models."""

from __future__ import annotations

import re
import struct
import subprocess
import zipfile
from pathlib import Path

from latency.commandline import FailureError

ABI = "arm64-v8a"
PAGE = 16384
"""Bytes of the largest memory page that phones have, which libraries must be aligned to."""
BENCHMARK = "BenchmarkActivity"
_OWN = "Lio/github/mfagan/"
_RUNTIME = "Lai/onnxruntime/"
_ARM64 = 183
_LOAD = 1


def verify(apk: Path, *, runtime: bool, debug: bool) -> None:
    """Check an APK as it will be installed.

    Args:
        apk: signed and aligned.
        runtime: it should carry ONNX Runtime; else nothing of it, stubs least of all.
        debug: it should carry the benchmark by intent; else nothing of it.

    Raises:
        FailureError: the first thing that is wrong.
    """
    signed = _said("apksigner", "verify", "--verbose", "--min-sdk-version", "26", str(apk))
    for scheme in ("v2", "v3"):
        if not re.search(rf"Verified using {scheme} scheme .*: true", signed):
            raise FailureError(f"the APK has no signature of scheme {scheme}")
    _said("zipalign", "-c", "-p", "4", str(apk))
    badging = _said("aapt", "dump", "badging", str(apk))
    if "uses-permission" in badging:
        raise FailureError("the APK asks for a permission; it needs none")
    tree = _said("aapt", "dump", "xmltree", str(apk), "AndroidManifest.xml")
    if (BENCHMARK in tree) != debug:
        raise FailureError("the benchmark by intent belongs to debug builds, and to no other")
    with zipfile.ZipFile(apk) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".onnx") and entry.compress_type != zipfile.ZIP_STORED:
                raise FailureError(f"'{entry.filename}' is compressed in the APK")
            if entry.filename.endswith(".so"):
                if not entry.filename.startswith(f"lib/{ABI}/"):
                    raise FailureError(f"'{entry.filename}' is not for {ABI}")
                check_library(entry.filename, archive.read(entry))
    _check_classes(apk, runtime=runtime)


def check_library(name: str, data: bytes) -> None:
    """Refuse a library that is not for arm64, or that phones with pages of 16 KiB do not load.

    Raises:
        FailureError: it is one of these, or no library.
    """
    try:
        magic, bits, order = struct.unpack_from("<4sBB", data)
        machine, offset = (
            struct.unpack_from("<H", data, 18)[0],
            struct.unpack_from("<Q", data, 32)[0],
        )
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<I4xQQ24xQ", data, offset + k * size) for k in range(count)]
    except struct.error as error:
        raise FailureError(f"'{name}' is not a library") from error
    if (magic, bits, order, machine) != (b"\x7fELF", 2, 1, _ARM64):
        raise FailureError(f"'{name}' is not a library for {ABI}")
    for kind, place, address, alignment in headers:
        if kind == _LOAD and (alignment < PAGE or (place - address) % PAGE):
            raise FailureError(
                f"'{name}' is aligned to {alignment} bytes: phones with pages of 16 KiB do not "
                "load it; take a newer AAR"
            )


def _check_classes(apk: Path, *, runtime: bool) -> None:
    dump = _said("dexdump", "-d", str(apk))
    classes = set(re.findall(r"Class descriptor\s*: '(L[^;']+;)'", dump))
    if not any(name.startswith(_OWN) for name in classes):
        raise FailureError("the APK has no classes of the app")
    if any(name.startswith(_RUNTIME) for name in classes) != runtime:
        raise FailureError("the APK must carry ONNX Runtime's classes with its libraries only")
    foreign = {n for n in classes if not n.startswith((_OWN, _RUNTIME, "Lcom/qualcomm/"))}
    if foreign:
        raise FailureError(f"the APK has classes of others: {sorted(foreign)[0]}")
    for section in dump.split("\nClass #")[1:]:
        if "invoke-custom" in section:
            found = re.search(r"Class descriptor\s*: '(L[^']+;)'", section)
            raise FailureError(
                f"{found[1] if found else 'a class'} uses lambdas, which Debian's dx cannot "
                "translate for phones; build the APK with Gradle"
            )


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["it failed"]
        raise FailureError(f"{' '.join(words[:2])} refuses the APK: {lines[0][:300]}")
    return done.stdout
