"""`profile --device adb` on a phone that is a folder, through Android's real adb."""

from __future__ import annotations

import json
import shutil
import zipfile

import onnx
import pytest

from latency.measurement import read_measurements


def sentences(err):
    return [line for line in err.splitlines() if line.startswith("mfagan-latency: ")]


def test_the_whole_way_with_the_real_onnx_runtime(phone, profile, real_wheel, tmp_path):
    words = ("--ort-wheel", real_wheel, "--provider", "cpu", "--threads", "1,2")
    status, out, err = profile(*words)
    assert status == 0, err
    assert out.splitlines()[-1] == str(tmp_path / "m.jsonl")
    import onnxruntime

    one, two = read_measurements(tmp_path / "m.jsonl")
    assert (one.device, one.soc, one.system) == (
        "Google Pixel 4",
        "snapdragon-855",
        "Android 14 (API 34)",
    )
    assert (one.runtime, one.runtime_version) == ("onnxruntime", onnxruntime.__version__)
    assert (one.provider, one.unit, one.precision, one.model) == ("cpu", "cpu", "fp32", "sr.onnx")
    assert (one.threads, two.threads, one.input_size) == (1, 2, (16, 20))
    assert (len(one.inference_times_ms), one.warmup) == (3, 1)
    assert one.peak_memory_bytes > 5 * 2**20
    assert one.load_time_ms > 0
    assert set(one.layers_per_unit) == {"cpu"}
    assert one.clocks == "schedutil, MHz 1785 -> 1785 of 2841"
    assert one.thermal == "chip 36.5 -> 36.5 C, battery 30.1 -> 30.1 C, throttling 0 -> 0"
    assert one.battery == "81 -> 81 %"
    assert one.emulated  # x86 is no phone's chip
    assert not phone.toolkit.exists()


def test_every_combination_is_a_line_and_files_are_pushed_once(phone, profile, kit, tmp_path):
    status, out, err = profile(*kit, "--provider", "cpu,xnnpack", "--threads", "1,4", "--json")
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    combinations = [(line["provider"], line["threads"]) for line in lines]
    assert combinations == [("cpu", 1), ("cpu", 4), ("xnnpack", 1), ("xnnpack", 4)]
    assert [line["median_ms"] for line in lines] == [1.75] * 4
    assert len(read_measurements(tmp_path / "m.jsonl")) == 4
    # The library, the model and the program, each moved into its place once.
    assert sum(command.count("mv -f") for command in phone.commands) == 3
    assert not phone.toolkit.exists()


def test_what_the_phone_has_from_before_is_not_pushed_again_but_removed(phone, profile, kit):
    library = bytes.fromhex("7f454c46") + bytes(200_000)
    place = phone.toolkit / "runtime" / "libonnxruntime.so"
    place.parent.mkdir(parents=True)
    place.write_bytes(library)
    assert profile(*kit)[0] == 0
    assert sum(command.count("mv -f") for command in phone.commands) == 2
    assert not phone.toolkit.exists()


STRANGE = ["two words.onnx", "quo'te\".onnx", "semi; touch hacked.onnx", "$(touch hacked).onnx",
           "-rf.onnx", "größe.onnx"]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_strange_file_names(phone, profile, kit, tiny_onnx, tmp_path, name):
    model = tiny_onnx.rename(tmp_path / name)
    status, _, err = profile(*kit, model=model)
    assert status == 0, err
    assert [one.model for one in read_measurements(tmp_path / "m.jsonl")] == [name]
    assert not phone.toolkit.exists()
    assert not list(tmp_path.rglob("hacked*"))


