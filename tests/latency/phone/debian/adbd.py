"""A phone whose daemon is the real one: Debian's adbd, in namespaces of its own.

Its root is a folder in which this machine's programs and libraries are visible and /data,
/system/bin and /tmp are its own; no root is needed where users may make namespaces.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

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
        arm64: its programs are arm64's, under qemu.
    """

    def __init__(self, root: Path, unpacked: Path, port: int, *, arm64: bool = False) -> None:
        self.root = root
        self.port = port
        for name in ("data/local/tmp", "system/bin", "tmp", "unpacked"):
            (root / name).mkdir(parents=True)
        source = Path(__file__).with_name("loopback.c")
        library = root / "tmp" / "loopback.so"
        subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
        told = PIXEL | ({"ro.product.cpu.abilist": "arm64-v8a"} if arm64 else {})
        properties = "".join(f"[{key}]: [{value}]\n" for key, value in told.items())
        (root / "properties").write_text(properties)
        (root / "system/bin/getprop").write_text(GETPROP.format(root=""))
        (root / "system/bin/getprop").chmod(0o755)
        cpuinfo = root / "cpuinfo"
        cpuinfo.write_text(CPUINFO)
        script = START.format(seen=" ".join(SEEN), rule=ARM64)
        words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
        self._log = (root / "adbd.log").open("wb")
        self._process = subprocess.Popen(
            [*words, root, unpacked, str(port), cpuinfo if arm64 else ""],
            stdout=self._log,
            stderr=self._log,
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
