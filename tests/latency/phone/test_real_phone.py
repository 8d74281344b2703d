"""On a phone that adb reaches: MFAGAN_PHONE_AAR=onnxruntime-android.aar pytest -m phone."""

from __future__ import annotations

import os

import pytest

import latency.cli
from latency.measurement import read_measurements
from latency.phone.adb import choose_device
from latency.phone.session import FOLDER


@pytest.mark.phone
def test_a_real_phone(tiny_onnx, tmp_path):
    aar = os.environ.get("MFAGAN_PHONE_AAR")
    if not aar:
        pytest.skip("needs a phone, and MFAGAN_PHONE_AAR with onnxruntime-android's AAR")
    out = tmp_path / "m.jsonl"
    words = ["profile", str(tiny_onnx), "--device", "adb", "--ort-aar", aar, "--threads", "1,4"]
    words += ["--provider", "cpu,xnnpack", "--input", "64x64", "--runs", "10", "--out", str(out)]
    assert latency.cli.main(words) == 0
    assert len(read_measurements(out)) == 4
    assert choose_device().shell(f"[ ! -e {FOLDER} ]").status == 0
