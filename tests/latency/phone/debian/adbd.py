"""Phones whose daemon is the real one: Debian's adbd, in namespaces of its own.

`start_host_phone`: a root in which this machine's programs and libraries are visible and /data,
/system/bin and /tmp are its own. `start_arm64_phone`: nothing but arm64's programs, Android's shell
and tools among them. No root is needed where users may make namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_phone import GETPROP, PIXEL

ARM64 = (
    r":arm64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    r":/usr/bin/qemu-aarch64-static:FP"
)
"""What the kernel recognises a program for arm64 by, and what it runs it under."""
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 1
"""
"""A Cortex-A76's: ONNX Runtime's library for arm64 crashes when it reads an x86 one."""
STATE = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1785600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2841600\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-0-0-usr\n",
    "sys/class/thermal/thermal_zone0/temp": "36500\n",
}
"""What a phone tells of its clock and its temperature, by file."""
TOYS = (
    *("cat", "chmod", "cut", "date", "echo", "env", "false", "grep", "head", "id", "kill", "ls"),
    *("mkdir", "mv", "od", "printf", "ps", "rm", "sed", "sha256sum", "sleep", "sort", "tail"),
    *("touch", "true", "uname", "wc", "xargs"),
)
"""Of toybox, by the names that Android gives it."""
SEEN = ("bin", "sbin", "lib", "lib64", "usr", "etc", "proc", "sys", "dev")
START = """set -e
root=$1 unpacked=$2
for name in {seen}; do
  [ -e /$name ] || continue
  mkdir -p "$root/$name"
  mount --rbind /$name "$root/$name"
done
mount --bind "$unpacked" "$root/unpacked"
if [ -n "$4" ]; then  # programs for arm64 run under qemu, in these namespaces only
  mount --bind "$4" "$root/proc/cpuinfo"
  mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
  printf '%s' '{rule}' > /proc/sys/fs/binfmt_misc/register
fi
libraries=/unpacked/usr/lib/x86_64-linux-gnu
exec env -i PATH=/system/bin:/usr/bin:/bin HOME=/ TMPDIR=/tmp ADBD_PORT=$3 \\
  /usr/sbin/chroot "$root" $libraries/ld-linux-x86-64.so.2 --preload /tmp/loopback.so \\
  --library-path $libraries:$libraries/android /unpacked/usr/lib/android-sdk/platform-tools/adbd
"""


TOOLBOX = """set -e
root=$1 unpacked=$2
mount --bind "$unpacked/usr" "$root/usr"
mount --rbind /proc "$root/proc"
mount --bind "$4" "$root/proc/cpuinfo"
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' '{rule}' > /proc/sys/fs/binfmt_misc/register
for node in null zero urandom random tty; do mount --bind /dev/$node "$root/dev/$node"; done
exec env -i PATH=/system/bin HOME=/data/local/tmp TMPDIR=/data/local/tmp ADBD_PORT=$3 \\
  /usr/sbin/chroot "$root" /usr/lib/ld-linux-aarch64.so.1 --preload /tmp/loopback.so \\
  --library-path /usr/lib/aarch64-linux-gnu:/usr/lib/aarch64-linux-gnu/android \\
  /usr/lib/android-sdk/platform-tools/adbd
"""
DUMPSYS = """#!/system/bin/sh
case "$1" in
  battery) echo '  level: 81'; echo '  temperature: 301' ;;
  thermalservice) echo 'Thermal Status: 0' ;;
esac
"""


def needed(name: str) -> str:
    """Return a program of a package that .ci/debian installs, or skip."""
    return shutil.which(name) or pytest.skip(f"needs {name}")


def under_qemu(words: Sequence[object], folder: Path) -> list[str]:
    """Return the command that runs a program for arm64 under qemu, with a phone's /proc/cpuinfo."""
    (folder / "cpuinfo").write_text(CPUINFO)
    script = f'mount --bind {folder}/cpuinfo /proc/cpuinfo && exec "$@"'
    start = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    return [*start, "qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", *map(str, words)]


