"""What goes wrong with a phone: one sentence, nothing left there, no line lost or made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import latency.cli
from latency.commandline import FailureError
from latency.measurement import read_measurements
from latency.phone import session
from latency.phone.adb import Device, choose_device, find_adb

HANGS = '#!/bin/sh\necho $$ > "${0%/*}/../pid"\nexec sleep 100\n'


def sentence(said, status=1):
    """Return the one sentence of a command that failed."""
    found, _, err = said
    lines = [line for line in err.splitlines() if line.startswith("mfagan-latency")]
    assert (found, len(lines)) == (status, 1), err
    assert "Traceback" not in err
    return lines[0]


def write_runner(kit, text):
    Path(kit[3]).write_text(text)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(session, "_RETURN_S", 2.0)


def vanishing(phone, *, run):
    """Make a phone disappear as soon as its so-manieth run has started."""
    runs = []

    def look(command):
        if "--shape" in command:
            runs.append(command)
        return len(runs) == run and "--shape" in command

    phone.on_command = look


def test_it_is_gone_during_the_push(phone, profile, kit, tmp_path):
    phone.vanish_after_bytes = 100_000
    said = sentence(profile(*kit))
    assert f"the device '{phone.serial}' is gone" in said
    assert f"{session.FOLDER} may stay on the device '{phone.serial}'" in said
    assert f"`adb -s {phone.serial} shell rm -rf {session.FOLDER}`" in said
    assert not (tmp_path / "m.jsonl").exists()


def test_it_is_gone_during_a_run(phone, profile, kit, tmp_path):
    write_runner(kit, HANGS)
    vanishing(phone, run=1)
    said = sentence(profile(*kit))
    assert f"the device '{phone.serial}' is gone" in said
    assert "may stay on the device" in said
    assert not (tmp_path / "m.jsonl").exists()


def test_it_is_gone_between_two_runs(phone, profile, kit, tmp_path):
    vanishing(phone, run=2)
    said = sentence(profile(*kit, "--threads", "1,2,4"))
    assert "may stay on the device" in said
    assert [one.threads for one in read_measurements(tmp_path / "m.jsonl")] == [1]


def test_what_a_lost_phone_kept_is_removed_by_the_next_session(phone, profile, kit, adb):
    vanishing(phone, run=1)
    sentence(profile(*kit))
    assert phone.toolkit.exists()
    phone.come_back()
    for word in ("disconnect", "connect"):
        adb.call(word, phone.serial)
    assert profile(*kit)[0] == 0
    assert not phone.toolkit.exists()


def test_it_comes_back_in_time_to_be_cleaned(phone, profile, kit, monkeypatch):
    monkeypatch.setattr(session, "_RETURN_S", 20.0)
    vanish = phone.vanish

    def vanish_for_a_moment():
        vanish()
        phone.come_back()

    phone.vanish = vanish_for_a_moment
    vanishing(phone, run=1)
    said = sentence(profile(*kit))
    assert "may stay" not in said
    assert not phone.toolkit.exists()


def test_the_phone_is_full(phone, profile, kit, tmp_path):
    phone.room = 100_000
    said = sentence(profile(*kit))
    assert "takes no file: No space left on device" in said
    assert not phone.toolkit.exists()
    assert not (tmp_path / "m.jsonl").exists()


def test_adbs_error_is_told_whatever_it_prints_after_it(monkeypatch, tmp_path):
    """Which of its lines comes first is chance."""
    (tmp_path / "x").write_bytes(b"x")
    pushed = "x: 1 file pushed, 0 skipped. 183.3 MB/s (200004 bytes in 0.001s)\n"
    failed = "adb: error: failed to copy 'x' to '/y': remote No space left on device\n"
    device = Device(adb=tmp_path / "adb", serial="x")
    monkeypatch.setattr(Device, "there", lambda _: True)
    for out, err in ((pushed, failed), (failed + pushed, ""), ("", failed + pushed)):
        done = SimpleNamespace(returncode=1, stdout=out, stderr=err)
        monkeypatch.setattr(Device, "_adb", lambda *_, done=done: done)
        with pytest.raises(FailureError, match=r"takes no file: No space left on device$"):
            device.push(tmp_path / "x", "/y")


def test_adbs_server_is_killed(phone, profile, kit, adb, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_RETURN_S", 20.0)

    def look(command):
        if "--shape" in command and "--threads 2" in command:
            adb.call("kill-server")
        return False

    phone.on_command = look
    try:
        said = sentence(profile(*kit, "--threads", "1,2"))
        assert "was cut" in said or "is gone" in said
        assert "may stay" not in said  # a new server reached the phone
        assert not phone.toolkit.exists()
        assert [one.threads for one in read_measurements(tmp_path / "m.jsonl")] == [1]
    finally:
        adb.stop()
        adb.start()


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ('{"runtime_version": "1", "times_ms": [1.0, 2', 0),
        ("", 0),
        ("Segmentation fault", 139),
        ('{"runtime_version": "1", "load_ms": 1, "times_ms": [1.0, 2.0], "peak_bytes": 1, '
         '"output_mean": 1}', 0),  # two of three runs
        ('{"runtime_version": "1", "load_ms": 1, "times_ms": [1, 2, -3], "peak_bytes": 1, '
         '"output_mean": 1}', 0),
        ('{"runtime_version": "1", "load_ms": 1, "times_ms": [1, 2, NaN], "peak_bytes": 1, '
         '"output_mean": 1}', 0),
        ('{"runtime_version": "1", "load_ms": 1, "times_ms": [1, 2, 3], "peak_bytes": 1, '
         '"output_mean": 1}', 134),  # it crashed after all
        ("[1, 2, 3]", 0),
    ],
)  # fmt: skip
def test_a_result_that_is_not_whole_is_none(phone, profile, kit, tmp_path, printed, status):
    write_runner(kit, f"#!/bin/sh\necho '{printed}'\nexit {status}\n")
    said = sentence(profile(*kit))
    assert (
        f"'sr.onnx' with cpu and 4 threads ended on the phone without a result (status {status})"
        in said
    )
    assert not (tmp_path / "m.jsonl").exists()
    assert not phone.toolkit.exists()


def test_a_run_that_hangs_is_ended_by_the_program_itself(phone, profile, real_wheel, tmp_path):
    """The library, not the program, hangs: as a driver does."""
    import zipfile

    source = tmp_path / "hang.c"
    source.write_text("#include <unistd.h>\nvoid *OrtGetApiBase(void) { for (;;) pause(); }\n")
    library = tmp_path / "hang.so"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    wheel = tmp_path / real_wheel.name
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(library, "onnxruntime/capi/libonnxruntime.so.1")
    said = sentence(profile("--ort-wheel", wheel, "--limit", "1"))
    assert "did not end within 1 s and was ended on the phone" in said
    assert not (tmp_path / "m.jsonl").exists()
    assert not phone.toolkit.exists()


def test_a_program_that_ignores_its_limit_is_given_up(phone, profile, kit, monkeypatch):
    monkeypatch.setattr(session, "_GRACE_S", 0.5)
    write_runner(kit, HANGS)
    said = sentence(profile(*kit, "--limit", "1"))
    assert "has not answered for 2 s" in said
    assert not phone.toolkit.exists()
    pid = int((phone.root / "data/local/tmp/pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_two_phones_and_no_serial(phones, profile, kit, tmp_path):
    one, two = phones(), phones()
    said = sentence(profile(*kit), status=2)
    assert "adb sees 2 devices" in said
    assert "choose with --device adb:SERIAL" in said
    assert profile(*kit, device=f"adb:{two.serial}")[0] == 0
    assert (bool(one.commands), bool(two.commands)) == (False, True)
    said = sentence(profile(*kit, device="adb:nobody's; reboot"), status=2)
    assert "adb sees no device 'nobody's; reboot'" in said
    assert len(read_measurements(tmp_path / "m.jsonl")) == 1


def test_no_phone(adb, profile, kit):
    assert "adb sees no device" in sentence(profile(*kit))
    assert adb.call("devices").split()[-1] == "attached"


def test_it_does_not_trust_the_computer(phones, profile, kit):
    phone = phones(trusting=False)
    said = sentence(profile(*kit))
    assert f"the device '{phone.serial}' is unauthorized: it does not trust this computer" in said


@pytest.mark.parametrize(
    ("properties", "sentence_part"),
    [
        ({"ro.product.cpu.abilist": "armeabi-v7a,armeabi"}, "is armeabi-v7a; ONNX Runtime has"),
        ({"ro.product.cpu.abilist": "arm64-v8a"}, "needs a Linux wheel for aarch64"),
        ({"ro.build.version.sdk": "25", "ro.build.version.release": "7.1"},
         "has Android 7.1 (API 25); Android 8.0 (API 26) or later is needed"),
    ],
)  # fmt: skip
def test_the_wrong_kind_of_phone(phones, profile, kit, properties, sentence_part):
    phone = phones({"ro.product.model": "Old", **properties})
    said = sentence(profile(*kit), status=2)
    assert sentence_part in said
    assert not phone.toolkit.exists()


def test_there_is_no_adb(profile, kit, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'mfagan[android]'" in sentence(profile(*kit))


def test_the_sdks_adb_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    program = tmp_path / "platform-tools" / "adb"
    program.parent.mkdir()
    program.touch()
    assert find_adb() == program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_the_phone(phone, kit, adb, tiny_onnx, tmp_path, number):
    write_runner(kit, HANGS)
    started = threading.Event()
    phone.on_command = lambda command: bool("--shape" in command and started.set())
    words = [sys.executable, "-m", "latency.cli", "profile", tiny_onnx, "--device", "adb", *kit]
    words += ["--input", "16x20"]
    process = subprocess.Popen(
        [*words, "--out", tmp_path / "m.jsonl"],
        stderr=subprocess.PIPE,
        text=True,
        env=adb.environment,
    )
    assert started.wait(60)
    assert phone.toolkit.exists()
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert err.splitlines()[-1] == f"mfagan-latency: {word}"
    assert not phone.toolkit.exists()
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "adb:"], "--device must be host, adb or adb:SERIAL, got 'adb:'"),
        (["--device", "abd"], "--device must be host, adb or adb:SERIAL, got 'abd'"),
        (["--provider", "cpu"], "--provider has a meaning only with --device adb"),
        (["--ort-wheel", "x.whl"], "--ort-wheel has a meaning only with --device adb"),
        (["--device", "adb"], "give ONNX Runtime for the phone: --ort-aar"),
        (["--device", "adb", "--provider", "cpu,nnapy"], "did you mean 'nnapi'?"),
        (["--device", "adb", "--provider-option", "qnn:a=b"], "which is not of --provider cpu"),
        (["--device", "adb", "--provider-option", "a=b"], "is PROVIDER:KEY=VALUE, got 'a=b'"),
        (["--device", "adb", "--provider-option", "cpu:a=b"], "cpu's options are none"),
        (["--device", "adb", "--provider", "nnapi", "--provider-option", "nnapi:x=1"],
         "flags=N alone"),
        (["--device", "adb", "--threads", "1,0"], "number of at least 1 is needed, got '0'"),
        (["--device", "adb", "--cool", "warm"], "a number above 0 is needed, got 'warm'"),
        (["--device", "adb", "--ort-wheel", "none.whl", "--runner", "none"],
         "there is no program 'none'"),
    ],
)  # fmt: skip
def test_misuse(capsys, tiny_onnx, tmp_path, words, message):
    status = latency.cli.main(
        ["profile", str(tiny_onnx), "--input", "16x20", "--out", str(tmp_path / "m.jsonl"), *words]
    )
    said = capsys.readouterr()
    assert message in sentence((status, said.out, said.err), status=2)
    assert not (tmp_path / "m.jsonl").exists()


def test_what_is_no_wheel_and_no_aar(phones, profile, kit, tmp_path):
    phone = phones()
    other = tmp_path / "a_x86_64.whl"
    other.write_bytes(b"no zip")
    for words, message in (
        (["--ort-wheel", "none.whl"], "there is no file 'none.whl'"),
        (["--ort-wheel", other], "is not a wheel (.whl, a zip file)"),
        (["--ort-aar", other], "give --ort-wheel instead of --ort-aar"),
        (["--ort-aar", other, *kit[:2]], "give ONNX Runtime for the phone"),
    ):
        assert message in sentence(profile(*words), status=2)
    assert choose_device().serial == phone.serial
    assert not phone.toolkit.exists()
