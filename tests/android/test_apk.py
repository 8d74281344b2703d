"""The APK that `make apk` builds: what it asks for, what it shows, what is in it."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jvm import APP, HERE, ROOT, needed, run

from latency.commandline import FailureError

sys.path.append(str(APP))
import apk_check
import build_apk

pytestmark = pytest.mark.debian
FOLDER = Path(os.environ.get("MFAGAN_DEBIAN", ROOT / "runs" / "debian"))
EXPORTED = {".MainActivity", ".BenchmarkActivity"}


@pytest.fixture(scope="module")
def tools():
    needed(*build_apk.PROGRAMS)
    folder = FOLDER / "android-tools"
    if not (folder / build_apk.DX).is_file():
        pytest.skip(f"there is no '{folder}'; .ci/debian puts Debian 11's dx and android.jar there")
    return folder


@pytest.fixture(scope="module")
def models(exported):
    return [exported["plain"], exported["pooled_int8"]]


@pytest.fixture(scope="module")
def apk(tools, models, tmp_path_factory):
    """Return a debug build without a runtime, by the command itself."""
    path = tmp_path_factory.mktemp("apk") / "mfagan.apk"
    words = [word for model in models for word in ("--model", str(model))]
    assert build_apk.main(["--out", str(path), "--tools", str(tools), *words]) == 0
    return path


def library(folder, name, page=16384):
    """Return a library for arm64 whose segments are aligned to pages."""
    needed("aarch64-linux-gnu-gcc")
    path = folder / name
    words = ["aarch64-linux-gnu-gcc", "-shared", "-nostdlib", f"-Wl,-z,max-page-size={page}"]
    run([*words, "-Wl,-z,common-page-size=4096", "-xc", os.devnull, "-o", str(path)])
    return path


def make_aar(folder, jvm_classes, page=16384):
    """Return an AAR whose classes are the tests' stand-in for ONNX Runtime's."""
    jar = folder / "classes.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted((jvm_classes / "ai").rglob("*.class")):
            archive.write(path, path.relative_to(jvm_classes))
    aar = folder / "onnxruntime-android.aar"
    with zipfile.ZipFile(aar, "w") as archive:
        archive.write(jar, "classes.jar")
        for name in ("libonnxruntime.so", "libonnxruntime4j_jni.so"):
            archive.write(library(folder, name, page), f"jni/arm64-v8a/{name}")
            archive.writestr(f"jni/x86_64/{name}", b"another processor's")
    return aar


@pytest.fixture(scope="module")
def runtime_classes(tmp_path_factory):
    needed("javac")
    out = tmp_path_factory.mktemp("runtime")
    sources = sorted(map(str, (HERE / "runtime").rglob("*.java")))
    words = ["javac", "--release", "8", "-Xlint:-options", "-sourcepath", str(APP / "stubs")]
    run([*words, "-d", str(out), *sources])
    return out


@pytest.fixture(scope="module")
def apk_with_runtime(tools, models, runtime_classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with")
    aar = make_aar(folder, runtime_classes)
    path = folder / "mfagan.apk"
    words = ["--out", str(path), "--tools", str(tools), "--aar", str(aar), "--release"]
    assert build_apk.main([*words, "--model", str(models[0])]) == 0
    return path


def manifest(path):
    """Return the manifest's elements: (name, attributes), parents before children."""
    found = []
    for line in run(["aapt", "dump", "xmltree", str(path), "AndroidManifest.xml"]).splitlines():
        if element := re.match(r"\s*E: ([\w-]+)", line):
            found.append((element[1], {}))
        elif attribute := re.match(r"\s*A: (?:android:)?(\w+)(?:\(\w+\))?=(.*)", line):
            value = attribute[2]
            text = re.match(r'"(.*?)"', value)
            number = re.match(r"\(type \w+\)(0x\w+)", value)
            found[-1][1][attribute[1]] = (
                text[1] if text else int(number[1], 16) if number else value
            )
    return found


