"""`profile --device adb --through app`: the app's own answer, on a phone that is a folder."""

from __future__ import annotations

import json
import re

import fake_app
import pytest

from latency.measurement import read_measurements

ARM64 = {
    "ro.product.model": "Pixel 8",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.model": "SM8550",
}


@pytest.fixture
def phone_with_app(phones):
    phone = phones(ARM64)
    fake_app.install(phone.root)
    return phone


def extras(phone):
    """Return what each intent carried, by its identity."""
    return {
        path.name.partition(".")[2]: dict(
            word.split("=", 1) for word in path.read_text().split("\0") if word
        )
        for path in phone.root.glob("extras.*")
    }


def sentence(err):
    (line,) = [line for line in err.splitlines() if line.startswith("mfagan-latency: ")]
    return line


def test_the_answer_of_the_app_is_a_measurement(phone_with_app, profile, tmp_path):
    words = ("--through", "app", "--provider", "cpu,qnn", "--threads", "2", "--limit", "33")
    option = ("--provider-option", "qnn:htp_performance_mode=burst = a b;$(id)")
    status, out, err = profile(*words, *option)
    assert status == 0, err
    assert "through the app io.github.mfagan.app" in err
    one, two = read_measurements(tmp_path / "m.jsonl")
    assert (one.provider, two.provider, two.unit) == ("cpu", "qnn", "npu")
    assert (one.runtime_version, one.inference_times_ms) == ("1.27.0", (2.0, 1.5, 1.75))
    assert one.layers_per_unit == {"cpu": 3}
    assert two.layers_per_unit == {"cpu": 2, "npu": 1}
    assert (one.threads, one.warmup, one.input_size) == (2, 1, (16, 20))
    assert one.system == "Android 14 (API 34)"
    asked = sorted(extras(phone_with_app).values(), key=lambda told: told["provider"])
    for told in asked:
        place = told.pop("model")
        assert re.fullmatch(r".*/data/local/tmp/mfagan/[0-9a-f]{16}\.onnx", place)
        assert re.fullmatch("[0-9a-f]{16}", told.pop("id"))
    common = {"shape": "1,3,16,20", "type": "float", "threads": "2", "warmup": "1", "runs": "3",
              "limit": "33"}  # fmt: skip
    assert asked == [
        {**common, "provider": "cpu"},
        {**common, "provider": "qnn", "options": "htp_performance_mode=burst = a b;$(id)"},
    ]
    assert out.splitlines()[-1] == str(tmp_path / "m.jsonl")
    assert not phone_with_app.toolkit.exists()
    assert "force-stop io.github.mfagan.app" in (phone_with_app.root / "am").read_text()


@pytest.mark.parametrize("hidden", ["no_log", "files"])
def test_log_or_file_is_enough(phone_with_app, profile, tmp_path, hidden):
    root = phone_with_app.root
    (root / hidden).touch()
    (root / "files").touch()
    if hidden == "files":
        (root / "files").unlink()
    assert profile("--through", "app")[0] == 0
    assert len(read_measurements(tmp_path / "m.jsonl")) == 1
    assert not list(root.glob("sdcard/Android/data/*/files/*"))  # nothing of it stays


def test_an_error_of_the_app_is_told(phone_with_app, profile, tmp_path):
    status, _, err = profile("--through", "app", "--provider", "nnapi,cpu")
    assert status == 1
    line = sentence(err)
    assert "1 of 2 measurements failed: 'sr.onnx' with nnapi and 4 threads does not run: " in line
    assert line.endswith("NNAPI is not here")
    assert [one.provider for one in read_measurements(tmp_path / "m.jsonl")] == ["cpu"]
    assert not phone_with_app.toolkit.exists()


def test_the_app_is_not_there(phone_with_app, profile, phones, tmp_path):
    (phone_with_app.root / "installed").unlink()
    status, _, err = profile("--through", "app")
    assert status == 1
    assert "the app does not start: install its debug build (" in sentence(err)
    assert "BenchmarkActivity" in sentence(err)
    other = phones({**ARM64, "ro.product.model": "no Android"})
    status, _, err = profile("--through", "app", device=f"adb:{other.serial}")
    assert status == 1
    assert "am: " in sentence(err)
    assert not (tmp_path / "m.jsonl").exists()


def test_an_app_that_never_answers_is_ended(phone_with_app, profile, tmp_path, monkeypatch):
    from latency.phone import program

    monkeypatch.setattr(program, "_APP_GRACE_S", 0)
    (phone_with_app.root / "silent").touch()
    status, _, err = profile("--through", "app", "--limit", "1")
    assert status == 1
    assert "did not end within 1 s and was ended on the phone" in sentence(err)
    assert (phone_with_app.root / "am").read_text().count("force-stop") >= 2
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"times_ms": [1]}', "nonsense"])
def test_answers_that_are_none(phone_with_app, profile, tmp_path, monkeypatch, said):
    from latency.phone import program

    monkeypatch.setattr(program, "_APP_GRACE_S", 1)
    (phone_with_app.root / "answer").write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\n")
    status, _, err = profile("--through", "app", "--limit", "1")
    assert status == 1
    assert "without a result" in sentence(err) or "did not end" in sentence(err)
    assert not (tmp_path / "m.jsonl").exists()


def test_a_phone_that_is_lost_meanwhile(phone_with_app, profile, tmp_path, monkeypatch):
    from latency.phone import session

    monkeypatch.setattr(session, "_RETURN_S", 1.0)
    phone_with_app.on_command = lambda command: "am start" in command
    status, _, err = profile("--through", "app")
    assert status == 1
    assert "may stay on the device" in sentence(err)
    assert not (tmp_path / "m.jsonl").exists()


def test_flags_that_the_app_makes_needless(phone_with_app, profile, kit):
    for flags in (kit[:2], kit[2:], ("--ort-aar", "a.aar")):
        status, _, err = profile("--through", "app", *flags)
        assert status == 2
        line = sentence(err)
        assert f"{flags[0]} has no meaning with --through app: the app has its own" in line
    assert not phone_with_app.commands
    status, _, err = profile("--through", "app", device="host")
    assert (status, "--through has a meaning only with --device adb" in err) == (2, True)


def test_json_and_emulators(phones, profile):
    phone = phones({**ARM64, "ro.hardware": "ranchu"})
    fake_app.install(phone.root)
    status, out, err = profile("--through", "app", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["emulated"] is True
