"""Which accelerator executes guest code: proved by running some, never assumed.

/dev/kvm may be there and of no use. There are hosts whose KVM executes a handful of real-mode
instructions correctly and then emulates everything in long mode, thousands of times slower than
QEMU's own translator (TCG): a guest started on it never gets its kernel unpacked. So a small
program with a kernel's way of life (long mode, paging, arithmetic, memory traffic) has to finish in
time.
"""

import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from thinvirt.errors import ProgramMissing, UsageError

OVERRIDE = "THINVIRT_ACCEL"
KVM_DEVICE = Path("/dev/kvm")
KVM_LIMIT_S = 1.0  # QEMU itself included; good hosts need a tenth
TCG_LIMIT_S = 0.9
CACHE_FILE = "acceleration.json"

ROUNDS = 4_000_000
_PASSED = 0x21
PASSED_STATUS = _PASSED << 1 | 1  # isa-debug-exit ends QEMU with (value << 1) | 1
_BIOS_SIZE, _BIOS_BASE, _RESET_VECTOR = 0x10000, 0xF0000, 0xFFF0


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What executes guest code.

    Attributes:
        name: "kvm" or "tcg".
        reason: why, for people.
    """

    name: str
    reason: str


def expected_sum() -> int:
    """Return what the probe's arithmetic comes to: x = 1664525 x + 1013904223 mod 2^32, repeated.

    The power of an affine map by repeated squaring.
    """
    factor, term, total_factor, total_term = 1664525, 1013904223, 1, 0
    rounds, mask = ROUNDS, 0xFFFFFFFF
    while rounds:
        if rounds & 1:
            total_factor, total_term = (
                total_factor * factor & mask,
                (total_term * factor + term) & mask,
            )
        factor, term = factor * factor & mask, (term * factor + term) & mask
        rounds >>= 1
    return (total_factor + total_term) & mask


def probe_firmware() -> bytes:
    """Return the probe as a 64 KiB firmware image, mapped at 0xF0000 and below 4 GiB.

    The reset vector jumps to the start of the image. Page tables are built at 0x1000 (RAM is zero
    at power-on); one 2 MiB page maps everything used, this ROM included.
    """
    code = b"".join(
        (
            # 16-bit, real mode
            b"\xfa",  # 00 cli
            b"\x31\xc0",  # 01 xor ax, ax
            b"\x8e\xd8",  # 03 mov ds, ax
            b"\x66\xc7\x06\x00\x10\x03\x20\x00\x00",  # 05 mov dword [0x1000], 0x2003  PML4[0]
            b"\x66\xc7\x06\x00\x20\x03\x30\x00\x00",  # 0e mov dword [0x2000], 0x3003  PDPT[0]
            b"\x66\xc7\x06\x00\x30\x83\x00\x00\x00",  # 17 mov dword [0x3000], 0x0083  PD[0], 2 MiB
            b"\x66\xb8\x00\x10\x00\x00",  # 20 mov eax, 0x1000
            b"\x0f\x22\xd8",  # 26 mov cr3, eax
            b"\x66\xb8\x20\x00\x00\x00",  # 29 mov eax, 0x20
            b"\x0f\x22\xe0",  # 2f mov cr4, eax              PAE
            b"\x66\xb9\x80\x00\x00\xc0",  # 32 mov ecx, 0xc0000080       EFER
            b"\x66\xb8\x00\x01\x00\x00",  # 38 mov eax, 0x100            LME
            b"\x66\x31\xd2",  # 3e xor edx, edx
            b"\x0f\x30",  # 41 wrmsr
            b"\x2e\x66\x0f\x01\x16\xa8\x00",  # 43 lgdt cs:[0xa8]
            b"\x66\xb8\x01\x00\x00\x80",  # 4a mov eax, 0x80000001
            b"\x0f\x22\xc0",  # 50 mov cr0, eax              PG | PE
            b"\x66\xea" + struct.pack("<IH", _BIOS_BASE + 0x5B, 8),  # 53 jmp 8:0xf005b
            # 64-bit, long mode
            b"\xb9" + struct.pack("<I", ROUNDS),  # 5b mov ecx, ROUNDS
            b"\xb8\x01\x00\x00\x00",  # 60 mov eax, 1
            b"\xbf\x00\x00\x10\x00",  # 65 mov edi, 0x100000
            b"\x69\xc0" + struct.pack("<I", 1664525),  # 6a imul eax, eax, 1664525
            b"\x05" + struct.pack("<I", 1013904223),  # 70 add eax, 1013904223
            b"\x0f\xb7\xd0",  # 75 movzx edx, ax
            b"\x48\x01\x04\xd7",  # 78 add [rdi + rdx*8], rax
            b"\x48\x33\x1c\xd7",  # 7c xor rbx, [rdi + rdx*8]
            b"\xff\xc9",  # 80 dec ecx
            b"\x75\xe6",  # 82 jnz 6a
            b"\x3d" + struct.pack("<I", expected_sum()),  # 84 cmp eax, SUM
            b"\xb8\x01\x00\x00\x00",  # 89 mov eax, 1
            b"\x75\x05",  # 8e jne 95
            b"\xb8" + struct.pack("<I", _PASSED),  # 90 mov eax, PASSED
            b"\xe6\xf4",  # 95 out 0xf4, al                isa-debug-exit
            b"\xf4",  # 97 hlt
            # 98: the descriptor table: null, 64-bit code
            struct.pack("<QQ", 0, 0x0020_9A00_0000_0000),
            struct.pack("<HI", 15, _BIOS_BASE + 0x98),  # a8: its limit and address
        )
    )
    vector = b"\xea" + struct.pack("<HH", 0, _BIOS_BASE >> 4)  # jmp f000:0000
    return (code.ljust(_RESET_VECTOR, b"\0") + vector).ljust(_BIOS_SIZE, b"\0")


def choose(
    program: str, *, cache_dir: Path, say: Callable[[str], None] | None = None
) -> Acceleration:
    """Return what shall execute guest code: KVM if it proves itself, else TCG.

    The answer is remembered until the host boots anew, QEMU is updated, or /dev/kvm's permissions
    change. $THINVIRT_ACCEL (kvm or tcg) decides without a probe.

    Args:
        program: the QEMU to ask.
        cache_dir: where the answer is kept; created if missing, done without if not writable.
        say: told the outcome when it was found anew.

    Raises:
        ProgramMissing: there is no such QEMU.
        UsageError: $THINVIRT_ACCEL is neither kvm nor tcg.
    """
    asked = os.environ.get(OVERRIDE, "")
    if asked:
        if asked not in ("kvm", "tcg"):
            raise UsageError(f"{OVERRIDE}={asked} is not possible", hint="kvm or tcg")
        return Acceleration(asked, f"{OVERRIDE} says so")
    key = _cache_key(program)
    cache = cache_dir / CACHE_FILE
    known = _recall(cache, key)
    if known is not None:
        return known
    found, settled = probe(program)
    if say is not None:
        say(f"{found.name.upper()} runs the guests: {found.reason}")
    if settled:
        _remember(cache, key, found)
    return found


def probe(program: str, device: Path = KVM_DEVICE) -> tuple[Acceleration, bool]:
    """Find the accelerator by running guest code; return it, and whether that is worth remembering.

    Takes a tenth of a second where KVM works or is absent, and never over two seconds.

    Raises:
        ProgramMissing: there is no such QEMU.
    """
    obstacle = kvm_obstacle(device)
    if obstacle:
        return Acceleration("tcg", obstacle), True
    outcome, seconds = run_probe(program, "kvm", KVM_LIMIT_S)
    if outcome == "":
        return Acceleration("kvm", f"it passed its test in {seconds:.2f} s"), True
    if outcome != "slow":
        return Acceleration("tcg", f"{device} is there but QEMU cannot use it: {outcome}"), True
    outcome, tcg_seconds = run_probe(program, "tcg", TCG_LIMIT_S)
    if outcome != "":  # the host is too busy to tell
        return Acceleration("tcg", f"{device} did not prove itself within {KVM_LIMIT_S:g} s"), False
    ratio = KVM_LIMIT_S / tcg_seconds
    return Acceleration(
        "tcg",
        f"{device} is there but runs guest code more than {ratio:.0f} times slower than emulation",
    ), True


def kvm_obstacle(device: Path = KVM_DEVICE) -> str:
    """Return why KVM cannot even be tried, "" if it can."""
    try:
        status = device.stat()
    except FileNotFoundError:
        return f"there is no {device}: virtualisation is off in the firmware, or not passed on"
    if os.access(device, os.R_OK | os.W_OK):
        return ""
    if status.st_gid != 0 and status.st_mode & 0o060 == 0o060:
        import grp

        try:
            group = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            group = str(status.st_gid)
        return (
            f"no permission for {device}: usermod --append --groups {group} YOU, then log in anew"
        )
    return f"no permission for {device}: its mode is {status.st_mode & 0o777:04o}"


def run_probe(program: str, accel: str, limit_s: float) -> tuple[str, float]:
    """Run the probe program.

    Returns:
        "" if it finished with the right sum, "slow" if not in time, else what QEMU said; and the
        seconds it took, QEMU's own start included.
    """
    from subprocess import DEVNULL, PIPE, TimeoutExpired, run

    firmware = os.memfd_create("thinvirt-probe", os.MFD_CLOEXEC)
    started = time.monotonic()
    try:
        os.write(firmware, probe_firmware())
        done = run(
            [
                *(program, "-accel", accel, "-machine", "pc", "-m", "16"),
                *("-nodefaults", "-no-user-config", "-display", "none"),
                *("-bios", f"/proc/self/fd/{firmware}"),
                *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
            ],
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            pass_fds=(firmware,),
            timeout=limit_s,
            check=False,
        )
    except TimeoutExpired:
        return "slow", time.monotonic() - started
    except FileNotFoundError:
        raise ProgramMissing(
            f"{program} is not installed", hint="apt-get install qemu-system-x86"
        ) from None
    finally:
        os.close(firmware)
    seconds = time.monotonic() - started
    if done.returncode == PASSED_STATUS:
        return "", seconds
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return (said[-1] if said else f"the test ended with status {done.returncode}"), seconds


def _cache_key(program: str) -> list[object]:
    """Return what the answer depends on."""
    import shutil

    found = shutil.which(program)
    if found is None:
        raise ProgramMissing(f"{program} is not installed", hint="apt-get install qemu-system-x86")
    binary = Path(found).stat()
    try:
        device = KVM_DEVICE.stat()
        kvm = [device.st_rdev, device.st_mode, os.access(KVM_DEVICE, os.R_OK | os.W_OK)]
    except FileNotFoundError:
        kvm = []
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, found, binary.st_mtime_ns, binary.st_size, os.geteuid(), kvm]


def _recall(cache: Path, key: list[object]) -> Acceleration | None:
    try:
        kept = json.loads(cache.read_text())
        return Acceleration(**kept["found"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no answer kept, or none that can be read: ask anew


def _remember(cache: Path, key: list[object], found: Acceleration) -> None:
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"key": key, "found": asdict(found)}))
        draft.rename(cache)
    except OSError:
        draft.unlink(missing_ok=True)  # no place to keep it: the next command asks again
