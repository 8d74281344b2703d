"""`--measure`: the best few are measured, and chosen by that."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
from search_commands import words

from latency.measurement import Measurement, append_measurements, read_measurements
from latency.target import PROFILE_FOLDER
from mfagan.checkpoint import read_about
from nas.cli import main


def told(out) -> dict:
    return json.loads((out / "search.json").read_text())


@pytest.fixture
def host_profile(tmp_path):
    """A profile of this machine, made up of a phone's CPU."""
    from latency.files import write_json

    values = json.loads(
        next(PROFILE_FOLDER.glob("snapdragon-865-cpu-onnxruntime-int8*.json")).read_text()
    )
    path = tmp_path / "host.json"
    write_json(path, values | {"soc": "host", "precision": "fp32", "device": "this machine"})
    return path


def test_the_best_few_are_measured_here_and_chosen_by_that(
    supernet_file, photos, tmp_path, capsys, host_profile, monkeypatch
):
    """Times are made up, the runs are real: the predicted best is slow, the third is fast."""
    from nas import measuring

    real = measuring._Host.measure
    visits: list[list[str]] = []

    def measure(self, paths):
        for place, one in enumerate(real(self, paths)):
            ms = 1e-3 if place >= 2 else 1e3
            visits[-1:] = [[path.parent.name for path in paths]]
            yield replace(one, inference_times_ms=(ms,) * 5)

    monkeypatch.setattr(measuring._Host, "measure", measure)
    monkeypatch.setattr(measuring, "_HOST_VISITS", 2)
    visits.append([])
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, target=host_profile, budget_ms=5, trials=12)
    assert main([*flags, "--measure", "host"]) == 0
    search = told(out)
    (tried,) = visits
    assert len(tried) >= 3
    assert search["chosen"]["architecture"] == tried[2]
    assert search["measured_ms"] == {
        name: 1e-3 if place >= 2 else 1e3 for place, name in enumerate(tried)
    }
    assert "measured: 0.00 ms, the best of" in capsys.readouterr().out
    (weights,) = out.glob("*.safetensors")
    assert "measured_ms host/cpu@onnxruntime:fp32 128x128" in read_about(weights).metrics
    monkeypatch.setattr(measuring._Host, "measure", None)  # what was measured is kept
    assert main([*flags, "--measure", "host"]) == 0
    assert told(out) == search
    lines = read_measurements(out / measuring.FILE)
    (out / measuring.FILE).unlink()
    append_measurements(out / measuring.FILE, [replace(one, threads=2) for one in lines])
    monkeypatch.setattr(measuring._Host, "measure", lambda *_: iter(lines))
    assert main([*flags, "--measure", "host"]) == 0
    assert len(read_measurements(out / measuring.FILE)) == 2 * len(lines)


@pytest.mark.parametrize("threads", [4, 2])
def test_a_phones_times_count_for_the_runtime_that_its_library_names(tmp_path, threads):
    from types import SimpleNamespace

    from nas import measuring
    from nas.budgets import load_phones

    (phone,) = load_phones({"snapdragon-865/cpu": 4.0})
    phone = replace(phone, profile=replace(phone.profile, cores=str(threads)))
    one = Measurement(
        device="Pixel", soc="snapdragon-865", runtime="onnxruntime", runtime_version="1.22.0",
        precision="int8", unit="cpu", model="m.onnx", architecture="mfa_x4_w8_c2_s0",
        input_size=(128, 128), inference_times_ms=(2.0,), warmup=2, threads=4, load_time_ms=None,
        peak_memory_bytes=None, layers_per_unit=None, clocks=None, thermal=None, emulated=False,
        date="2026-01-01",
    )  # fmt: skip
    for name, symbol in (("same", b"VERS_1.22.0"), ("newer", b"VERS_1.23.0"), ("nameless", b"")):
        aar = tmp_path / f"{name}.aar"
        with zipfile.ZipFile(aar, "w") as file:
            file.writestr("jni/arm64-v8a/libonnxruntime.so", b"ELF\0" + symbol + b"\0")
        arguments = SimpleNamespace(measure="adb", ort_aar=[aar], threads=1, input=(128, 128))
        found = measuring._comparable([one], arguments, phone)
        assert found == ([one] if (name, threads) == ("same", 4) else [])
        for other in ({"precision": "fp32"}, {"input_size": (64, 64)}):
            assert not measuring._comparable([replace(one, **other)], arguments, phone)


@pytest.mark.parametrize(
    ("target", "measure", "said"),
    [
        ("snapdragon-865/gpu", "adb", "runs ONNX Runtime, and the target is snapdragon-865/gpu"),
        ("snapdragon-865/cpu", "host", "--measure host needs a profile of this machine"),
        ("snapdragon-865/cpu", "adb", "--measure adb needs --ort-aar"),
        ("snapdragon-865/cpu", "adb:", "must be host, adb or adb:SERIAL, got 'adb:'"),
        ("snapdragon-865/cpu", "phone", "must be host, adb or adb:SERIAL, got 'phone'"),
    ],
)
def test_a_device_that_cannot_measure_the_target_is_refused(
    supernet_file, photos, tmp_path, capsys, target, measure, said
):
    out = tmp_path / "out"
    assert main([*words(supernet_file, photos, out, target=target), "--measure", measure]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()
