import subprocess
import sys
from pathlib import Path

import numpy as np

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


def test_a_control_group_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_bytes()
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert np.isclose(available_bytes(), free, rtol=0.2)
    (tmp_path / "memory.max").write_text("5096\n")
    assert available_bytes() == 4096
    (tmp_path / "memory.max").write_text("10\n")
    assert available_bytes() == 0
