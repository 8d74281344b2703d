import pytest

from mfagan.needs import Needs


@pytest.fixture
def machine(monkeypatch):
    """100 bytes free of memory, 20 held; 50 of disk; 70 of the GPU's memory."""
    for name, figure in (("available", 100), ("resident", 20), ("device_left", 70)):
        monkeypatch.setattr(f"mfagan.needs.{name}_bytes", lambda figure=figure: figure)
    monkeypatch.setattr("mfagan.needs.free_bytes", lambda _: 50)


@pytest.mark.usefixtures("machine")
def test_what_just_fits_is_not_warned_of(tmp_path):
    needs = Needs(
        work="it", out=tmp_path, memory_bytes=120, device_bytes=70, disk_bytes=10,
        disk_peak_bytes=55, disk_present_bytes=5,
    )  # fmt: skip
    assert list(needs.warnings()) == []
    assert needs.lines() == [
        "memory: 120 bytes at the peak; 100 bytes are available now",
        "GPU memory: 70 bytes at the peak; 70 bytes are available now",
        "disk: 10 bytes when finished, 55 bytes at the peak; 50 bytes are free",
    ]
    assert needs.to_json() == {
        "memory_bytes": 120,
        "photographs_bytes": 0,
        "memory_available_bytes": 100,
        "device_bytes": 70,
        "device_available_bytes": 70,
        "disk_bytes": 10,
        "disk_peak_bytes": 55,
        "disk_free_bytes": 50,
    }


@pytest.mark.usefixtures("machine")
def test_one_byte_more_is(tmp_path):
    needs = Needs(
        work="it", out=tmp_path, memory_bytes=121, photographs_bytes=30, device_bytes=71,
        disk_bytes=51, advice="lower --this", device_advice="lower --that",
    )  # fmt: skip
    assert list(needs.warnings()) == [
        "it needs about 121 bytes of memory and 120 bytes are there; lower --this",
        "it needs about 71 bytes of GPU memory and 70 bytes are there; lower --that",
        f"it needs about 51 bytes of disk and 50 bytes are free at '{tmp_path}'",
    ]
    memory, _, disk = needs.lines()
    assert memory.startswith("memory: 121 bytes at the peak, of which photographs 30 bytes; ")
    assert disk == "disk: 51 bytes; 50 bytes are free"


def test_a_gpu_is_not_asked_for_without_need(tmp_path, monkeypatch):
    monkeypatch.setattr("mfagan.needs.device_left_bytes", lambda: pytest.fail("asked"))
    needs = Needs(work="it", out=tmp_path, memory_bytes=1, disk_bytes=1)
    assert not any("GPU" in line for line in [*needs.lines(), *needs.warnings()])
    assert "device_bytes" not in needs.to_json()
