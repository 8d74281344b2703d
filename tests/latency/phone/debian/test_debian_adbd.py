"""The phone profiler against the real adbd, as Debian builds it for Linux."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
from adbd import needed, under_qemu

from latency.measurement import read_measurements
from latency.phone import session
from latency.phone.adb import choose_device
from latency.phone.build import build

pytestmark = pytest.mark.debian
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def test_it_listens_on_the_loopback_only(make_phone):
    assert set(make_phone().listening()) <= LOOPBACK


def test_the_whole_way(make_phone, profile, real_wheel, tmp_path):
    phone = make_phone()
    status, out, err = profile("--ort-wheel", real_wheel, "--threads", "1,2")
    assert status == 0, err
    one, two = read_measurements(tmp_path / "m.jsonl")
    assert (one.device, one.soc, one.emulated) == ("Google Pixel 4", "snapdragon-855", True)
    assert (one.threads, two.threads, len(one.inference_times_ms)) == (1, 2, 3)
    assert out.splitlines()[-1] == str(tmp_path / "m.jsonl")
    assert not phone.toolkit.exists()


def test_shell_statuses_outputs_and_names(make_phone, tmp_path):
    phone = make_phone()
    device = choose_device()
    assert device.shell("echo one; echo two >&2; exit 7").status == 7
    answer = device.shell("printf 'no newline'; echo error >&2")
    assert (answer.status, answer.out, answer.err) == (0, "no newline", "error\n")
    assert device.shell("sh -c 'kill -9 $$'").status == 137
    odd = tmp_path / "o d'd;$(id).bin"
    odd.write_bytes(os.urandom(3_000_000))
    device.push(odd, "/data/local/tmp/b c;$(id)")
    pushed = phone.root / "data/local/tmp/b c;$(id)"
    assert pushed.read_bytes() == odd.read_bytes()


def test_two_phones(make_phone, profile, kit):
    one, two = make_phone(), make_phone()
    status, _, err = profile(*kit)
    assert (status, "adb sees 2 devices" in err) == (2, True)
    assert profile(*kit, device=f"adb:{two.serial}")[0] == 0
    assert one.serial != two.serial


def test_an_arm64_phone_under_qemu(make_phone, profile, arm64_wheel, tmp_path):
    """Without glibc, as Android is: the wheel's library runs under one that is pushed."""
    needed("aarch64-linux-gnu-gcc")
    needed("qemu-aarch64-static")
    phone = make_phone(arm64=True)
    status, _, err = profile("--ort-wheel", arm64_wheel, "--threads", "1", "--emulated")
    assert status == 0, err
    assert "experimental: ONNX Runtime of a Linux wheel" in err
    (one,) = read_measurements(tmp_path / "m.jsonl")
    assert (len(one.inference_times_ms), one.emulated) == (3, True)
    assert one.layers_per_unit["cpu"] >= 1
    assert not phone.toolkit.exists()


def test_arm64_computes_what_x86_does(arm64_wheel, tmp_path, tiny_onnx, real_wheel):
    """The same program, model and input under both libraries give the same mean output."""
    needed("aarch64-linux-gnu-gcc")
    needed("qemu-aarch64-static")
    told = []
    for target, wheel in (("host", real_wheel), ("linux-arm64", arm64_wheel)):
        build(target, tmp_path / target)
        with zipfile.ZipFile(wheel) as archive:
            name = next(one for one in archive.namelist() if "/libonnxruntime.so" in one)
            library = archive.extract(name, tmp_path / f"{target}-library")
        words = [tmp_path / target, library, tiny_onnx, "--shape", "1,3,16,20", "--runs", "2"]
        if target != "host":
            words = under_qemu(words, tmp_path)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        told.append(json.loads(done.stdout))
    x86, arm64 = told
    assert x86["output_shape"] == arm64["output_shape"] == [1, 3, 32, 40]
    assert x86["output_mean"] == pytest.approx(arm64["output_mean"], rel=1e-6)


def test_android_programs_are_built_without_the_ndk(tmp_path, monkeypatch):
    for name in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"):
        monkeypatch.delenv(name, raising=False)
    for name in ("clang", "ld.lld", "readelf"):
        needed(name)
    assert build("android-arm64", tmp_path / "runner") == "clang and lld, without the NDK"
    words = ["readelf", "-W", "-h", "-l", "-d", "-n", tmp_path / "runner"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "AArch64" in said
    assert "DYN (Position-Independent Executable file)" in said
    assert "[Requesting program interpreter: /system/bin/linker64]" in said
    assert set(re.findall(r"Shared library: \[(.*?)\]", said)) == {"libc.so", "libdl.so"}
    loads = re.findall(r"^  LOAD .* (0x\w+)$", said, re.MULTILINE)
    assert set(loads) == {"0x4000"}  # pages of 16 KiB
    assert re.search(r"Android +0x00000004", said)
    assert "1a 00 00 00" in said  # API 26


def test_it_is_lost_during_a_run(make_phone, profile, kit, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_RETURN_S", 2.0)
    phone = make_phone()
    Path(kit[3]).write_text("#!/bin/sh\ntouch /data/local/tmp/started\nread line\nexit 3\n")
    started = phone.root / "data/local/tmp/started"

    def pull():
        while not started.exists() and not ended.wait(0.05):
            pass
        phone.kill()

    ended = threading.Event()
    puller = threading.Thread(target=pull)
    puller.start()
    status, _, err = profile(*kit)
    ended.set()
    puller.join()
    assert status == 1
    assert f"may stay on the device '{phone.serial}'" in err.splitlines()[-1]
    assert not (tmp_path / "m.jsonl").exists()
