"""Build, sign and verify the app from Debian's packages: `make apk`, or

python android_demo/build_apk.py --out runs/apk/mfagan.apk --aar onnxruntime-android.aar

The sources are those of the Gradle project. Without an AAR they are compiled against stubs of ONNX
Runtime's Java API, and the APK installs and starts but enlarges nothing: it has no runtime.
javac gets Android's own class library and nothing else, so that a call to what a phone lacks is an
error here; there are no lambdas, which Debian's dx leaves to a class that phones do not have.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from apk_check import ABI, verify  # noqa: E402

from latency.commandline import FailureError, Parser, add_common_flags, run, version  # noqa: E402
from latency.files import check_parents, replacing  # noqa: E402

PACKAGE = "io.github.mfagan.app"
MIN_SDK, TARGET_SDK = 26, 36
VERSION_CODE = 1
EXPORTED = HERE / "app/src/main/assets/models"
"""Where `mfagan-export --for-app` puts models."""
TOOLS = HERE.parent / "runs" / "android-tools"
PROGRAMS = {
    "javac": "default-jdk-headless",
    "java": "default-jdk-headless",
    "keytool": "default-jdk-headless",
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
}
"""What is called, and the packages that bring it."""
OLD_PACKAGES = ("dalvik-exchange", "libandroid-23-java")
"""Of Debian 11, which was the last to have them; unpacked, not installed."""
DX = "usr/share/java/com.android.dx.jar"
ANDROID = "usr/share/java/com.android.android-23.jar"
NAMESPACE = "http://schemas.android.com/apk/res/android"
MERGER = "http://schemas.android.com/tools"
"""Of attributes that say how Gradle merges manifests."""
PASSWORD = "android"
"""Of debug keys, as Android's own tools have it: it protects nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="build_apk.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the APK")
    parser.add_argument("--aar", type=Path, action="append", default=[],
                        help="onnxruntime-android's AAR, and again for QNN's")  # fmt: skip
    parser.add_argument("--model", type=Path, action="append", default=[],
                        help="an .onnx file to bundle; else the shipped ones")  # fmt: skip
    parser.add_argument("--release", action="store_true",
                        help="no benchmark by intent, and no debugger")  # fmt: skip
    parser.add_argument("--tools", type=Path, default=TOOLS,
                        help="where Debian 11's dx and android.jar are unpacked")  # fmt: skip
    add_common_flags(parser)
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.out.suffix != ".apk":
        raise ValueError(f"--out must end in .apk, got '{arguments.out}'")
    for path in [*arguments.aar, *arguments.model]:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file '{path}'")
    check_parents(arguments.out)
    find_programs()
    unpack_tools(arguments.tools)
    models = arguments.model or bundled_models()
    build(arguments.out, models, arguments.aar, tools=arguments.tools, debug=not arguments.release)
    print(arguments.out)
    return 0


def find_programs() -> None:
    """Refuse to begin where a program is missing.

    Raises:
        FailureError: the sentence says what to install.
    """
    missing = sorted({package for name, package in PROGRAMS.items() if shutil.which(name) is None})
    if missing:
        raise FailureError(f"install what is missing: apt-get install {' '.join(missing)}")


