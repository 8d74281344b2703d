"""The phone profiler against the real adbd, as Debian builds it for Linux."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from adbd import DebianPhone

from latency.measurement import read_measurements
from latency.phone import session
from latency.phone.adb import choose_device

pytestmark = pytest.mark.debian
ROOT = Path(__file__).resolve().parents[4]
UNPACKED = Path(os.environ.get("MFAGAN_DEBIAN", ROOT / "runs" / "debian")) / "adbd"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.fixture
def make_phone(adb, tmp_path):
    if not UNPACKED.is_dir():
        pytest.skip(f"there is no '{UNPACKED}'; .ci/run puts Debian's adbd there")
    allowed = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if shutil.which("gcc") is None or subprocess.run(allowed, check=False).returncode:
        pytest.skip("needs gcc and namespaces for users")
    made = []

    def make():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        phone = DebianPhone(tmp_path / f"debian{len(made)}", UNPACKED, port)
        made.append(phone)
        phone.wait()
        adb.call("connect", phone.serial)
        return phone

    yield make
    for phone in made:
        phone.kill()
        adb.call("disconnect", phone.serial)


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
