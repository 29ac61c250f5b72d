"""An installer of one sector, on a disc of its own, for tests of what an installation goes through.

It asks "?" on its serial port and waits for an answer. Then it writes the first disk's boot sector
(`sector_guest`), and restarts the machine; after an "o" it powers off instead.
"""

import subprocess
from pathlib import Path

from tests import sector_guest

_CODE = b"".join(
    (
        b"\x31\xc0\x8e\xd8\x8e\xc0\xfb",  # 00 xor ax, ax; ds = es = 0; sti
        b"\xba\xf8\x03\xb0\x3f\xee",  # 07 COM1: "?"
        b"\xba\xfd\x03",  # 0d its line status
        b"\xf4\xec\xa8\x01\x74\xfa",  # 10 hlt until a character is there
        b"\xba\xf8\x03\xec\x89\xc6",  # 16 si = the character
        b"\xbb\x00\x7e",  # 1c es:bx = what follows this sector
        b"\xb8\x01\x03\xb9\x01\x00\xba\x80\x00\xcd\x13",  # 1f write it to the first disk
        b"\x89\xf0\x3c\x6f\x74\x07",  # 2a an "o"?
        b"\xb0\xfe\xe6\x64",  # 30 keyboard controller: reset
        b"\xf4\xeb\xfd",  # 34 hlt, again and again
        b"\xba\x04\x06\xb8\x00\x20\xef\xeb\xf4",  # 37 ACPI: soft off
    )
)


def write_disc(folder: Path) -> Path:
    """Write the installer's disc (El Torito, no emulation) into `folder` and return it."""
    content = folder / "disc"
    content.mkdir()
    system = sector_guest.write_disk(folder / "system.img", size=512).read_bytes()
    (content / "boot.bin").write_bytes((_CODE.ljust(512, b"\0") + system).ljust(2048, b"\0"))
    iso = folder / "installer.iso"
    options = ["-quiet", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]
    subprocess.run(["genisoimage", *options, "-o", iso, content], check=True)
    return iso