def test_nothing_is_asked_for_and_nothing_else_shown(apk):
    elements = manifest(apk)
    assert not [name for name, _ in elements if name.startswith("uses-permission")]
    parts = [(name, told) for name, told in elements if name in
             ("activity", "provider", "service", "receiver", "activity-alias")]  # fmt: skip
    assert {told["name"] for _, told in parts if told["exported"]} == EXPORTED
    assert [told["name"] for _, told in parts if not told["exported"]] == [".ResultProvider"]
    actions = [told["name"] for name, told in elements if name == "action"]
    assert actions == ["android.intent.action.MAIN", "android.intent.action.SEND"]
    (measuring,) = [told for _, told in parts if told["name"] == ".BenchmarkActivity"]
    assert measuring["configChanges"] == 0x20 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
    assert [told["mimeType"] for name, told in elements if name == "data"] == ["image/*"]
    application = next(told for name, told in elements if name == "application")
    assert application["allowBackup"] == 0
    assert application["extractNativeLibs"] == 0xFFFFFFFF
    assert ("uses-native-library", {"name": "libcdsprpc.so", "required": 0}) in elements


def test_a_release_has_no_benchmark_and_no_debugger(apk, apk_with_runtime):
    told = run(["aapt", "dump", "badging", str(apk)])
    assert "application-debuggable" in told
    told = run(["aapt", "dump", "badging", str(apk_with_runtime)])
    assert "application-debuggable" not in told
    parts = [told["name"] for name, told in manifest(apk_with_runtime) if name == "activity"]
    assert parts == [".MainActivity"]
    assert "BenchmarkActivity" not in run(["dexdump", str(apk_with_runtime)])


def test_versions_and_abi(apk, apk_with_runtime):
    sdk = next(told for name, told in manifest(apk) if name == "uses-sdk")
    assert (sdk["minSdkVersion"], sdk["targetSdkVersion"]) == (26, 36)
    assert "native-code" not in run(["aapt", "dump", "badging", str(apk)])
    told = run(["aapt", "dump", "badging", str(apk_with_runtime)])
    assert re.findall("native-code: (.*)", told) == ["'arm64-v8a'"]


def test_gradle_builds_the_same(apk):
    text = (APP / "app/build.gradle").read_text()
    told = dict(re.findall(r"(\w+) = '?([\w.]+)'?$", text, re.MULTILINE))
    wanted = {"minSdk": build_apk.MIN_SDK, "targetSdk": build_apk.TARGET_SDK, "compileSdk": 36}
    wanted |= {"applicationId": build_apk.PACKAGE, "versionCode": build_apk.VERSION_CODE}
    for name, value in wanted.items():
        assert told[name] == str(value)
    (version,) = re.findall(r"versionName='([\d.]+)'", run(["aapt", "dump", "badging", str(apk)]))
    assert told["versionName"] == version
    assert f"abiFilters '{apk_check.ABI}'" in text
    assert re.search(r"onnxruntime-android:\d+\.\d+\.\d+'", text)


def test_gradle_bundles_the_same_models():
    text = (APP / "app/build.gradle").read_text()
    (task,) = re.findall(r"^def copyShippedModels = .*?^}$", text, re.MULTILINE | re.DOTALL)
    (folder,) = re.findall(r"""fileTree\("\$rootDir/(.*?)"\) : files\(\)""", task)
    patterns = re.findall(r"'(\*.*?)'", re.findall("include (.*)", task)[0])
    bundled = {path.name for pattern in patterns for path in (APP / folder).glob(pattern)}
    assert bundled == {path.name for path in build_apk.bundled_models()}
    assert "into new File(shippedAssets, 'models')" in task
    assert "assets.srcDir shippedAssets" in text
    assert "tasks.named('preBuild') { dependsOn copyShippedModels }" in text
    (exported,) = re.findall(r"exportedModels = fileTree\('(.*?)'\) { include '\*.onnx' }", text)
    assert "exportedModels.isEmpty() ? " in task
    assert APP / "app" / exported == build_apk.EXPORTED


def test_models_that_were_exported_are_bundled_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(build_apk, "EXPORTED", tmp_path)
    shipped = build_apk.bundled_models()
    assert shipped
    (tmp_path / "mine.onnx").touch()
    assert build_apk.bundled_models() == [tmp_path / "mine.onnx"]


