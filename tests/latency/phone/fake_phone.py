"""A phone that is a folder: speaks the device's side of adb's protocol, on the loopback only.

Android's real adb talks to it. Commands run under this machine's /bin/sh, with the phone's folders
(/data/local/tmp, /sys, /system) in a temporary one and stand-ins for getprop and dumpsys. What goes
wrong on phones can be made to go wrong: see `FakePhone`'s attributes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

_MAX_DATA = 256 * 1024
_VERSION = 0x01000001
_HEADER = struct.Struct("<4s5I")
PIXEL = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 4",
    "ro.product.cpu.abilist": "x86_64",
    "ro.soc.model": "SM8150",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}
GETPROP = "#!/bin/sh\ncat '{root}/properties'\n"
DUMPSYS = """#!/bin/sh
case "$1" in
  battery) printf '  level: 81\\n  temperature: %s\\n' "$(cat '{root}/battery')" ;;
  thermalservice) echo 'Thermal Status: 0' ;;
esac
"""


class FakePhone:
    """A phone in a folder.

    Attributes:
        root: the folder.
        port: of 127.0.0.1, for `adb connect`.
        commands: every shell command it was given.
        room: bytes that its disk still takes, or None for any number.
        trusting: False: it never accepts the computer's key.
        vanish_after_bytes: it is gone when so much of a file has been pushed.
        on_command: called with every command before it runs; returns True for a phone that is
            gone as soon as the command has started.
    """

    def __init__(self, root: Path, properties: dict[str, str] | None = None) -> None:
        self.root = root
        self.commands: list[str] = []
        self.room: int | None = None
        self.trusting = True
        self.vanish_after_bytes: int | None = None
        self.on_command: Callable[[str], bool] = lambda _: False
        self._connections: list[_Connection] = []
        self._gone = False
        self._make_folders(PIXEL if properties is None else properties)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def toolkit(self) -> Path:
        """What must not be there at the end."""
        return self.root / "data/local/tmp/mfagan"

    def _make_folders(self, properties: dict[str, str]) -> None:
        for name in ("bin", "data/local/tmp", "system/bin"):
            (self.root / name).mkdir(parents=True)
        self.set_properties(properties)
        self.set_temperatures(chip=36.5, battery=30.1)
        for name, text in (("getprop", GETPROP), ("dumpsys", DUMPSYS)):
            path = self.root / "bin" / name
            path.write_text(text.format(root=self.root))
            path.chmod(0o755)
        clocks = self.root / "sys/devices/system/cpu/cpu0/cpufreq"
        clocks.mkdir(parents=True)
        for name, text in (
            ("governor", "schedutil"),
            ("cur_freq", "1785600"),
            ("max_freq", "2841600"),
        ):
            (clocks / f"scaling_{name}").write_text(text + "\n")

    def set_properties(self, properties: dict[str, str]) -> None:
        text = "".join(f"[{key}]: [{value}]\n" for key, value in properties.items())
        (self.root / "properties").write_text(text)

    def set_temperatures(self, *, chip: float, battery: float) -> None:
        zone = self.root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "type").write_text("cpu-0-0-usr\n")
        (zone / "temp").write_text(f"{chip * 1000:.0f}\n")
        (self.root / "battery").write_text(f"{battery * 10:.0f}\n")

    def place(self, path: str) -> Path:
        """Return where a path of the phone lies."""
        return Path(self.mapped(path))

    def mapped(self, text: str) -> str:
        """Return a command with the phone's paths made this machine's."""
        for folder in ("/data/local/tmp", "/sys/", "/system/bin/", "/sdcard/"):
            text = text.replace(folder, f"{self.root}{folder}")
        return text

    def vanish(self) -> None:
        """Be gone: all connections end, and none is accepted any more."""
        self._gone = True
        for connection in list(self._connections):
            connection.close()

    def come_back(self) -> None:
        """Be there again."""
        self._gone = False

    def close(self) -> None:
        """Be gone for good."""
        self.vanish()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self._listener.accept()
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._gone:
                    channel.close()
                    continue
                connection = _Connection(self, channel)
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One computer's connection."""

    def __init__(self, phone: FakePhone, channel: socket.socket) -> None:
        self.phone = phone
        self._channel = channel
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                name, first, second, length, _, _ = _HEADER.unpack(self._exactly(_HEADER.size))
                self._handle(name, first, second, self._exactly(length))
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        for stream in list(self._streams.values()):
            stream.closed()

    def send(self, name: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = int.from_bytes(name, "little") ^ 0xFFFFFFFF
        head = _HEADER.pack(name, first, second, len(data), sum(data) & 0xFFFFFFFF, magic)
        with self._sending:
            self._channel.sendall(head + data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            some = self._channel.recv(count - len(data))
            if not some:
                raise EOFError
            data += some
        return data

    def _handle(self, name: bytes, first: int, second: int, data: bytes) -> None:
        if name == b"CNXN" and self.phone.trusting:
            banner = b"device::ro.product.name=fake;ro.product.model=Fake;features=shell_v2,cmd"
            self.send(b"CNXN", _VERSION, _MAX_DATA, banner)
        elif name in (b"CNXN", b"AUTH") and not self.phone.trusting:
            self.send(b"AUTH", 1, 0, os.urandom(20))
        elif name == b"OPEN":
            self._open(first, data.rstrip(b"\0").decode())
        elif stream := self._streams.get(second):
            if name == b"WRTE":
                stream.received(data)
                self.send(b"OKAY", second, first)
            elif name == b"OKAY":
                stream.ready.release()
            elif name == b"CLSE":
                self._streams.pop(second).closed()

    def _open(self, remote: int, service: str) -> None:
        kind, _, argument = service.partition(":")
        stream: _Stream
        if kind.split(",")[0] == "shell":
            stream = _Shell(self, remote, argument)
        elif kind == "sync":
            stream = _Sync(self, remote)
        else:
            self.send(b"CLSE", 0, remote)
            return
        self._streams[stream.number] = stream
        self.send(b"OKAY", stream.number, remote)
        threading.Thread(target=stream.work, daemon=True).start()


class _Stream(ABC):
    """One service's stream of bytes, in both directions."""

    _count = 0

    def __init__(self, connection: _Connection, remote: int) -> None:
        _Stream._count += 1
        self.number = _Stream._count
        self.connection = connection
        self.remote = remote
        self.ready = threading.Semaphore(1)
        self._arrived = threading.Condition()
        self._buffer = b""
        self._ended = False

    def received(self, data: bytes) -> None:
        with self._arrived:
            self._buffer += data
            self._arrived.notify_all()

    def closed(self) -> None:
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
        self.ready.release()

    def exactly(self, count: int) -> bytes:
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._buffer) >= count or self._ended)
            if len(self._buffer) < count:
                raise EOFError
            data, self._buffer = self._buffer[:count], self._buffer[count:]
            return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_DATA):
            self.ready.acquire()
            if self._ended:
                raise EOFError
            self.connection.send(b"WRTE", self.number, self.remote, data[start : start + _MAX_DATA])

    def end(self) -> None:
        self.ready.acquire()  # what was written last has arrived
        with contextlib.suppress(OSError):
            self.connection.send(b"CLSE", self.number, self.remote)

    def work(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.talk()

    @abstractmethod
    def talk(self) -> None:
        """Serve the stream until it ends."""


class _Shell(_Stream):
    """shell,v2: packets of standard input, output, error and the exit status."""

    def __init__(self, connection: _Connection, remote: int, command: str) -> None:
        super().__init__(connection, remote)
        self._command = command

    def talk(self) -> None:
        phone = self.connection.phone
        phone.commands.append(self._command)
        vanishes = phone.on_command(self._command)
        environment = {"PATH": f"{phone.root}/bin:/usr/bin:/bin", "HOME": "/"}
        with subprocess.Popen(
            ["/bin/sh", "-c", phone.mapped(self._command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=phone.root,
            start_new_session=True,
        ) as process:
            assert process.stdin
            threading.Thread(target=self._feed, args=(process,), daemon=True).start()
            if vanishes:
                phone.vanish()
            pumps = [
                threading.Thread(target=self._pump, args=(source, kind), daemon=True)
                for kind, source in ((1, process.stdout), (2, process.stderr))
            ]
            for pump in pumps:
                pump.start()
            status = process.wait()
            for pump in pumps:
                pump.join()
        status = 128 - status if status < 0 else status
        self.write(b"\3" + struct.pack("<I", 1) + bytes([status]))
        self.end()

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Pass standard input on; end it when the computer is gone, as adbd does."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, length = struct.unpack("<BI", self.exactly(5))
                data = self.exactly(length)
                if kind == 3:
                    break
                if kind == 0:
                    process.stdin.write(data)
                    process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()
        if self._ended:  # what reads no input gets the signal that a closed shell sends
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGHUP)

    def _pump(self, source, kind: int) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while data := os.read(source.fileno(), 32768):
                self.write(bytes([kind]) + struct.pack("<I", len(data)) + data)


class _Sync(_Stream):
    """sync: STAT and SEND, which `adb push` needs."""

    def talk(self) -> None:
        while True:
            name, length = struct.unpack("<4sI", self.exactly(8))
            path = self.exactly(length).decode() if name != b"QUIT" else ""
            if name == b"STAT":
                self._stat(path)
            elif name == b"SEND":
                self._receive(path)
            else:
                self.end()
                return

    def _stat(self, path: str) -> None:
        try:
            found = self.connection.phone.place(path).stat()
            mode, size, when = found.st_mode, found.st_size, int(found.st_mtime)
        except OSError:
            mode = size = when = 0
        self.write(b"STAT" + struct.pack("<III", mode, size, when))

    def _receive(self, target: str) -> None:
        phone = self.connection.phone
        name, _, mode = target.rpartition(",")
        place = phone.place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        taken, full = 0, False
        with place.open("wb") as file:
            while True:
                kind, length = struct.unpack("<4sI", self.exactly(8))
                if kind == b"DONE":
                    break
                data = self.exactly(length)
                taken += len(data)
                if phone.vanish_after_bytes is not None and taken > phone.vanish_after_bytes:
                    phone.vanish()
                full = full or (phone.room is not None and taken > phone.room)
                if not full:
                    file.write(data)
        if full:
            place.unlink()
            reason = b"No space left on device"
            self.write(b"FAIL" + struct.pack("<I", len(reason)) + reason)
        else:
            place.chmod(stat.S_IMODE(int(mode)) & 0o777)
            self.write(b"OKAY" + struct.pack("<I", 0))
