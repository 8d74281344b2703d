"""`profile` and `collect` on a phone all of whose programs are arm64's: adbd, mksh, toybox.

It runs under qemu, so that its times are no latency: every line says so, and `fit` believes none.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import latency.cli
from latency import collect, collect_devices
from latency.measurement import read_measurements
from latency.phone import session
from latency.phone.adb import choose_device

pytestmark = pytest.mark.debian


@pytest.fixture
def phone(make_phone):
    return make_phone("arm64")


def sentence(err):
    (line,) = [line for line in err.splitlines() if line.startswith("mfagan-latency: ")]
    return line


def test_it_is_androids_shell(phone):
    device = choose_device()
    told = device.shell("uname -m; echo $KSH_VERSION; ls -l /system/bin/cat; echo err >&2; exit 7")
    assert (told.status, told.err) == (7, "err\n")
    machine, shell, tool = told.out.splitlines()
    assert machine == "aarch64"
    assert "MIRBSD KSH" in shell
    assert tool.endswith("-> toybox")
    assert device.shell("sh -c 'kill -9 $$'").status == 137
    assert set(phone.listening()) <= {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.usefixtures("phone")
def test_the_whole_way(phone, profile, arm64_wheel, tmp_path):
    status, _, err = profile("--ort-wheel", arm64_wheel, "--threads", "1,2")
    assert status == 0, err
    one, two = read_measurements(tmp_path / "m.jsonl")
    assert (one.threads, two.threads, one.emulated, two.emulated) == (1, 2, True, True)
    assert (one.device, one.soc) == ("Google Pixel 4", "snapdragon-855")
    assert one.clocks == "schedutil, MHz 1785 -> 1785 of 2841"
    assert one.thermal == "chip 36.5 -> 36.5 C, battery 30.1 -> 30.1 C, throttling 0 -> 0"
    assert one.peak_memory_bytes > 5 * 2**20
    assert set(one.layers_per_unit) == {"cpu"}
    assert not phone.toolkit.exists()


def test_collected_lines_are_emulated_and_refused(
    phone, arm64_wheel, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(collect, "FIRST", 4)
    monkeypatch.setattr(collect_devices, "RUNS", 2)
    out = tmp_path / "m.jsonl"
    words = ["collect", "--device", "adb", "--target", "snapdragon-855/cpu", "--minutes", "0.0001"]
    words += ["--threads", "1", "--input", "8x8", "--ort-wheel", str(arm64_wheel)]
    assert latency.cli.main([*words, "--out", str(out)]) == 0, capsys.readouterr().err
    found = read_measurements(out)
    assert len(found) >= 4
    assert all(one.emulated for one in found)
    assert not phone.toolkit.exists()
    capsys.readouterr()
    fit = ["fit", str(out), "--target", "snapdragon-855/cpu", "--out", str(tmp_path / "p.json")]
    assert latency.cli.main(fit) == 2
    assert "measurements are emulated: their times are no" in sentence(capsys.readouterr().err)
    assert not (tmp_path / "p.json").exists()
    assert latency.cli.main([*fit, "--allow-emulated"]) == 0
    assert (tmp_path / "p.json").exists()


def test_through_the_app(phone, profile, tmp_path):
    """Android's shell runs the script that waits for the app; the app itself is a stand-in."""
    for name, text in (("am", AM), ("logcat", LOGCAT)):
        (phone.root / "system/bin" / name).write_text(text)
        (phone.root / "system/bin" / name).chmod(0o755)
    status, _, err = profile("--through", "app")
    assert status == 0, err
    (one,) = read_measurements(tmp_path / "m.jsonl")
    assert (one.inference_times_ms, one.emulated) == ((2.0, 1.5, 1.75), True)
    assert not phone.toolkit.exists()
    (phone.root / "system/bin/am").unlink()
    status, _, err = profile("--through", "app")
    assert status == 1
    assert "the app does not start" in sentence(err)


LOGCAT = """#!/system/bin/sh
echo '--------- beginning of main'
cat /log
"""
AM = """#!/system/bin/sh
[ "$1" = start ] || exit 0
while [ "$1" != id ]; do shift; done
said='{"runtime_version": "1.27.0", "load_ms": 3.5, "times_ms": [2.0, 1.5, 1.75], "peak_bytes": 1, '
echo "$2 1/2 $said" >> /log
echo "$2 2/2 \\"output_mean\\": 0.5}" >> /log
echo Status: ok
"""


def test_no_room(phone, profile, arm64_wheel, tmp_path):
    """Its folder is a file: nothing can be kept there."""
    folder = phone.root / "data/local/tmp"
    folder.rmdir()
    folder.touch()
    status, _, err = profile("--ort-wheel", arm64_wheel, "--threads", "1")
    assert status == 1
    assert "keeps no file" in sentence(err)
    assert not (tmp_path / "m.jsonl").exists()


def test_models_that_do_not_run_and_time_that_runs_out(phone, profile, arm64_wheel, tmp_path):
    words = ("--ort-wheel", arm64_wheel, "--threads", "1")
    status, _, err = profile(*words, "--provider", "qnn,cpu")
    assert status == 1
    assert "1 of 2 measurements failed: 'sr.onnx' with qnn and 1 threads does not run" in err
    assert [one.provider for one in read_measurements(tmp_path / "m.jsonl")] == ["cpu"]
    status, _, err = profile(*words, "--limit", "1", "--runs", "90000", out="n.jsonl")
    assert status == 1
    assert "did not end within 1 s and was ended on the phone" in sentence(err)
    assert not (tmp_path / "n.jsonl").exists()
    assert not phone.toolkit.exists()


def test_it_is_lost_during_a_run(phone, profile, arm64_wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_RETURN_S", 2.0)
    runner = tmp_path / "runner"
    runner.write_text("#!/system/bin/sh\ntouch /data/local/tmp/started\nread line\nexit 3\n")
    started: Path = phone.root / "data/local/tmp/started"
    ended = threading.Event()

    def pull():
        while not started.exists() and not ended.wait(0.05):
            pass
        phone.kill()

    puller = threading.Thread(target=pull)
    puller.start()
    status, _, err = profile("--ort-wheel", arm64_wheel, "--runner", runner)
    ended.set()
    puller.join()
    assert status == 1
    assert f"may stay on the device '{phone.serial}'" in err.splitlines()[-1]
    assert not (tmp_path / "m.jsonl").exists()