def test_an_aar_does_not_bring_the_internet_in(apk):
    """Gradle merges the manifests of AARs, and removes what ours says is to be removed."""
    source = (APP / "app/src/main/AndroidManifest.xml").read_text()
    (asked,) = re.findall(r"<uses-permission\s(.*?)/>", source, re.DOTALL)
    assert asked.split() == ['android:name="android.permission.INTERNET"', 'tools:node="remove"']
    assert f'xmlns:tools="{build_apk.MERGER}"' in source
    for debug in (False, True):
        assert b"INTERNET" not in build_apk.merged_manifest(debug=debug)
    assert "INTERNET" not in run(["aapt", "dump", "xmltree", str(apk), "AndroidManifest.xml"])


def test_signatures(apk):
    told = run(["apksigner", "verify", "--verbose", "--min-sdk-version", "26", str(apk)])
    assert re.search(r"using v2 scheme \(.*\): true", told)
    assert re.search(r"using v3 scheme \(.*\): true", told)
    data = bytearray(apk.read_bytes())
    data[len(data) // 3] ^= 1
    broken = apk.with_name("broken.apk")
    broken.write_bytes(data)
    with pytest.raises(FailureError, match="refuses the APK"):
        apk_check.verify(broken, runtime=False, debug=True)


def test_one_key_signs_every_build(apk, tools, models):
    key = apk.with_name("debug.p12").read_bytes()
    again = apk.with_name("again.apk")
    words = ["--out", str(again), "--tools", str(tools), "--model", str(models[0])]
    assert build_apk.main(words) == 0
    assert apk.with_name("debug.p12").read_bytes() == key
    certificates = {
        re.search("SHA-256 digest: (.*)", run(["apksigner", "verify", "--print-certs", str(one)]))[
            1
        ]
        for one in (apk, again)
    }
    assert len(certificates) == 1


def test_models_are_whole_and_not_compressed(apk, models):
    with zipfile.ZipFile(apk) as archive:
        inside = {e.filename: e for e in archive.infolist() if e.filename.endswith(".onnx")}
        assert set(inside) == {f"assets/models/{model.name}" for model in models}
        for model in models:
            entry = inside[f"assets/models/{model.name}"]
            assert entry.compress_type == zipfile.ZIP_STORED
            digest = hashlib.sha256(archive.read(entry)).digest()
            assert digest == hashlib.sha256(model.read_bytes()).digest()


def test_the_aligned_libraries_are_the_aars_own(apk_with_runtime, tmp_path):
    with zipfile.ZipFile(apk_with_runtime) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".so"))
        for name in names:
            (tmp_path / Path(name).name).write_bytes(archive.read(name))
    assert names == [f"lib/arm64-v8a/lib{n}.so" for n in ("onnxruntime", "onnxruntime4j_jni")]
    told = run(["aarch64-linux-gnu-readelf", "-lW", str(tmp_path / "libonnxruntime.so")])
    loads = re.findall(r"^  LOAD .* (0x\w+)$", told, re.MULTILINE)
    assert loads
    assert all(int(one, 16) % 16384 == 0 for one in loads)


def test_classes(apk, apk_with_runtime):
    told = run(["dexdump", "-d", str(apk)])
    classes = set(re.findall(r"Class descriptor\s*: '(L[^;']+;)'", told))
    assert {"Lio/github/mfagan/app/MainActivity;", "Lio/github/mfagan/core/Tiling;",
            "Lio/github/mfagan/app/BenchmarkActivity;"} <= classes  # fmt: skip
    assert all(name.startswith("Lio/github/mfagan/") for name in classes)
    assert "invoke-custom" not in told
    told = run(["dexdump", str(apk_with_runtime)])
    assert "'Lai/onnxruntime/OrtSession;'" in told


