import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latency import memory
from latency.memory import available_bytes


def test_it_is_within_the_machines_memory():
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < available_bytes() < total


def test_an_allocation_of_what_is_left_fails_and_of_half_of_it_does_not():
    code = (
        "import resource, numpy as np\n"
        "from latency.memory import available_bytes\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)\n"
        "left = available_bytes()\n"
        "assert left <= 256 << 20, left\n"
        "np.empty(left // 2, np.uint8)\n"
        "try:\n    np.empty(left + (64 << 20), np.uint8)\n"
        "except MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of our own, and the file that says which one this process is in."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "self")
    return tmp_path


def test_control_groups_count(groups):
    free = available_bytes()
    (groups / "self").write_text("0::/outer/inner\n")
    group(groups / "outer", max="max", current=1000)
    assert np.isclose(available_bytes(), free, rtol=0.2)
    group(groups / "outer" / "inner", max=9096, current=1000)
    assert available_bytes() == 8096
    group(groups / "outer", max=5096, current=1000)
    assert available_bytes() == 4096
    group(groups / "outer", max=10, current=1000)
    assert available_bytes() == 0


def test_pages_of_files_can_be_had_back(groups):
    (groups / "self").write_text("0::/a/path/of/the/host\n")
    group(groups, max=5096, current=5000, stat="anon 1000\ninactive_file 4000\nactive_file 0")
    assert available_bytes() == 4096


def test_control_groups_of_version_1_count(groups):
    (groups / "self").write_text("9:name=systemd:/\n4:cpu,memory:/job\n0::/\n")
    group(groups / "memory" / "job", limit_in_bytes=5000, usage_in_bytes=4000,
          stat="inactive_file 1\ntotal_inactive_file 500")  # fmt: skip
    assert available_bytes() == 1500