@pytest.mark.parametrize("name", ["a b;$(touch hacked).whl", "'\"_x86_64.whl"])
def test_strange_names_of_wheels_and_programs(phone, profile, kit, tmp_path, name):
    odd = tmp_path / "o d'd;$(touch hacked)"
    odd.mkdir()
    wheel = odd / name.replace(".whl", "_x86_64.whl")
    runner = odd / "run;$(touch hacked)"
    for path, text in ((wheel, kit[1]), (runner, kit[3])):
        shutil.copy(text, path)
    status, _, err = profile("--ort-wheel", wheel, "--runner", runner)
    assert status == 0, err
    assert not phone.toolkit.exists()
    assert not list(tmp_path.rglob("hacked"))


def test_a_model_of_any_size_gets_a_fixed_one(phone, profile, kit, tmp_path):
    pushed = {}

    def look(_):
        for path in phone.toolkit.glob("*.onnx"):
            pushed[path.name] = onnx.load(path)
        return False

    phone.on_command = look
    assert profile(*kit)[0] == 0
    (model,) = pushed.values()
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, 16, 20]
    assert read_measurements(tmp_path / "m.jsonl")[0].input_size == (16, 20)


def test_the_program_is_told_what_was_asked(phone, profile, kit):
    said = []

    def look(_):
        started = phone.root / "data/local/tmp/started"
        if started.exists():
            said[:] = started.read_text().splitlines()
        return False

    phone.on_command = look
    words = ("--provider", "qnn", "--provider-option", "qnn:backend_path=a b;$(id)")
    assert profile(*kit, *words, "--threads", "3", "--limit", "7")[0] == 0
    text = " ".join(said)
    assert "--shape 1,3,16,20 --type float --threads 3 --warmup 1 --runs 3 --limit 7" in text
    assert said[-4:] == ["--provider", "QNN", "--option", "backend_path=a b;$(id)"]


def test_it_waits_until_the_phone_is_cool(phone, profile, kit, monkeypatch):
    from latency.phone import state

    waits = []

    def sleep(seconds):
        waits.append(seconds)
        phone.set_temperatures(chip=48.0 - 6 * len(waits), battery=30.0)

    monkeypatch.setattr(state.wait_until_cool, "__defaults__", (sleep,))
    phone.set_temperatures(chip=48.0, battery=30.0)
    status, _, err = profile(*kit, "--cool", "40")
    assert (status, len(waits)) == (0, 2)
    assert "the device has 48.0 C; waiting for 40.0 C" in err
    phone.set_temperatures(chip=30.0, battery=55.0)
    monkeypatch.setattr(state, "_PATIENCE_S", 15.0)
    monkeypatch.setattr(state.wait_until_cool, "__defaults__", (waits.append,))
    status, _, err = profile(*kit, "--cool", "40")
    assert status == 1
    assert "still has 55.0 C after" in sentences(err)[0]
    assert not phone.toolkit.exists()


def test_one_provider_that_fails_does_not_stop_the_others(phone, profile, kit, tmp_path):
    words = ("--provider", "nnapi,cpu", "--provider-option", "nnapi:flags=1")
    script = (tmp_path / "runner.sh").read_text().replace("FAIL", "nnapi")
    (tmp_path / "runner.sh").write_text(script)
    status, _, err = profile(*kit, *words)
    assert status == 1
    (line,) = sentences(err)
    assert (
        "1 of 2 measurements failed: 'sr.onnx' with nnapi and 4 threads does not run: no such"
        in line
    )
    assert [one.provider for one in read_measurements(tmp_path / "m.jsonl")] == ["cpu"]
    assert not phone.toolkit.exists()


@pytest.mark.usefixtures("phone")
def test_a_provider_that_computes_something_else_is_warned_of(profile, kit, tmp_path):
    script = (tmp_path / "runner.sh").read_text()
    swap = (
        'case "$*" in *XNNPACK*) sed_it() { sed s/0.5,/0.7,/; } ;; *) sed_it() { cat; } ;; esac\n'
    )
    script = script.replace("echo '{\"runtime", swap + "echo '{\"runtime").rstrip() + " | sed_it\n"
    (tmp_path / "runner.sh").write_text(script)
    status, _, err = profile(*kit, "--provider", "cpu,xnnpack")
    assert status == 0, err
    assert "warning: 'sr.onnx' with xnnpack has the mean output 0.7" in err


