"""The state of a phone beside a measurement: clocks, temperatures, battery; waiting for cold."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from latency.commandline import FailureError
from latency.phone.adb import Device

SCRIPT = """for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
  [ -r $cpu/scaling_governor ] || continue
  echo "cpu $(cat $cpu/scaling_governor) $(cat $cpu/scaling_cur_freq) $(cat $cpu/scaling_max_freq)"
done 2>/dev/null
for zone in /sys/class/thermal/thermal_zone[0-9]*; do
  [ -r $zone/temp ] && echo "zone $(cat $zone/temp) $(cat $zone/type)"
done 2>/dev/null
dumpsys battery 2>/dev/null | grep -E '^ *(level|temperature):'
dumpsys thermalservice 2>/dev/null | grep -E '^ *Thermal Status:'
true"""
"""Prints what `State.parse` reads; what a phone hides from its shell is left out."""
_CHIP = re.compile(r"cpu|gpu|soc|skin|tsens|npu|cluster|big|little|mid", re.IGNORECASE)
_SENSIBLE = (-30.0, 150.0)
"""Degrees Celsius: sensors that are switched off say -274 or 0 milli-kelvin."""
_POLL_S = 5.0
_PATIENCE_S = 900.0


@dataclass(frozen=True, kw_only=True)
class State:
    """What a phone tells of its clocks and its temperature.

    Attributes:
        governors: of the cores, each once.
        clocks_mhz: current and greatest clock of every core.
        chip_celsius: the hottest of the chip's thermal zones, or None.
        battery_celsius: the battery's temperature, or None.
        battery_percent: its charge, or None.
        throttling: Android's thermal status, 0 none to 6 shutdown, or None.
    """

    governors: tuple[str, ...]
    clocks_mhz: tuple[tuple[int, int], ...]
    chip_celsius: float | None
    battery_celsius: float | None
    battery_percent: int | None
    throttling: int | None

    @staticmethod
    def parse(text: str) -> State:
        """Return the state that `SCRIPT` printed."""
        cores = re.findall(r"^cpu (\S+) (\d+) (\d+)", text, re.MULTILINE)
        zones = [
            float(value) / (1000 if abs(int(value)) >= 1000 else 1)
            for value, name in re.findall(r"^zone (-?\d+) (.+)", text, re.MULTILINE)
            if _CHIP.search(name)
        ]
        zones = [one for one in zones if _SENSIBLE[0] < one < _SENSIBLE[1]]
        battery = _number(r"^ *temperature: *(-?\d+)", text)
        return State(
            governors=tuple(sorted({governor for governor, _, _ in cores})),
            clocks_mhz=tuple((int(now) // 1000, int(most) // 1000) for _, now, most in cores),
            chip_celsius=max(zones, default=None),
            battery_celsius=None if battery is None else battery / 10,
            battery_percent=_number(r"^ *level: *(\d+)", text),
            throttling=_number(r"Thermal Status: *(\d+)", text),
        )

    @property
    def hottest(self) -> float | None:
        """The higher of the chip's and the battery's temperature, or None where neither is told."""
        known = [one for one in (self.chip_celsius, self.battery_celsius) if one is not None]
        return max(known, default=None)


def describe_clocks(before: State, after: State) -> str | None:
    """Return governors and clocks before and after, e.g. `schedutil, MHz 1785 -> 1632 of 1785`."""
    if not before.governors:
        return None
    text = "+".join(before.governors)
    if before.clocks_mhz and len(after.clocks_mhz) == len(before.clocks_mhz):
        pairs = zip(before.clocks_mhz, after.clocks_mhz, strict=True)
        cores = [f"{now} -> {then} of {most}" for (now, most), (then, _) in pairs]
        text += ", MHz " + ", ".join(cores)
    return text


def describe_thermal(before: State, after: State) -> str | None:
    """Return the temperatures before and after, e.g. `chip 36.2 -> 51.0 C`."""
    parts = []
    for name in ("chip", "battery"):
        first, last = (getattr(one, f"{name}_celsius") for one in (before, after))
        if first is not None and last is not None:
            parts.append(f"{name} {first:.1f} -> {last:.1f} C")
    if before.throttling is not None and after.throttling is not None:
        parts.append(f"throttling {before.throttling} -> {after.throttling}")
    return ", ".join(parts) or None


def describe_battery(before: State, after: State) -> str | None:
    """Return the charge before and after, e.g. `81 -> 80 %`."""
    if before.battery_percent is None or after.battery_percent is None:
        return None
    return f"{before.battery_percent} -> {after.battery_percent} %"


def wait_until_cool(
    device: Device,
    celsius: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until neither the chip nor the battery is warmer than so many degrees Celsius.

    Args:
        device: the phone.
        celsius: the highest temperature to measure at.
        say: told why it waits, once.
        sleep: waits for so many seconds.

    Raises:
        FailureError: it is not cool after a quarter of an hour, or tells no temperature.
    """
    told, waited = False, 0.0
    while True:
        hottest = State.parse(device.shell(SCRIPT).out).hottest
        if hottest is None:
            raise FailureError(
                f"the device '{device.serial}' tells no temperature; leave --cool out"
            )
        if hottest <= celsius:
            return
        if waited >= _PATIENCE_S:
            raise FailureError(
                f"the device '{device.serial}' still has {hottest:.1f} C after "
                f"{waited / 60:.0f} minutes; put it in a cooler place or raise --cool"
            )
        if not told:
            say(f"the device has {hottest:.1f} C; waiting for {celsius:.1f} C")
            told = True
        sleep(_POLL_S)
        waited += _POLL_S


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None
