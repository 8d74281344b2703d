"""`collect --device adb` on a phone that is a folder: what it writes, what a lost phone keeps."""

from __future__ import annotations

import zipfile

import pytest

import latency.cli
from latency import collect, collect_devices
from latency.measurement import read_measurements
from latency.phone import session


@pytest.fixture
def collecting(capsys, tmp_path, monkeypatch):
    """Return a function that runs `collect --device adb` for one batch of four networks."""
    monkeypatch.setattr(session, "_RETURN_S", 1.0)
    monkeypatch.setattr(collect, "FIRST", 8)
    monkeypatch.setattr(collect_devices, "RUNS", 3)

    def run(*words, target="snapdragon-855/cpu"):
        argv = ["collect", "--device", "adb", "--target", target, "--minutes", "0.0001"]
        argv += ["--threads", "1", "--input", "8x8", "--out", str(tmp_path / "m.jsonl")]
        status = latency.cli.main([*argv, *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_networks_are_measured_with_the_real_onnx_runtime(phone, collecting, real_wheel, tmp_path):
    status, out, err = collecting("--ort-wheel", real_wheel)
    assert (status, "differ" in err, "warning" in err) == (0, False, False), err
    assert out.splitlines()[-1] == str(tmp_path / "m.jsonl")
    found = read_measurements(tmp_path / "m.jsonl")
    assert out.startswith(f"{len(found)} measurements added to 0")
    assert {one.model.split("_")[0] for one in found} <= {"mfa", "chain"}
    for one in found:
        assert (one.soc, one.unit, one.provider, one.input_size) == (
            *("snapdragon-855", "cpu", "cpu"),
            (8, 8),
        )
        assert one.architecture == (one.model if one.model.startswith("mfa_") else None)
        assert one.reference_ms > 0
        assert len(one.inference_times_ms) == 3
        assert one.emulated
    assert len({one.reference_ms for one in found[:6]}) == 1  # measured once for six
    assert not phone.toolkit.exists()


def test_networks_are_measured_with_the_runtime_of_an_aar(phones, collecting, kit, tmp_path):
    android = phones({"ro.soc.model": "SM8250", "ro.product.cpu.abilist": "arm64-v8a"})
    (android.root / "system/bin/linker64").touch()
    aar = tmp_path / "onnxruntime-android.aar"
    with zipfile.ZipFile(aar, "w") as archive:
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", b"the AAR's own")
    seen = set()

    def look(_):
        seen.update(one.read_bytes() for one in android.toolkit.glob("runtime/*.so"))
        return False

    android.on_command = look
    status, out, err = collecting("--ort-aar", aar, *kit[2:], target="snapdragon-865/cpu:int8")
    assert status == 0, err
    assert seen == {b"the AAR's own"}
    found = read_measurements(tmp_path / "m.jsonl")
    assert out.startswith(f"{len(found)} measurements added to 0")
    assert {(one.soc, one.unit, one.precision) for one in found} == {
        ("snapdragon-865", "cpu", "int8")
    }


def test_a_lost_phone_keeps_what_is_measured_and_the_next_call_goes_on(
    phone, collecting, kit, adb, tmp_path
):
    runs = []

    def look(command):
        runs.extend([command] if "--shape" in command else [])
        return len(runs) == 4 and "--shape" in command  # the reference and two networks are done

    phone.on_command = look
    status, _, err = collecting(*kit)
    said = [line for line in err.splitlines() if line.startswith("mfagan-latency")]
    assert (status, len(said)) == (1, 1), err
    assert f"the device '{phone.serial}' is gone" in said[0]
    kept = read_measurements(tmp_path / "m.jsonl")
    assert len(kept) == 2
    assert f"2 measurements are kept in '{tmp_path / 'm.jsonl'}', the same command goes" in said[0]
    phone.come_back()
    phone.on_command = lambda _: False
    for word in ("disconnect", "connect"):
        adb.call(word, phone.serial)
    status, out, err = collecting(*kit)
    assert status == 0, err
    found = read_measurements(tmp_path / "m.jsonl")
    assert found[:2] == kept
    assert out.startswith(f"{len(found) - 2} measurements added to 2")
    assert len({one.model for one in found}) == len(found) > 2


def test_a_phone_of_another_chip_is_refused_and_nothing_written(phone, collecting, kit, tmp_path):
    status, _, err = collecting(*kit, target="snapdragon-865/cpu")
    assert status == 2
    assert "the target is 'snapdragon-865/cpu', what was measured is 'snapdragon-855/cpu" in err
    assert not (tmp_path / "m.jsonl").exists()
    assert not phone.toolkit.exists()