def unpack_tools(tools: Path) -> None:
    """Unpack Debian 11's dx and android.jar where they are not yet.

    Raises:
        FailureError: they cannot be fetched.
    """
    if (tools / DX).is_file() and (tools / ANDROID).is_file():
        return
    from debian_packages import unpack

    try:
        unpack(tools, "bullseye", list(OLD_PACKAGES), alone=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FailureError(
            f"Debian 11's {' and '.join(OLD_PACKAGES)} cannot be fetched with apt-get ({error})"
        ) from error


def bundled_models() -> list[Path]:
    """Return what `mfagan-export --for-app` put among the assets, as Gradle bundles it.

    Where nothing lies there: the shipped .onnx files in fp32 and int8.

    Raises:
        FileNotFoundError, ValueError: a shipped file is missing or damaged, or none is shipped.
    """
    if exported := sorted(EXPORTED.glob("*.onnx")):
        return exported
    from mfagan.shipped import names, shipped

    found = []
    for name in names():
        for kind, file in shipped(name).files.items():
            if kind in ("fp32", "int8"):
                file.check()
                found.append(file.path)
    if not found:
        raise FileNotFoundError("no .onnx file is shipped; give --model")
    return found


def build(
    out: Path, models: Iterable[Path], aars: Sequence[Path], *, tools: Path, debug: bool
) -> None:
    """Build, sign and verify an APK.

    Args:
        out: the APK; a debug key is made beside it, once.
        models: .onnx files to bundle, by their names.
        aars: that bring ONNX Runtime's classes and libraries; none for stubs.
        tools: where Debian 11's packages are.
        debug: with the benchmark by intent.

    Raises:
        FailureError: a step failed, or the APK is not what it should be.
    """
    with tempfile.TemporaryDirectory(prefix="mfagan-apk-") as name, replacing(out) as whole:
        work = Path(name)
        packed = unpack_aars(aars, work / "aar")
        base = package_resources(work, models, tools / ANDROID, debug=debug)
        compile_java(work, packed, tools / ANDROID, debug=debug)
        jars = [str(jar) for jar in packed if jar.suffix == ".jar"]
        words = ["java", "-cp", str(tools / DX), "com.android.dx.command.Main", "--dex"]
        dex = work / "classes.dex"
        call([*words, f"--min-sdk-version={MIN_SDK}", f"--output={dex}", f"{work}/app", *jars])
        with zipfile.ZipFile(base, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.write(dex, dex.name)
            for library in (path for path in packed if path.suffix == ".so"):
                archive.write(library, f"lib/{ABI}/{library.name}")
        aligned = work / "aligned.apk"
        call(["zipalign", "-f", "-p", "4", str(base), str(aligned)])
        sign(aligned, out.with_name("debug.p12"))
        verify(aligned, runtime=bool(aars), debug=debug)
        shutil.copyfile(aligned, whole)


def unpack_aars(aars: Sequence[Path], folder: Path) -> list[Path]:
    """Return the classes.jar of AARs, and their libraries for arm64.

    Raises:
        ValueError: one is no AAR, or none has ONNX Runtime.
    """
    found = []
    for number, path in enumerate(aars):
        if not zipfile.is_zipfile(path):
            raise ValueError(f"'{path}' is not an AAR, a zip file")
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name == "classes.jar" or re.fullmatch(rf"jni/{ABI}/[\w.+-]+\.so", name):
                    place = folder / str(number) / Path(name).name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.read(name))
                    found.append(place)
    names = {path.name for path in found}
    if aars and not {"classes.jar", "libonnxruntime.so", "libonnxruntime4j_jni.so"} <= names:
        listed = ", ".join(f"'{path}'" for path in aars)
        raise ValueError(
            f"{listed} has no ONNX Runtime for {ABI} with its Java classes; give the AAR of "
            "com.microsoft.onnxruntime:onnxruntime-android"
        )
    return found


def package_resources(work: Path, models: Iterable[Path], android: Path, *, debug: bool) -> Path:
    """Return a package of manifest, resources and models; R.java lies in `work/gen`."""
    assets = work / "assets" / "models"
    for folder in (assets, work / "gen"):
        folder.mkdir(parents=True)
    for model in models:
        shutil.copyfile(model, assets / model.name)
    manifest = work / "AndroidManifest.xml"
    manifest.write_bytes(merged_manifest(debug=debug))
    base = work / "base.apk"
    words = ["aapt", "package", "-f", "-m", "-J", str(work / "gen"), "-M", str(manifest)]
    words += ["-S", str(HERE / "app/src/main/res"), "-A", str(assets.parent), "-I", str(android)]
    words += ["--min-sdk-version", str(MIN_SDK), "--target-sdk-version", str(TARGET_SDK)]
    words += ["--version-code", str(VERSION_CODE), "--version-name", version()]
    # Models are stored as they are: they hardly get smaller, and can be mapped.
    call([*words, "-0", "onnx", *(["--debug-mode"] if debug else []), "-F", str(base)])
    return base


def merged_manifest(*, debug: bool) -> bytes:
    """Return the app's manifest with that of debug builds in it, as Gradle merges them.

    What is marked to be removed is not in it; an AAR's manifest brings nothing in here.
    """
    Xml.register_namespace("android", NAMESPACE)
    main_manifest = Xml.parse(HERE / "app/src/main/AndroidManifest.xml").getroot()
    main_manifest.set("package", PACKAGE)
    for element in main_manifest.findall(f"*[@{{{MERGER}}}node='remove']"):
        main_manifest.remove(element)
    application = main_manifest.find("application")
    assert application is not None
    application.set(f"{{{NAMESPACE}}}extractNativeLibs", "true")  # Gradle's useLegacyPackaging
    if debug:
        more = Xml.parse(HERE / "app/src/debug/AndroidManifest.xml").getroot()
        application.extend(list(more.find("application") or ()))
    return Xml.tostring(main_manifest, encoding="utf-8", xml_declaration=True)


def compile_java(work: Path, packed: Sequence[Path], android: Path, *, debug: bool) -> None:
    """Compile core and app into `work/app`, against ONNX Runtime's classes or their stubs."""
    classes = [str(path) for path in packed if path.suffix == ".jar"]
    if not classes:
        _javac(work / "stubs", (HERE / "stubs").rglob("*.java"), android, [])
        classes = [str(work / "stubs")]
    folders = [HERE / "core/src/main", HERE / "app/src/main", work / "gen"]
    folders += [HERE / "app/src/debug"] if debug else []
    _javac(
        work / "app", (path for one in folders for path in one.rglob("*.java")), android, classes
    )


def _javac(out: Path, sources: Iterable[Path], android: Path, classes: Sequence[str]) -> None:
    out.mkdir()
    words = ["javac", "-encoding", "UTF-8", "-source", "8", "-target", "8", "-nowarn"]
    words += ["-Xlint:-options", "-bootclasspath", str(android), "-d", str(out)]
    words += ["-cp", ":".join(classes)] if classes else []
    call([*words, *sorted(map(str, sources))])


def sign(apk: Path, key: Path) -> None:
    """Sign an APK with schemes v2 and v3, by a debug key that is made where it is missing."""
    if not key.is_file():
        with replacing(key) as made:
            made.unlink(missing_ok=True)
            call(["keytool", "-genkeypair", "-keystore", str(made), "-storetype", "PKCS12",
                  "-storepass", PASSWORD, "-alias", "debug", "-keyalg", "RSA", "-keysize", "2048",
                  "-validity", "10000", "-dname", "CN=mfagan debug"])  # fmt: skip
    words = ["apksigner", "sign", "--ks", str(key), "--ks-pass", f"pass:{PASSWORD}"]
    words += ["--min-sdk-version", str(MIN_SDK), "--v1-signing-enabled", "false"]
    call([*words, "--v2-signing-enabled", "true", "--v3-signing-enabled", "true", str(apk)])


def call(words: Sequence[str]) -> str:
    """Run a program and return what it said.

    Raises:
        FailureError: it failed, with its first line that tells of an error.
    """
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [one for one in (done.stderr + done.stdout).splitlines() if one.strip()]
        told = next((one for one in lines if "rror" in one), lines[0] if lines else "it failed")
        raise FailureError(f"{words[0]} failed: {told[:300]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
