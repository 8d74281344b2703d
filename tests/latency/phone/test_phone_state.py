"""What phones tell of themselves, as they word it, and what providers are called."""

from __future__ import annotations

import pytest

from latency.phone.adb import Answer
from latency.phone.facts import read_facts
from latency.phone.provider import Provider, parse_providers
from latency.phone.state import State, describe_battery, describe_clocks, describe_thermal

TOLD = """cpu schedutil 300000 1785600
cpu schedutil 300000 1785600
cpu performance 2841600 2841600
zone 36500 cpu-0-0-usr
zone -274000 gpu-step
zone 41 skin-therm
zone 90000 charger-therm
  level: 81
  temperature: 301
Thermal Status: 2
"""


def test_a_phones_state():
    state = State.parse(TOLD)
    assert state.governors == ("performance", "schedutil")
    assert state.clocks_mhz == ((300, 1785), (300, 1785), (2841, 2841))
    assert (state.chip_celsius, state.battery_celsius, state.hottest) == (41.0, 30.1, 41.0)
    assert (state.battery_percent, state.throttling) == (81, 2)
    after = State.parse(TOLD.replace("81", "80").replace("36500", "52300"))
    assert describe_thermal(state, after) == (
        "chip 41.0 -> 52.3 C, battery 30.1 -> 30.1 C, throttling 2 -> 2"
    )
    assert describe_battery(state, after) == "81 -> 80 %"
    assert describe_clocks(state, after) == (
        "performance+schedutil, MHz 300 -> 300 of 1785, 300 -> 300 of 1785, 2841 -> 2841 of 2841"
    )


@pytest.mark.parametrize("text", ["", "cpu\nzone x y\n level: high\n", "zone -274000 cpu\n"])
def test_a_phone_that_hides_its_state(text):
    state = State.parse(text)
    assert (state.governors, state.hottest, state.battery_percent) == ((), None, None)
    for describe in (describe_clocks, describe_thermal, describe_battery):
        assert describe(state, State.parse(TOLD)) is None


class Device:
    """A device that prints properties."""

    serial = "x"

    def __init__(self, **told):
        told = {"machine": "aarch64", "arm": "8"} | told
        self._out = "".join(f"[{key}]: [{value}]\r\n" for key, value in told.items())

    def shell(self, _):
        return Answer(status=0, out=self._out, err="")


@pytest.mark.parametrize(
    ("told", "soc"),
    [
        ({"ro.soc.model": "SM8250"}, "snapdragon-865"),
        ({"ro.soc.model": "SM8550-AC"}, "snapdragon-8-gen-2"),
        ({"ro.board.platform": "msmnile"}, "snapdragon-855"),
        ({"ro.soc.model": "QCS9999", "ro.board.platform": "kona"}, "snapdragon-865"),
        ({"ro.soc.model": "Tensor G3"}, "tensor-g3"),
        ({"ro.hardware": "mt6893; reboot"}, "mt6893-reboot"),
        ({"ro.hardware": "$$"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_chips(told, soc):
    assert read_facts(Device(**told)).soc == soc


@pytest.mark.parametrize(
    ("told", "emulated"),
    [
        ({}, False),
        ({"ro.kernel.qemu": "1"}, True),
        ({"ro.boot.qemu": "1"}, True),
        ({"ro.hardware": "ranchu"}, True),
        ({"arm": "0", "machine": "x86_64"}, True),
    ],
)
def test_emulators_are_known(told, emulated):
    assert read_facts(Device(**told)).emulated is emulated


def test_names_and_systems():
    facts = read_facts(Device(**{"ro.product.manufacturer": "Xiaomi", "ro.product.model": "Mi 11"}))
    assert (facts.name, facts.system, facts.sdk) == ("Xiaomi Mi 11", "Linux", None)
    assert (facts.abis, facts.bionic, facts.glibc) == (("arm64-v8a",), False, False)
    told = {"ro.product.manufacturer": "OnePlus", "ro.product.model": "ONEPLUS A1"}
    told |= {"ro.build.version.sdk": "33", "ro.build.version.release": "13"}
    told |= {"has arm64-v8a": "1"}
    facts = read_facts(Device(**told))
    assert (facts.name, facts.system, facts.glibc) == ("ONEPLUS A1", "Android 13 (API 33)", True)


@pytest.mark.parametrize(
    ("provider", "unit"),
    [
        (Provider(name="xnnpack"), "cpu"),
        (Provider(name="nnapi"), "npu"),
        (Provider(name="qnn"), "npu"),
        (Provider(name="qnn", options=(("backend_path", "libQnnGpu.so"),)), "gpu"),
        (Provider(name="qnn", options=(("backend_type", "cpu"),)), "cpu"),
    ],
)
def test_units(provider, unit):
    assert provider.unit == unit
    kernels = {"CPUExecutionProvider": 2, "QNNExecutionProvider": 1}
    counts = provider.layers_per_unit(kernels)
    assert counts == ({"cpu": 3} if unit == "cpu" else {"cpu": 2, unit: 1})


def test_lists_of_providers():
    found = parse_providers("cpu, qnn,cpu", ["qnn:a=b=c", "qnn:d="])
    assert [one.name for one in found] == ["cpu", "qnn"]
    words = "--provider QNN --option backend_path=libQnnHtp.so --option a=b=c --option d="
    assert found[1].flags(None, 2) == words.split()
    words = "--provider XNNPACK --option intra_op_num_threads=2"
    assert Provider(name="xnnpack").flags(None, 2) == words.split()
    with pytest.raises(ValueError, match="'' is not a provider; they are cpu, xnnpack, nnapi, qnn"):
        parse_providers("", [])
