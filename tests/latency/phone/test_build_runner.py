"""The phone-side program: what it prints, what it refuses, and how it is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import latency.cli
from latency.commandline import FailureError
from latency.phone import build as building
from latency.phone.build import build


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    path = tmp_path_factory.mktemp("runner") / "runner"
    assert build("host", path) == "gcc"
    return path


@pytest.fixture(scope="module")
def library():
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("this onnxruntime has no libonnxruntime.so")
    return found[0]


def call(runner, *words, status=0, **options):
    done = subprocess.run(
        [runner, *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def image(shape, kind):
    """Return the program's input, computed by NumPy instead."""
    state, values = 1, []
    for _ in range(int(np.prod(shape))):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**24)
    values = np.array(values).reshape(shape)
    if kind == "uint8":
        return np.floor(values * 256).astype(np.uint8)
    if kind == "float":
        return values.astype(np.float32)
    near = values.astype(np.float16)  # the program rounds down
    return np.where(near > values, np.nextafter(near, np.float16(-1)), near)


def fnv(data):
    found = 14695981039346656037
    for byte in data:
        found = (found ^ byte) * 1099511628211 % 2**64
    return f"{found:016x}"


def save(path, kind, shape=(1, 3, 6, 5)):
    """Save a network that doubles its input, in the input's type."""
    types = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
    dtype = {"float": np.float32, "float16": np.float16, "uint8": np.uint8}[kind]
    values = [helper.make_tensor_value_info(n, types[kind], shape) for n in ("lr", "sr")]
    two = numpy_helper.from_array(np.array(2, dtype), "two")
    nodes = [helper.make_node("Mul", ["lr", "two"], ["sr"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [two])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.parametrize("kind", ["float", "float16", "uint8"])
def test_it_computes_what_numpy_does(runner, library, tmp_path, kind):
    model = save(tmp_path / "m.onnx", kind)
    words = ("--shape", "1,3,6,5", "--type", kind, "--runs", 4, "--layers", tmp_path / "layers")
    said = call(runner, library, model, *words, "--warmup", 0)
    wanted = image((1, 3, 6, 5), kind) * np.array(2, image((1,), kind).dtype)
    assert said["output_shape"] == [1, 3, 6, 5]
    assert said["checksum"] == fnv(wanted.tobytes())
    assert said["output_mean"] == pytest.approx(wanted.astype(float).mean(), rel=1e-6)
    assert len(said["times_ms"]) == 4
    assert min(said["times_ms"]) > 0
    # There is no float16 product on every CPU: the runtime casts before and after it.
    assert said["layers"] == {"CPUExecutionProvider": 1 if kind != "float16" else ANY}
    assert said["peak_bytes"] > 2**20
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_provider_of_a_library_of_its_own_is_found_by_name(runner, library, tmp_path):
    model = save(tmp_path / "m.onnx", "float")
    words = (library, model, "--shape", "1,3,6,5", "--runs", 1)
    one = call(runner, *words)
    two = call(runner, *words, "--provider", "CPUExecutionProvider", "--plugin", "")
    assert one["checksum"] == two["checksum"]
    said = call(runner, *words, "--provider", "None", "--plugin", "", status=2)
    assert said["reason"] == "the library given with it offers no such provider here"
    said = call(runner, *words, "--provider", "QNN", "--plugin", "/no/such.so", status=2)
    assert "/no/such.so" in said["reason"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "--shape"),
        (["--shape", "1,3,6,x"], "--shape"),
        (["--shape", "1,3,6,0"], "--shape"),
        (["--shape", ",".join("1" * 9)], "--shape"),
        (["--shape", "1,3,6,5", "--type", "int8"], "--type"),
        (["--shape", "1,3,6,5", "--runs", "0"], "--runs"),
        (["--shape", "1,3,6,5", "--runs"], "--runs"),
        (["--shape", "1,3,6,5", "--option", "x"], "--option"),
        (["--shape", "1,3,6,5", "--fast"], "--fast"),
        (["--shape", "1,3,6,4"], "run"),
        (["--shape", "1,3,6,5", "--type", "uint8"], "run"),
        (["--shape", "1,3,6,5", "--provider", "XNNPACK"], "provider"),
        (["--shape", "1,3,6,5", "--provider", 'no"such'], "provider"),
        (["--shape", "1,3,6,5", "--provider", "nnapi"], "provider"),
    ],
)
def test_errors_are_json_too(runner, library, tmp_path, words, error):
    model = save(tmp_path / "m.onnx", "float")
    assert call(runner, library, model, *words, status=2)["error"] == error


