"""Every operation that rewrites an image, each from a start that real QEMU made."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault.image.judge import View, Views, view
from tests.qcow2_images import opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.root import Root
from thinvirt.image.qemu_img.main import main

KIB = 1024
Act = Callable[[], int]


@dataclass(frozen=True)
class Scenario:
    """An operation under test; all of it happens in the current folder.

    Attributes:
        setup: command lines of real qemu-img and qemu-io that make the start.
        act: does the work and returns an exit status.
        images: the qcow2 files that are checked.
        views: what must be readable.
        damage: done to the start, where an operation is to mend it.
        is_unsound: the images are damaged or not there before, so they need not be in between.
    """

    setup: tuple[str, ...]
    act: Act
    images: tuple[str, ...] = ("disk",)
    views: Views = field(default_factory=dict)
    damage: Callable[[], None] | None = None
    is_unsound: bool = False


def prepare(scenario: Scenario) -> None:
    """Make the start in the current folder."""
    for line in scenario.setup:
        program, *words = _words(line)
        if program == "thin-img":  # QEMU's cannot time a key derivation on a busy machine
            assert main(["thin-img", *words]) == 0
            continue
        subprocess.run([program, *words], check=True, capture_output=True, timeout=60)
    if scenario.damage is not None:
        scenario.damage()


def _words(line: str) -> list[str]:
    """Split a command line; what stands between quotes is one word."""
    words = []
    for number, part in enumerate(line.split("'")):
        words += [part] if number % 2 else part.split()
    return words


def thin(*lines: str) -> Act:
    """Return an act that runs command lines of ``thin-img``, up to the first that fails."""

    def act() -> int:
        for line in lines:
            status = main(["thin-img", *_words(line)])
            if status:
                return status
        return 0

    return act


def guest(work: Callable[[Root], None], flags: int = Open.RDWR | Open.UNMAP) -> Act:
    """Return an act of a guest."""

    def act() -> int:
        try:
            with opened(Path("disk"), flags) as (root, _):
                work(root)
        except BlockError as error:
            print(error)
            return 1
        return 0

    return act


# ---------------------------------------------------------------- starts


def create(options: str = "", size: str = "300K", name: str = "disk") -> str:
    extra = f",{options}" if options else ""
    return f"qemu-img create -q -f qcow2 -o cluster_size=512{extra} {name} {size}"


def io(*commands: str, name: str = "disk", options: str = "") -> str:
    joined = " ".join(f"-c '{command}'" for command in commands)
    return f"qemu-io -f qcow2 {options} {joined} {name}"


FILLED = io(
    "write -P 1 0 5k", "write -P 2 33k 3k", "write -c -P 3 64k 512", "write -z 70k 4k",
    "write -P 4 100k 20k", "write -c -P 6 65k 512",
)  # fmt: skip
SNAP = "qemu-img snapshot -c one disk"
AGAIN = io("write -P 9 2k 40k")
DISK = {"disk": view("-f", "qcow2", "disk")}


def at_snapshot(name: str) -> View:
    return view("-f", "qcow2", "-l", f"snapshot.name={name}", "disk")


SNAPPED = DISK | {"one": at_snapshot("one")}
BACKED = (
    create(name="base"),
    io("write -P 7 0 200k", name="base"),
    "qemu-img create -q -f qcow2 -o cluster_size=512 -b base -F qcow2 disk 300K",
    io("write -P 1 3k 9k", "write -z 40k 10k", "write -P 5 210k 3k"),
)
_PLAIN = (create(), FILLED)


def _writes(disk: Root) -> None:
    disk.write(1000, b"a" * 3000)
    disk.write(34 * KIB, b"b" * 70 * KIB)
    disk.flush()
    disk.write(250 * KIB + 100, b"c" * 1000)
    disk.write(5 * KIB + 300, b"d" * 700)


def _zeroes(disk: Root) -> None:
    disk.write_zeroes(KIB, 2 * KIB)
    disk.write_zeroes(33 * KIB, 2 * KIB, WriteFlags.MAY_UNMAP)
    disk.write_zeroes(64 * KIB, 40 * KIB, WriteFlags.MAY_UNMAP)
    disk.write_zeroes(110 * KIB + 100, 900)


def _discards(disk: Root) -> None:
    disk.discard(KIB, 2 * KIB)
    disk.discard(32 * KIB, 80 * KIB)
    disk.flush()
    disk.write(200 * KIB, b"r" * 20 * KIB)  # takes what was freed


def _compresses(disk: Root) -> None:
    for number in range(40):
        disk.write_compressed(140 * KIB + 512 * number, b"%d" % (number % 10) * 512)


def _raw_writes(disk: Root) -> None:
    disk.write(0, b"a" * 70 * KIB)
    disk.write_zeroes(80 * KIB, 10 * KIB, WriteFlags.MAY_UNMAP)


def _writes_of(setup: tuple[str, ...], **more: object) -> Scenario:
    return Scenario(setup, guest(_writes), **({"views": DISK} | more))  # type: ignore[arg-type]


GUEST = {
    "write": _writes_of(_PLAIN),
    "write v2": _writes_of((create("compat=0.10"), FILLED)),
    "write over a snapshot": _writes_of((*_PLAIN, SNAP, AGAIN), views=SNAPPED),
    "write over a backing file": _writes_of(BACKED),
    "write with 1-bit refcounts": _writes_of((create("refcount_bits=1"), FILLED)),
    "write with 64-bit refcounts": _writes_of((create("refcount_bits=64"), FILLED)),
    "write with lazy refcounts": _writes_of((create("lazy_refcounts=on"), FILLED)),
    "write subclusters": _writes_of(
        (create("extended_l2=on,cluster_size=16384"), io("write -P 1 0 50k"), SNAP),
        views=SNAPPED,
    ),
    "write beside a data file": _writes_of(
        (create("data_file=data"), io("write -P 1 0 50k")),
    ),
    "write beside a raw data file": Scenario(
        (create("data_file=data,data_file_raw=on"), io("write -P 1 0 150k")),
        guest(_raw_writes),
        views=DISK | {"raw": view("-f", "raw", "data")},
    ),
    "write with a bitmap": _writes_of((*_PLAIN, "qemu-img bitmap --add disk b")),
    "write zeroes": Scenario(_PLAIN, guest(_zeroes), views=DISK),
    "write zeroes over a snapshot": Scenario((*_PLAIN, SNAP), guest(_zeroes), views=SNAPPED),
    "write zeroes over a backing file": Scenario(BACKED, guest(_zeroes), views=DISK),
    "discard": Scenario(_PLAIN, guest(_discards), views=DISK),
    "discard below a snapshot": Scenario((*_PLAIN, SNAP, AGAIN), guest(_discards), views=SNAPPED),
    "discard lazily": Scenario(
        (create("lazy_refcounts=on"), FILLED), guest(_discards), views=DISK
    ),
    "compressed write": Scenario(_PLAIN, guest(_compresses), views=DISK),
    "compressed write v2": Scenario(
        (create("compat=0.10"), FILLED), guest(_compresses), views=DISK
    ),
}  # fmt: skip

# ---------------------------------------------------------------- snapshots, sizes

SNAPSHOTS = {
    "snapshot create": Scenario((*_PLAIN, SNAP, AGAIN), thin("snapshot -c two disk"),
        views=SNAPPED | {"two": at_snapshot("two")}),
    "snapshot create v2": Scenario((create("compat=0.10"), FILLED), thin("snapshot -c one disk"),
        views=SNAPPED),
    "snapshot apply": Scenario((*_PLAIN, SNAP, AGAIN), thin("snapshot -a one disk"), views=SNAPPED),
    "snapshot apply another size": Scenario(
        (*_PLAIN, SNAP, "qemu-img resize -q disk 700K", AGAIN, "qemu-img snapshot -c two disk"),
        thin("snapshot -a one disk"), views=DISK),
    "snapshot apply a larger size": Scenario(
        (*_PLAIN, "qemu-img resize -q disk 700K", SNAP, "qemu-img resize -q --shrink disk 300K",
         AGAIN, "qemu-img snapshot -c two disk"),
        thin("snapshot -a one disk"), views=DISK),
    "snapshot delete": Scenario(
        (*_PLAIN, SNAP, AGAIN, "qemu-img snapshot -c two disk"), thin("snapshot -d one disk"),
        views=SNAPPED | {"two": at_snapshot("two")}),
    "snapshot delete the last": Scenario((*_PLAIN, SNAP, AGAIN), thin("snapshot -d one disk"),
        views=SNAPPED),
}  # fmt: skip


def _resize(words: str, *setup: str, **more: object) -> Scenario:
    start = setup or _PLAIN
    return Scenario(start, thin(f"resize -q {words}"), **({"views": DISK} | more))  # type: ignore[arg-type]


SIZES = {
    "grow": _resize("disk 2M"),
    "grow over a backing file": _resize("disk 2M", *BACKED),
    "grow with metadata": _resize("--preallocation=metadata disk 500K"),
    "grow with falloc": _resize("--preallocation=falloc disk 500K"),
    "grow with full": _resize("--preallocation=full disk 500K"),
    "grow over a backing file with falloc": _resize("--preallocation=falloc disk 500K", *BACKED),
    "grow a data file": _resize(
        "--preallocation=falloc disk 500K", create("data_file=data"), io("write -P 1 0 50k")
    ),
    "grow subclusters with metadata": _resize(
        "--preallocation=metadata disk 500K",
        create("extended_l2=on,cluster_size=16384"), io("write -P 1 0 50k"),
    ),
    "grow with bitmaps": _resize("disk 2M", *_PLAIN, "qemu-img bitmap --add disk b"),
    "shrink": _resize("--shrink disk 50K",
        views={"disk": view("-f", "qcow2", "disk", loose=((50 * KIB, 1 << 30),))}),
    "shrink to nearly nothing": _resize("--shrink disk 512",
        views={"disk": view("-f", "qcow2", "disk", loose=((512, 1 << 30),))}),
    "shrink over a snapshot": _resize("--shrink disk 50K", *_PLAIN, SNAP, AGAIN,
        views={"one": at_snapshot("one"),
               "disk": view("-f", "qcow2", "disk", loose=((50 * KIB, 1 << 30),))}),
    "grow raw": Scenario(
        ("qemu-img create -q -f raw disk 100K", "qemu-io -f raw -c 'write -P 1 0 100k' disk"),
        thin("resize -q -f raw disk 300K"), (), {"disk": view("-f", "raw", "disk")}),
    "grow raw with full": Scenario(
        ("qemu-img create -q -f raw disk 100K", "qemu-io -f raw -c 'write -P 1 0 100k' disk"),
        thin("resize -q -f raw --preallocation=full disk 300K"), (),
        {"disk": view("-f", "raw", "disk", partial=True)}),
    "grow raw with falloc": Scenario(
        ("qemu-img create -q -f raw disk 100K", "qemu-io -f raw -c 'write -P 1 0 100k' disk"),
        thin("resize -q -f raw --preallocation=falloc disk 300K"), (),
        {"disk": view("-f", "raw", "disk")}),
}  # fmt: skip

# ---------------------------------------------------------------- chains

_OTHER = (
    create(name="other"),
    io("write -P 7 0 100k", "write -P 8 130k 50k", name="other"),
)
BASE = {"base": view("-f", "qcow2", "base")}
CHAINS = {
    "commit": Scenario(BACKED, thin("commit -q disk"), ("disk", "base"), DISK | BASE),
    "commit and keep": Scenario(BACKED, thin("commit -q -d disk"), ("disk", "base"), DISK | BASE),
    "commit into a smaller one": Scenario(
        (create(name="base", size="100K"), io("write -P 7 0 90k", name="base"),
         "qemu-img create -q -f qcow2 -o cluster_size=512 -b base -F qcow2 disk 300K",
         io("write -P 1 3k 9k", "write -P 5 210k 3k")),
        thin("commit -q disk"), ("disk", "base"),
        DISK | {"base": view("-f", "qcow2", "base", loose=((100 * KIB, 1 << 30),))}),
    "commit over a snapshot": Scenario(
        (*BACKED, SNAP, AGAIN), thin("commit -q disk"), ("disk", "base"), DISK | BASE),
    "commit v2": Scenario(
        (create(name="base"), io("write -P 7 0 200k", name="base"),
         "qemu-img create -q -f qcow2 -o cluster_size=512,compat=0.10 -b base -F qcow2 disk 300K",
         io("write -P 1 3k 9k", "write -P 5 210k 3k")),
        thin("commit -q disk"), ("disk", "base"), DISK | BASE),
    "commit to raw": Scenario(
        ("qemu-img create -q -f raw base 300K",
         "qemu-img create -q -f qcow2 -o cluster_size=512 -b base -F raw disk",
         io("write -P 1 3k 9k")),
        thin("commit -q disk"), ("disk",), DISK | {"base": view("-f", "raw", "base")}),
    "rebase": Scenario((*BACKED, *_OTHER), thin("rebase -q -b other -F qcow2 disk"), views=DISK),
    "rebase to none": Scenario(BACKED, thin("rebase -q -b '' disk"), views=DISK),
    "rebase unsafely": Scenario(
        (*BACKED, "cp base other"), thin("rebase -u -b other -F qcow2 disk"), views=DISK),
    "rebase to itself": Scenario(
        (*BACKED, "qemu-img create -q -f qcow2 -b base -F qcow2 other"),
        thin("rebase -q -b other -F qcow2 disk"), views=DISK),
}  # fmt: skip

# ---------------------------------------------------------------- amend, bitmaps, check

_ZEROED = io("write -P 1 0 5k", "write -z 10k 60k", "write -P 4 100k 20k")
_SECRETS = ("--object", "secret,id=k,data=old", "--object", "secret,id=n,data=new")
_LUKS = "--object secret,id=k,data=old --object secret,id=n,data=new"
_FAST = "iter-time=10,cipher-alg=aes-128"


def _key_ways(driver: str, key: str) -> tuple[tuple[str, ...], ...]:
    options = f"driver={driver},file.filename=disk,{key}="
    return tuple((*_SECRETS, "--image-opts", options + name) for name in ("k", "n"))


_QCOW2_LUKS = (
    f"thin-img create -q --object secret,id=k,data=old -f qcow2 -o encrypt.format=luks,"
    f"encrypt.key-secret=k,encrypt.{_FAST.replace(',', ',encrypt.')},cluster_size=4096 disk 64K",
    "qemu-io --object secret,id=k,data=old --image-opts -c 'write -P 1 0 20k' "
    "driver=qcow2,file.filename=disk,encrypt.key-secret=k",
)
_PURE_LUKS = (
    f"thin-img create -q --object secret,id=k,data=old -f luks -o key-secret=k,{_FAST} disk 64K",
    "qemu-io --object secret,id=k,data=old --image-opts -c 'write -P 1 0 20k' "
    "driver=luks,file.filename=disk,key-secret=k",
)
_QCOW2_KEY = "--image-opts driver=qcow2,file.filename=disk,encrypt.key-secret="
_PURE_KEY = "--image-opts driver=luks,file.filename=disk,key-secret="
_QCOW2_VIEW = {"disk": View(_key_ways("qcow2", "encrypt.key-secret"))}
_PURE_VIEW = {"disk": View(_key_ways("luks", "key-secret"))}


def _amend(options: str, *setup: str, views: Views = DISK) -> Scenario:
    return Scenario(setup, thin(f"amend -q -o {options} disk"), views=views)


AMEND = {
    "amend down": _amend("compat=0.10", create(), _ZEROED),
    "amend down over a backing file": _amend("compat=0.10", *BACKED),
    "amend down with a snapshot": _amend(
        "compat=0.10", create(), _ZEROED, SNAP, AGAIN, views=SNAPPED),
    "amend up": _amend("compat=1.1", create("compat=0.10"), FILLED, SNAP, views=SNAPPED),
    "amend wider": _amend("refcount_bits=64", *_PLAIN, SNAP, AGAIN, views=SNAPPED),
    "amend narrower": _amend("refcount_bits=4", *_PLAIN),
    "amend lazy on": _amend("lazy_refcounts=on", *_PLAIN),
    "amend lazy off": _amend("lazy_refcounts=off", create("lazy_refcounts=on"), FILLED),
    "amend size": _amend("size=600K", *_PLAIN),
    "amend all": _amend("size=600K,refcount_bits=8,lazy_refcounts=on,compat=1.1",
        create("compat=0.10"), FILLED),
    "amend data_file": _amend("data_file=other", create("data_file=data"),
        io("write -P 1 0 50k"), "cp data other"),
    "amend data_file_raw off": _amend(
        "data_file_raw=off", create("data_file=data,data_file_raw=on"), io("write -P 1 0 50k")),
    "amend key slot": Scenario(_QCOW2_LUKS, thin(
        f"amend -q {_LUKS} -o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10 "
        f"{_QCOW2_KEY}k",
        f"amend -q {_LUKS} -o encrypt.state=inactive,encrypt.old-secret=k {_QCOW2_KEY}n"),
        (), _QCOW2_VIEW),
    "amend LUKS key slot": Scenario(_PURE_LUKS, thin(
        f"amend -q {_LUKS} -o state=active,new-secret=n,iter-time=10 {_PURE_KEY}k",
        f"amend -q {_LUKS} -o state=inactive,keyslot=0 {_PURE_KEY}n"),
        (), _PURE_VIEW),
}  # fmt: skip

_TWO = (
    *_PLAIN, "qemu-img bitmap --add -g 512 disk a", AGAIN, "qemu-img bitmap --add disk b",
    io("write -P 5 150k 3k"),
)  # fmt: skip


def _bitmap(words: str, *more: str) -> Scenario:
    return Scenario((*_TWO, *more), thin(f"bitmap {words}"), views=DISK)


BITMAPS = {
    "bitmap add": _bitmap("--add disk c"),
    "bitmap add the first": Scenario(_PLAIN, thin("bitmap --add disk c"), views=DISK),
    "bitmap add disabled": _bitmap("--add --disable -g 64K disk c"),
    "bitmap remove": _bitmap("--remove disk a"),
    "bitmap clear": _bitmap("--clear disk a"),
    "bitmap disable": _bitmap("--disable disk a"),
    "bitmap enable": _bitmap("--enable disk a", "qemu-img bitmap --disable disk a"),
    "bitmap merge": _bitmap("--merge a disk b"),
    "bitmap merge and more": _bitmap("--add --merge a --merge b --disable disk c"),
}


def _leak() -> None:
    """Make the last refcounts of a block too large."""
    _poke_refcounts(lambda count: count or 1)


def _lose() -> None:
    """Make refcounts too small."""
    _poke_refcounts(lambda _: 0, first=12)


def _poke_refcounts(change: Callable[[int], int], first: int = 0) -> None:
    raw = bytearray(Path("disk").read_bytes())
    table = int.from_bytes(raw[48:56], "big")
    block = int.from_bytes(raw[table : table + 8], "big")
    for at in range(block + 2 * first, block + 512, 2):
        count = int.from_bytes(raw[at : at + 2], "big")
        raw[at : at + 2] = change(count).to_bytes(2, "big")
    Path("disk").write_bytes(raw)


def _forget_refcounts() -> None:
    """No refcount block is named any more: everything must be rebuilt."""
    raw = bytearray(Path("disk").read_bytes())
    table = int.from_bytes(raw[48:56], "big")
    raw[table : table + 512] = bytes(512)
    Path("disk").write_bytes(raw)


def _check(repair: str, damage: Callable[[], None], *setup: str, views: Views = DISK) -> Scenario:
    return Scenario(
        setup or _PLAIN,
        thin(f"check -q -r {repair} disk"),
        ("disk",),
        views,
        damage,
        is_unsound=True,
    )


CHECKS = {
    "check leaks": _check("leaks", _leak),
    "check too small refcounts": _check("all", _lose),
    "check lost refcounts": _check("all", _forget_refcounts),
    "check lost refcounts with a snapshot": _check(
        "all", _forget_refcounts, *_PLAIN, SNAP, AGAIN, views=SNAPPED
    ),
    "check leaks with a snapshot": _check("leaks", _leak, *_PLAIN, SNAP, AGAIN, views=SNAPPED),
}

# ---------------------------------------------------------------- copies

_SOURCE = (create(name="source"), io("write -P 1 0 50k", "write -z 70k 4k", "write -P 4 100k 20k",
    name="source"))  # fmt: skip


def _copy(line: str, *setup: str, views: Views, images: tuple[str, ...] = ("disk",)) -> Scenario:
    is_new = not line.startswith("convert -n")
    return Scenario((*_SOURCE, *setup), thin(line), images, views, is_unsound=is_new)


_NEW = {"disk": view("-f", "qcow2", "disk", partial=True), "source": view("-f", "qcow2", "source")}
_NEW_RAW = _NEW | {"disk": view("-f", "raw", "disk", partial=True)}
COPIES = {
    "convert": _copy("convert -O qcow2 -o cluster_size=512 source disk", views=_NEW),
    "convert compressed": _copy("convert -c -O qcow2 -o cluster_size=4k source disk", views=_NEW),
    "convert to raw": _copy("convert -O raw source disk", views=_NEW_RAW, images=()),
    "convert over an image": _copy(
        "convert -O qcow2 -o cluster_size=512 source disk", *_PLAIN, views=_NEW),
    "convert into an image": _copy("convert -n -t writeback -O qcow2 source disk", *_PLAIN,
        views=_NEW),
    "convert into raw": _copy("convert -n -O raw source disk",
        "qemu-img create -q -f raw disk 300K", "qemu-io -f raw -c 'write -P 2 0 300k' disk",
        views=_NEW_RAW, images=()),
    "convert over a backing file": Scenario(
        (*BACKED, *_OTHER), thin("convert -O qcow2 -B base -F qcow2 disk new"), ("disk", "base"),
        DISK | BASE),
    "convert preallocated": _copy(
        "convert -O qcow2 -o cluster_size=512,preallocation=metadata source disk", views=_NEW),
    "convert with bitmaps": Scenario(
        _TWO, thin("convert --bitmaps -O qcow2 disk new"), ("disk",), DISK),
    "create": _copy("create -q -f qcow2 -o cluster_size=512 disk 1M", views=_NEW),
    "create preallocated": _copy(
        "create -q -f qcow2 -o cluster_size=512,preallocation=full disk 200K", views=_NEW),
    "create over an image": _copy(
        "create -q -f qcow2 -o cluster_size=512 disk 1M", *_PLAIN, views=_NEW),
    "create with a data file": _copy(
        "create -q -f qcow2 -o cluster_size=512,data_file=data disk 1M", views=_NEW),
    "create raw": _copy("create -q -f raw -o preallocation=falloc disk 300K", views=_NEW_RAW,
        images=()),
    "dd": _copy("dd -O qcow2 bs=4096 count=20 skip=3 if=source of=disk", views=_NEW),
    "dd to raw": _copy("dd -O raw bs=4096 if=source of=disk", views=_NEW_RAW, images=()),
}  # fmt: skip

SCENARIOS: dict[str, Scenario] = (
    GUEST | SNAPSHOTS | SIZES | CHAINS | AMEND | BITMAPS | CHECKS | COPIES
)