def test_telemetry_is_off_before_the_runtime_can_load(apk):
    """The process begins with attachBaseContext, and nothing before it names ONNX Runtime."""
    told = run(["dexdump", "-d", str(apk)])
    (section,) = [one for one in told.split("\nClass #") if
                  "Class descriptor  : 'Lio/github/mfagan/app/App;'" in one]  # fmt: skip
    body = section.split("App.attachBaseContext:")[1].split("catches")[0]
    assert body.index('"ORT_DISABLE_TELEMETRY"') < body.index("Landroid/system/Os;.setenv")
    assert body.index("Landroid/system/Os;.setenv") < body.index("Lio/github/mfagan/app/OrtEngine;")
    assert "Lai/onnxruntime" not in section
    assert "Lio/github/mfagan/app/Work;.<init>" in body  # providers are asked before onCreate
    (application,) = [one for one in manifest(apk) if one[0] == "application"]
    assert application[1]["name"] == ".App"


def test_libraries_that_phones_cannot_load_are_refused(tools, models, runtime_classes, tmp_path):
    aar = make_aar(tmp_path, runtime_classes, page=4096)
    out = tmp_path / "mfagan.apk"
    with pytest.raises(FailureError, match="aligned to 4096 bytes: phones with pages of 16 KiB"):
        build_apk.build(out, models, [aar], tools=tools, debug=True)
    assert not out.exists()
    host = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(FailureError, match="is not a library for arm64-v8a"):
        apk_check.check_library("x.so", host)
    for data in (b"", b"\x7fELF", struct.pack("<4sBB", b"\x7fELF", 2, 1) + bytes(20)):
        with pytest.raises(FailureError, match="is not a library"):
            apk_check.check_library("x.so", data)


def misused(capsys, *words):
    status = build_apk.main([str(word) for word in words])
    (line,) = [
        one for one in capsys.readouterr().err.splitlines() if one.startswith("build_apk.py")
    ]
    return status, line


def test_what_is_given_wrongly_is_one_sentence(tools, models, tmp_path, capsys):
    out, no_aar = tmp_path / "a.apk", tmp_path / "no.aar"
    good = ("--out", out, "--tools", tools, "--model", models[0])
    assert misused(capsys, *good, "--aar", no_aar) == (
        2, f"build_apk.py: there is no file '{no_aar}'")  # fmt: skip
    no_aar.write_bytes(b"none")
    assert misused(capsys, *good, "--aar", no_aar)[0] == 2
    with zipfile.ZipFile(no_aar, "w") as archive:
        archive.writestr("classes.jar", b"")
    status, line = misused(capsys, *good, "--aar", no_aar)
    assert (status, "has no ONNX Runtime for arm64-v8a with its Java classes" in line) == (2, True)
    assert misused(capsys, "--out", tmp_path / "a.zip")[0] == 2
    assert not out.exists()


def test_lambdas_are_found(tools, tmp_path):
    """dx translates them into what phones do not have, and says nothing."""
    source = tmp_path / "Shy.java"
    source.write_text("package io.github.mfagan.core;\npublic class Shy {\n"
                      "  Runnable go() { return () -> {}; }\n}\n")  # fmt: skip
    run(["javac", "--release", "8", "-Xlint:-options", "-d", str(tmp_path / "out"), str(source)])
    dex = tmp_path / "classes.dex"
    words = ["java", "-cp", str(tools / build_apk.DX), "com.android.dx.command.Main", "--dex"]
    run([*words, "--min-sdk-version=26", f"--output={dex}", str(tmp_path / "out")])
    apk = tmp_path / "lambda.apk"
    with zipfile.ZipFile(apk, "w") as archive:
        archive.write(dex, "classes.dex")
    with pytest.raises(FailureError, match="Lio/github/mfagan/core/Shy; uses lambdas"):
        apk_check._check_classes(apk, runtime=False)


def test_programs_that_are_missing_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    status, line = misused(capsys, "--out", tmp_path / "a.apk")
    assert status == 1
    assert "apt-get install aapt apksigner default-jdk-headless dexdump zipalign" in line


def test_make_apk_is_this_command():
    said = subprocess.run(["make", "-n", "apk", "AAR=a.aar"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout  # fmt: skip
    assert "android_demo/build_apk.py --out runs/apk/mfagan.apk --aar a.aar" in said
