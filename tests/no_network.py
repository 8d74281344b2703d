"""Run a command that the kernel kills as soon as it, or any child of it, opens an internet socket.

python tests/no_network.py COMMAND [ARGUMENT ...]

A seccomp filter (Linux, x86-64 and arm64) on socket(2): it holds for native code too, which a patch
of Python's `socket` module would not see.
"""

import ctypes
import os
import platform
import struct
import sys

_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Audit architecture and number of socket(2)."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_AF_INET, _AF_INET6 = 2, 10
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid_internet_sockets() -> None:
    """Install the filter in this process, for good and for all children."""
    architecture, number = _MACHINES[platform.machine()]
    steps = (  # code, jump when true, jump when false, value
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 0, 6, architecture),  # calls of another architecture are killed
        (_LOAD, 0, 0, 0),  # the call's number
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),  # its first argument, the address family
        (_EQUAL, 2, 0, _AF_INET),
        (_EQUAL, 1, 0, _AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    )
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(steps), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "the kernel installs no seccomp filter")


if __name__ == "__main__":
    forbid_internet_sockets()
    os.execvp(sys.argv[1], sys.argv[1:])