def test_files_that_are_not_what_they_should_be(runner, library, tmp_path):
    model = save(tmp_path / "m.onnx", "float")
    shape = ("--shape", "1,3,6,5")
    assert call(runner, status=2)["error"] == "usage"
    assert call(runner, tmp_path / "none.so", model, *shape, status=2)["error"] == "runtime"
    assert call(runner, "libm.so.6", model, *shape, status=2)["error"] == "runtime"
    assert call(runner, library, tmp_path / "none.onnx", *shape, status=2)["error"] == "load"
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:-20])
    assert call(runner, library, tmp_path / "cut.onnx", *shape, status=2)["error"] == "load"


def test_it_ends_when_nobody_listens_any_more(runner, tmp_path):
    """A pulled cable closes the program's standard input."""
    source, hang = tmp_path / "hang.c", tmp_path / "hang.so"
    source.write_text(
        "#include <stdlib.h>\n#include <unistd.h>\nvoid *OrtGetApiBase(void) {\n"
        '  if (!getenv("ORT_DISABLE_TELEMETRY")) _exit(9);\n'
        '  if (write(1, "here", 4)) for (;;) pause();\n  return 0;\n}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", hang], check=True)
    words = [runner, hang, "none", "--shape", "1", "--watch"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(4) == b"here"
        process.stdin.close()
        assert process.wait(30) == 3


def test_the_command_builds_for_this_machine(capsys, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    out = tmp_path / "deep" / "runner"
    assert latency.cli.main(["build-runner", "--for", "host", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert os.access(out, os.X_OK)
    assert latency.cli.main(["build-runner", "--out", str(tmp_path)]) == 2
    assert f"--out must be a file, '{tmp_path}' is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "package"),
    [
        ("host", "apt-get install gcc"),
        ("linux-arm64", "apt-get install gcc-aarch64-linux-gnu"),
        ("android-arm64", "set ANDROID_NDK_HOME to its folder"),
    ],
)
def test_a_missing_compiler_is_named(monkeypatch, tmp_path, target, package):
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FailureError, match=package):
        build(target, tmp_path / "runner")
    assert not list(tmp_path.iterdir())


def test_the_ndks_compiler_comes_first(monkeypatch, tmp_path):
    folder = tmp_path / "ndk/toolchains/llvm/prebuilt/linux-x86_64/bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path / "ndk"))
    with pytest.raises(FailureError, match="where there is no 'toolchains"):
        build("android-arm64", tmp_path / "runner")
    compiler = folder / "aarch64-linux-android26-clang"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "$@" > "$2"\n')
    compiler.chmod(0o755)
    said = build("android-arm64", tmp_path / "runner")
    assert said == "the NDK's aarch64-linux-android26-clang"
    compiler.write_text("#!/bin/sh\necho 'runner.c:1: error: no' >&2\nexit 1\n")
    with pytest.raises(FailureError, match=r"cannot build the program: runner.c:1: error: no"):
        build("android-arm64", tmp_path / "runner2")
    assert not (tmp_path / "runner2").exists()


def test_bionics_declarations_are_those_that_the_program_uses():
    declared = building._declared()
    text = (Path(building.__file__).parent / "runner.c").read_text()
    assert {name for name in declared if f"{name}(" in text} == declared
    assert {"dlopen", "signal", "_exit", "vsnprintf"} <= declared
