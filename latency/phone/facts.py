"""What a device is: its name, its chip, its Android, and whether it is a real phone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from latency.commandline import FailureError
from latency.phone.adb import Device

OLDEST_SDK = 26
"""Android 8, of which ONNX Runtime's libraries and the phone-side program are."""
_SOCS = {
    "sm8150": "snapdragon-855",
    "msmnile": "snapdragon-855",
    "sm8250": "snapdragon-865",
    "kona": "snapdragon-865",
    "sm8350": "snapdragon-888",
    "lahaina": "snapdragon-888",
    "sm8450": "snapdragon-8-gen-1",
    "taro": "snapdragon-8-gen-1",
    "sm8475": "snapdragon-8-plus-gen-1",
    "sm8550": "snapdragon-8-gen-2",
    "kalama": "snapdragon-8-gen-2",
    "sm8650": "snapdragon-8-gen-3",
    "pineapple": "snapdragon-8-gen-3",
    "sm8750": "snapdragon-8-elite",
    "sun": "snapdragon-8-elite",
    "sm8850": "snapdragon-8-elite-gen-5",
}
"""Sold names by the chip's number or the board's platform, which Android tells instead."""
_MACHINES = {"aarch64": "arm64-v8a", "x86_64": "x86_64", "armv7l": "armeabi-v7a"}
"""ABIs by the kernel's name, for devices that are not Android."""
_LOADERS = {
    "bionic": "/system/bin/linker64",
    "arm64-v8a": "/lib/ld-linux-aarch64.so.1",
    "x86_64": "/lib64/ld-linux-x86-64.so.2",
}
"""Android's, and glibc's by ABI."""
_LOOK = "\n".join(f'[ -e {path} ] && echo "[has {name}]: [1]"' for name, path in _LOADERS.items())
_SCRIPT = f"""getprop
echo "[machine]: [$(uname -m)]"
{_LOOK}
echo "[arm]: [$(grep -c '^CPU implementer' /proc/cpuinfo)]"
true"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a device tells of itself.

    Attributes:
        name: maker and model, e.g. `Google Pixel 4`.
        soc: the chip in a target's letters, e.g. `snapdragon-855`.
        abis: that it runs, the best first, e.g. `arm64-v8a`.
        sdk: Android's API level, or None where it is not Android.
        system: e.g. `Android 14 (API 34)` or `Linux`.
        bionic: it has Android's loader.
        glibc: it has glibc's loader for the first of its ABIs.
        emulated: an emulator, or a chip that is none of a phone's: its times are no latency.
    """

    name: str
    soc: str
    abis: tuple[str, ...]
    sdk: int | None
    system: str
    bionic: bool
    glibc: bool
    emulated: bool

    def check(self) -> None:
        """Refuse a device that cannot be measured on.

        Raises:
            ValueError: its Android is too old.
        """
        if self.sdk is not None and self.sdk < OLDEST_SDK:
            raise ValueError(
                f"{self.name} has {self.system}; Android 8.0 (API {OLDEST_SDK}) or later is needed"
            )


def read_facts(device: Device) -> Facts:
    """Ask a device what it is.

    Raises:
        DeviceGoneError, FailureError: it does not answer, or nothing that makes sense.
    """
    answer = device.shell(_SCRIPT)
    found = dict(re.findall(r"^\[(.+?)\]: \[(.*?)\]\r?$", answer.out, re.MULTILINE))
    machine = found.get("machine", "")
    if not machine:
        raise FailureError(f"the device '{device.serial}' does not say what it is")
    told = found.get("ro.product.cpu.abilist") or found.get("ro.product.cpu.abi")
    abis = tuple(told.split(",")) if told else (_MACHINES.get(machine, machine),)
    sdk = found.get("ro.build.version.sdk", "")
    maker, model = (found.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
    name = model if maker.lower() in model.lower() else f"{maker} {model}"
    arm = found.get("arm", "0") not in ("0", "")
    return Facts(
        name=name.strip() or device.serial,
        soc=_soc(found),
        abis=abis,
        sdk=int(sdk) if sdk.isdigit() else None,
        system=f"Android {found.get('ro.build.version.release', '?')} (API {sdk})"
        if sdk.isdigit()
        else "Linux",
        bionic="has bionic" in found,
        glibc=f"has {abis[0]}" in found,
        emulated=not arm or _is_emulator(found),
    )


def _soc(found: dict[str, str]) -> str:
    keys = ("ro.soc.model", "ro.board.platform", "ro.hardware.chipname", "ro.hardware")
    told = [word for key in keys if (word := found.get(key, "").lower())]
    for word in told:
        if known := _SOCS.get(re.split(r"[^a-z0-9]", word)[0]):
            return known
    slug = re.sub(r"[^a-z0-9+._-]+", "-", told[0] if told else "").strip("-._+")
    return slug[:64] or "unknown"


def _is_emulator(found: dict[str, str]) -> bool:
    hardware = {found.get(key, "") for key in ("ro.hardware", "ro.boot.hardware")}
    qemu = {found.get(key, "") for key in ("ro.kernel.qemu", "ro.boot.qemu")}
    return bool(hardware & {"goldfish", "ranchu", "cutf_cvm", "vsoc"}) or "1" in qemu
