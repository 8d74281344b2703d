"""Pictures enlarged by the app's engine on the JVM are those of `mfagan-upscale`, bit by bit."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from jvm import ort_library
from PIL import Image

import mfagan
from latency.phone.build import build
from latency.phone.result import is_whole

pytestmark = pytest.mark.debian
NO_END = re.compile("truncated|broken|cannot identify")
MODELS = ("pooled", "pooled_int8", "bytes", "fixed", "plain", "plain_fixed")


def asked(model, picture, out, **more):
    return {"ask": "upscale", "model": str(model), "picture": str(picture), "out": str(out),
            "tile": 24, "threads": 1, **more}  # fmt: skip


def test_results_are_those_of_python(jvm, exported, picture, tmp_path):
    """With the same ONNX Runtime, whatever the tile: 24 here, the whole frame there."""
    outs = [tmp_path / f"{name}.png" for name in MODELS]
    questions = [
        asked(exported[name], picture, out) for name, out in zip(MODELS, outs, strict=True)
    ]
    answers = jvm.ask(*questions, runtime=True)
    image = np.array(Image.open(picture))
    for name, out, answer in zip(MODELS, outs, answers, strict=True):
        right = mfagan.upscale(image, mfagan.load(exported[name], threads=1))
        with Image.open(out) as opened:
            found = np.array(opened)
        assert found.shape == right.shape, name
        assert np.array_equal(found, right), name
        shares = answer["shares"]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)
        assert len(shares) > 3


def test_too_little_memory_lowers_the_tile(jvm, exported, picture, tmp_path):
    out = tmp_path / "out.png"
    (answer, never, fixed) = jvm.ask(
        asked(exported["plain"], picture, out, fake="repeat", tile=64, most=1200),
        asked(exported["plain"], picture, tmp_path / "no.png", fake="repeat", tile=64, most=10),
        asked(exported["plain_fixed"], picture, tmp_path / "no.png", fake="repeat", most=10),
    )
    assert answer["smaller"] == [32, 16]
    with Image.open(out) as opened, Image.open(picture) as lr:
        assert np.array_equal(np.array(opened), np.array(lr).repeat(2, 0).repeat(2, 1))
    for refusal in (never, fixed):
        assert refusal == {
            "refused": "there is too little memory; use a smaller model",
            "kind": "NetworkException",
        }


def test_cancelling_and_outputs_that_are_no_numbers(jvm, exported, picture, tmp_path):
    out = tmp_path / "out.png"
    cancelled, bad = jvm.ask(
        asked(exported["plain"], picture, out, fake="repeat", cancel=2),
        asked(exported["plain"], picture, out, fake="nan"),
    )
    assert cancelled["kind"] == "CancelledException"
    assert bad["refused"] == "the network's output is not finite; its weights are bad"
    with pytest.raises(OSError, match=NO_END), Image.open(out) as opened:
        opened.load()


def measure(jvm, **extras):
    """Return what the app's benchmark says on this machine."""
    words = [f"{key}={value}" for key, value in extras.items()]
    command = jvm.command("io.github.mfagan.app.MeasureOnDesktop", *words, runtime=True)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"ORT_DISABLE_TELEMETRY": "1"}
    )
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("name", ["fixed", "bytes"])
def test_the_benchmark_says_what_the_phone_side_program_says(jvm, exported, tmp_path, name):
    """Same keys, same input, and so the same output to the last bit under the same library."""
    shape, kind = ("1,3,48,64", "float") if name == "fixed" else ("1,40,52,3", "uint8")
    app = measure(jvm, model=exported[name], shape=shape, type=kind, runs=4, warmup=1, threads=1)
    build("host", tmp_path / "runner")
    words = [tmp_path / "runner", ort_library(), exported[name], "--shape", shape, "--type", kind]
    words += ["--runs", "4", "--warmup", "1", "--layers", str(tmp_path / "layers")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    program = json.loads(done.stdout)
    assert list(app) == list(program)
    for same in ("runtime_version", "output_shape", "checksum", "layers"):
        assert app[same] == program[same], same
    assert app["output_mean"] == pytest.approx(program["output_mean"], rel=1e-8)
    assert is_whole(app, 4)
    assert is_whole(program, 4)


def test_the_benchmark_says_errors_in_json(jvm, exported, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x01nonsense")
    model = exported["fixed"]
    said = [
        measure(jvm, model=tmp_path / "bad.onnx"),
        measure(jvm, model=model, shape="1,3,9,9"),
        measure(jvm, model=model, shape="1,3,48,64", provider="nnapi"),
        measure(jvm, model=model, shape="1,3,48,64", provider="nnapi", options="a=b"),
        measure(jvm, model=model, provider="gpu"),
        measure(jvm, model=model, runs="many"),
        measure(jvm, runs="1"),
        measure(jvm, model=model, rums="1"),
    ]
    reasons = [answer["reason"] for answer in said]
    assert all(set(answer) == {"error", "reason"} for answer in said)
    assert reasons[0].startswith("the model cannot be loaded with cpu: ")
    assert "Got: 9 Expected: 48" in reasons[1] or "dimensions" in reasons[1]
    assert reasons[2] == "the model cannot be loaded with nnapi: NNAPI is not in this build"
    assert reasons[3] == "NNAPI's only option is flags=N"
    assert reasons[4].startswith("provider is one of [cpu, xnnpack, nnapi, qnn], got 'gpu'")
    assert reasons[5] == "runs is a number of at least 1, got 'many'"
    assert reasons[6] == "--es model PATH is needed"
    assert reasons[7] == "there is no extra 'rums'"