@pytest.mark.usefixtures("phone")
def test_the_flag_marks_measurements_as_emulated(profile, kit, tmp_path):
    assert profile(*kit, "--emulated")[0] == 0
    assert read_measurements(tmp_path / "m.jsonl")[0].emulated


ARM64 = {"ro.product.model": "Pixel 8", "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a"}


def make_aar(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name * 100)
    return path


@pytest.fixture
def android(phones):
    """Return a phone for arm64 with Android's loader."""
    phone = phones(ARM64)
    (phone.root / "system/bin/linker64").touch()
    return phone


def test_aars_of_the_runtime_and_of_a_provider(android, profile, kit, tmp_path):
    main = make_aar(
        tmp_path / "ort.aar",
        "jni/arm64-v8a/libonnxruntime.so",
        "jni/x86_64/libonnxruntime.so",
        "jni/arm64-v8a/../../../../escaped.so",
        "classes.jar",
    )
    names = ("libonnxruntime_providers_qnn.so", "libQnnHtp.so", "libQnnHtpV75Skel.so")
    more = make_aar(tmp_path / "qnn.aar", *(f"jni/arm64-v8a/{name}" for name in names))
    seen = set()

    def look(_):
        started = android.root / "data/local/tmp/started"
        seen.update(path.name for path in android.toolkit.glob("runtime/*.so"))
        seen.update(started.read_text().splitlines() if started.exists() else ())
        return False

    android.on_command = look
    words = ("--ort-aar", main, more, "--provider", "qnn")
    status, _, err = profile(*words, *kit[2:])
    assert status == 0, err
    assert {*names, "libonnxruntime.so"} <= seen
    home = android.toolkit / "runtime"
    assert {"QNNExecutionProvider", f"{home}/{names[0]}", "backend_path=libQnnHtp.so"} <= seen
    (one,) = read_measurements(tmp_path / "m.jsonl")
    assert (one.provider, one.unit, one.layers_per_unit) == ("qnn", "npu", {"cpu": 3})
    assert not android.toolkit.exists()
    assert not list(tmp_path.glob("**/escaped.so"))


def test_aars_that_are_not_for_it(android, profile, kit, tmp_path):
    other = make_aar(tmp_path / "other.aar", "jni/x86_64/libonnxruntime.so")
    status, _, err = profile("--ort-aar", other, *kit[2:])
    assert status == 2
    assert f"'{other}' has no jni/arm64-v8a/libonnxruntime.so" in sentences(err)[0]
    good = make_aar(tmp_path / "good.aar", "jni/arm64-v8a/libonnxruntime.so")
    data = bytearray(good.read_bytes())
    data[80:120] = bytes(40)
    good.write_bytes(data)
    status, _, err = profile("--ort-aar", good, *kit[2:])
    assert status == 2
    assert "is damaged: 'jni/arm64-v8a/libonnxruntime.so' cannot be unpacked" in sentences(err)[0]
    android.set_properties({**ARM64, "ro.product.cpu.abilist": "armeabi-v7a"})
    status, _, err = profile("--ort-aar", other, *kit[2:])
    assert status == 2
    assert "is armeabi-v7a; AARs are measured on arm64-v8a phones only" in sentences(err)[0]


@pytest.mark.parametrize("sdk", ["34", "35"])
def test_nnapis_end_is_told(android, profile, kit, tmp_path, sdk):
    android.set_properties({**ARM64, "ro.build.version.sdk": sdk, "ro.build.version.release": "x"})
    aar = make_aar(tmp_path / "ort.aar", "jni/arm64-v8a/libonnxruntime.so")
    status, _, err = profile("--ort-aar", aar, *kit[2:], "--provider", "nnapi")
    assert status == 0, err
    assert ("NNAPI is deprecated in Android x (API 35)" in err) == (sdk == "35")
