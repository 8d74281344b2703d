"""Phones with the real adbd, and what they need."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from adbd import needed, start_arm64_phone, start_host_phone

ROOT = Path(__file__).resolve().parents[4]
FOLDER = Path(os.environ.get("MFAGAN_DEBIAN", ROOT / "runs" / "debian"))


@pytest.fixture
def make_phone(adb, tmp_path):
    """Return a function that starts a phone: this machine's processor, or all of it arm64's."""
    allowed = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if shutil.which("gcc") is None or subprocess.run(allowed, check=False).returncode:
        pytest.skip("needs gcc and namespaces for users")
    made = []

    def make(kind="adbd", **options):
        unpacked = FOLDER / kind
        if not unpacked.is_dir():
            pytest.skip(f"there is no '{unpacked}'; .ci/debian puts Debian's adbd there")
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        root = tmp_path / f"debian{len(made)}"
        if kind == "arm64":
            for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"):
                needed(name)
            phone = start_arm64_phone(root, unpacked, port)
        else:
            phone = start_host_phone(root, unpacked, port, **options)
        made.append(phone)
        phone.wait()
        adb.call("connect", phone.serial)
        return phone

    yield make
    for phone in made:
        phone.kill()
        adb.call("disconnect", phone.serial)


@pytest.fixture
def arm64_wheel():
    """Return ONNX Runtime's wheel for arm64."""
    found = sorted(FOLDER.glob("wheels/onnxruntime-*_aarch64.whl"))
    if not found:
        pytest.skip(f"there is no '{FOLDER}/wheels'; .ci/debian puts a wheel for arm64 there")
    return found[0]
