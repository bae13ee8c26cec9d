"""SIGBUS, which a read of a mapped file raises if it was cut short or its disk fails: one line and an exit code.

Python cannot answer this signal: its own handlers run after the instruction that failed, which would fail again, for
ever. A handler in C that is a function of Python's would need the interpreter, which the failing thread may be holding
half-way. What is left is a handler of a few machine instructions, which make two system calls of the kernel: `write`,
and `exit_group`. Where it cannot be had, the process ends by the signal, as it would without us.
"""

import ctypes
import faulthandler
import mmap
import platform
import signal
import struct
import sys
from collections.abc import Callable, Sequence

Call = tuple[int, ...]
"""A system call's number and its arguments."""

_PROTECTION = mmap.PROT_READ | mmap.PROT_EXEC if sys.platform == "linux" else 0
_kept: list[mmap.mmap] = []
"""Memory that the handler lies in, for the life of the process."""


def end_on_bus_errors(messages: Sequence[tuple[int, str]], code: int) -> bool:
    """Let SIGBUS end the process with `code`, after writing each text to its file descriptor.

    Returns False, and changes nothing, on a system for which there is no such handler, or if `faulthandler` answers it.
    """
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None or faulthandler.is_enabled():
        return False
    write, leave, assemble = machine
    texts = [(descriptor, text.encode()) for descriptor, text in messages]
    memory = mmap.mmap(-1, mmap.PAGESIZE + sum(len(text) for _, text in texts))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    calls: list[Call] = []
    place = mmap.PAGESIZE
    for descriptor, text in texts:
        memory[place : place + len(text)] = text
        calls.append((write, descriptor, address + place, len(text)))
        place += len(text)
    program = b"".join(assemble(call) for call in [*calls, (leave, code)])
    memory[: len(program)] = program
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    if libc.mprotect(address, len(memory), _PROTECTION) != 0:  # a system may forbid it
        return False
    _kept.append(memory)
    libc.signal(signal.SIGBUS, address)
    return True


def _x86_64(call: Call) -> bytes:
    """mov rax, number; mov rdi, rsi, rdx, the arguments; syscall."""
    loads = (b"\x48\xb8", b"\x48\xbf", b"\x48\xbe", b"\x48\xba")
    return b"".join(load + struct.pack("<Q", value) for load, value in zip(loads, call, strict=False)) + b"\x0f\x05"


def _aarch64(call: Call) -> bytes:
    """movz and movk of x8, the number, and of x0, x1, x2, the arguments, 16 bits each; svc 0."""
    words = []
    for register, value in zip((8, 0, 1, 2), call, strict=False):
        for quarter in range(4):
            move = 0xD2800000 if quarter == 0 else 0xF2800000
            words.append(move | quarter << 21 | (value >> 16 * quarter & 0xFFFF) << 5 | register)
    return struct.pack(f"<{len(words) + 1}I", *words, 0xD4000001)


_MACHINES: dict[str, tuple[int, int, Callable[[Call], bytes]]] = {
    "x86_64": (1, 231, _x86_64),
    "aarch64": (64, 94, _aarch64),
}
"""By machine: the numbers of `write` and `exit_group`, and how a call is written."""