class DebianPhone:
    """Debian's adbd.

    Attributes:
        root: what it sees as its root folder.
        port: of 127.0.0.1, for `adb connect`.
    """

    def __init__(self, root: Path, unpacked: Path, port: int, script: str, cpuinfo: str) -> None:
        self.root = root
        self.port = port
        words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
        self._log = (root / "adbd.log").open("wb")
        self._process = subprocess.Popen(
            [*words, root, unpacked, str(port), cpuinfo], stdout=self._log, stderr=self._log
        )

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def toolkit(self) -> Path:
        return self.root / "data/local/tmp/mfagan"

    def listening(self) -> list[str]:
        """Return the addresses, in hexadecimal, that something listens on at the phone's port."""
        found = []
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                address, _, port = line.split()[1].partition(":")
                if int(port, 16) == self.port and line.split()[3] == "0A":
                    found.append(address)
        return found

    def wait(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + 30
        while not self.listening():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.root / "adbd.log").read_text(errors="replace")
                raise RuntimeError(f"adbd does not start: {said}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it, as a pulled cable does."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def start_host_phone(root: Path, unpacked: Path, port: int, *, arm64: bool = False) -> DebianPhone:
    """Start adbd for this machine's processor, with this machine's programs.

    Args:
        root: a new folder.
        unpacked: Debian's package adbd.
        port: of 127.0.0.1.
        arm64: what is pushed may be for arm64, and runs under qemu.
    """
    for name in ("data/local/tmp", "system/bin", "tmp", "unpacked"):
        (root / name).mkdir(parents=True)
    _build_loopback("gcc", root)
    told = PIXEL | ({"ro.product.cpu.abilist": "arm64-v8a"} if arm64 else {})
    _write_properties(root, told, "/bin/sh")
    (root / "cpuinfo").write_text(CPUINFO)
    script = START.format(seen=" ".join(SEEN), rule=ARM64)
    return DebianPhone(root, unpacked, port, script, str(root / "cpuinfo") if arm64 else "")


def start_arm64_phone(root: Path, unpacked: Path, port: int) -> DebianPhone:
    """Start adbd for arm64 with Android's own toybox and mksh, all of it under qemu.

    Nothing of this machine is visible in it but /proc and five nodes of /dev.

    Args:
        root: a new folder.
        unpacked: Debian's packages adbd, toybox, mksh and libstdc++6 for arm64.
        port: of 127.0.0.1.
    """
    for name in ("data/local/tmp", "system/bin", "tmp", "usr", "proc", "dev", "etc"):
        (root / name).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "bin").symlink_to("system/bin")
    for node in ("null", "zero", "urandom", "random", "tty"):
        (root / "dev" / node).touch()
    shutil.copy(unpacked / "usr/bin/toybox", root / "system/bin/toybox")
    shutil.copy(unpacked / "usr/bin/mksh", root / "system/bin/sh")
    for name in TOYS:
        (root / "system/bin" / name).symlink_to("toybox")
    user = "shell:x:0:0:shell:/data/local/tmp:/system/bin/sh\n"
    (root / "etc/passwd").write_text(user)
    (root / "etc/group").write_text("shell:x:0:\n")
    _build_loopback("aarch64-linux-gnu-gcc", root)
    told = PIXEL | {"ro.product.cpu.abilist": "arm64-v8a", "ro.boot.qemu": "1"}
    _write_properties(root, told, "/system/bin/sh")
    (root / "system/bin/dumpsys").write_text(DUMPSYS)
    (root / "system/bin/dumpsys").chmod(0o755)
    for place, text in STATE.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    (root / "cpuinfo").write_text(CPUINFO)
    script = TOOLBOX.format(rule=ARM64)
    return DebianPhone(root, unpacked, port, script, str(root / "cpuinfo"))


def _build_loopback(compiler: str, root: Path) -> None:
    source = Path(__file__).with_name("loopback.c")
    words = [compiler, "-shared", "-fPIC", source, "-o", root / "tmp/loopback.so", "-ldl"]
    subprocess.run(words, check=True)


def _write_properties(root: Path, told: dict[str, str], shell: str) -> None:
    properties = "".join(f"[{key}]: [{value}]\n" for key, value in told.items())
    (root / "properties").write_text(properties)
    getprop = GETPROP.format(root="").replace("/bin/sh", shell)
    (root / "system/bin/getprop").write_text(getprop)
    (root / "system/bin/getprop").chmod(0o755)
