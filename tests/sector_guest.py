"""A guest of one disk sector, for tests of everything around a guest.

It prints a login prompt on its serial port and then rests. It powers off when its power button is
pressed, and the firmware restarts it on Ctrl-Alt-Delete. It takes 8 MiB and a quarter of a second.
"""

import os
import select
import signal
from pathlib import Path

from thinvirt.run.process import holder_of

PROMPT = "sector login: "
_CODE = b"".join(
    (
        b"\x31\xc0",  # 00 xor ax, ax
        b"\x8e\xd8",  # 02 mov ds, ax
        b"\xfc",  # 04 cld
        b"\xbe\x2e\x7c",  # 05 mov si, 0x7c2e               the text
        b"\xba\xf8\x03",  # 08 mov dx, 0x3f8                COM1
        b"\xac",  # 0b lodsb
        b"\x84\xc0",  # 0c test al, al
        b"\x74\x03",  # 0e jz 13
        b"\xee",  # 10 out dx, al
        b"\xeb\xf8",  # 11 jmp 0b
        b"\xba\x02\x06",  # 13 mov dx, 0x602                ACPI PM1 enable
        b"\xb8\x00\x01",  # 16 mov ax, 0x100                the power button
        b"\xef",  # 19 out dx, ax
        b"\xfb",  # 1a sti
        b"\xf4",  # 1b hlt
        b"\xba\x00\x06",  # 1c mov dx, 0x600                ACPI PM1 status
        b"\xed",  # 1f in ax, dx
        b"\xf6\xc4\x01",  # 20 test ah, 1
        b"\x74\xf6",  # 23 jz 1b
        b"\xba\x04\x06",  # 25 mov dx, 0x604                ACPI PM1 control
        b"\xb8\x00\x20",  # 28 mov ax, 0x2000               sleep, soft off
        b"\xef",  # 2b out dx, ax
        b"\xeb\xed",  # 2c jmp 1b
    )
)
DEAF_CODE = b"\xf4\xeb\xfd"  # hlt, again and again: no prompt, no power button


def write_disk(path: Path, *, deaf: bool = False, size: int = 1 << 20) -> Path:
    """Write a raw disk image of this guest. A deaf one hears neither button nor keys."""
    code = DEAF_CODE if deaf else _CODE + b"\r\n" + PROMPT.encode() + b"\0"
    with path.open("wb") as disk:
        disk.write(code.ljust(510, b"\0") + b"\x55\xaa")
        disk.truncate(size)
    return path


def kill_all(run: Path) -> None:
    """End whatever holds a liveness file below `run`: no test leaves a process behind."""
    for alive in run.rglob("alive"):
        while (pid := holder_of(alive)) is not None:
            fd = os.pidfd_open(pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [])
            os.close(fd)
