"""`profile --through app` where the app's answer is made by its own Java and a runtime."""

from __future__ import annotations

import fake_app
import pytest
from jvm import Jvm, needed

from latency.measurement import read_measurements

pytestmark = pytest.mark.debian


def test_the_profiler_reads_what_the_app_says(phones, profile, tmp_path):
    needed("javac", "java", "gcc", "fold", "awk")
    jvm = Jvm(tmp_path / "jvm")
    phone = phones({"ro.product.model": "Pixel 8", "ro.product.cpu.abilist": "arm64-v8a"})
    answer = jvm.command("io.github.mfagan.app.MeasureOnDesktop", runtime=True)
    fake_app.install(phone.root, ["env", "ORT_DISABLE_TELEMETRY=1", *answer])
    status, _, err = profile("--through", "app", "--threads", "1", "--provider", "cpu,xnnpack")
    assert status == 1  # the desktop's ONNX Runtime has no XNNPACK
    assert "1 of 2 measurements failed: 'sr.onnx' with xnnpack and 1 threads does not run" in err
    (one,) = read_measurements(tmp_path / "m.jsonl")
    assert (one.model, one.provider, one.input_size) == ("sr.onnx", "cpu", (16, 20))
    assert len(one.inference_times_ms) == 3
    assert one.peak_memory_bytes > 5 * 2**20
    assert set(one.layers_per_unit) == {"cpu"}
    assert not phone.toolkit.exists()
