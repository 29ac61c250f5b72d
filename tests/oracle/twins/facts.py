"""What a VM is, reduced to facts that can be compared, whichever form they were read from.

A fact that a form leaves open is None: nothing is said of it there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One disk or CD-ROM; `below` is the backing chain, ``format:path`` each."""

    bus: str
    device: str
    source: str = ""
    format: str | None = None
    access: str = "file"
    below: tuple[str, ...] | None = None
    write_cache: bool | None = None
    direct: bool = False
    no_flush: bool = False
    io: str = "threads"
    discard: str = "ignore"
    detect_zeroes: str = "off"
    read_only: bool = False
    shareable: bool = False
    serial: str = ""
    boot: int | None = None
    thread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One network card; `forwards` are its ports but the one for SSH."""

    kind: str | None
    name: str | None = ""
    model: str = ""
    mac: str | None = None
    boot: int | None = None
    rom: bool = True
    forwards: tuple[str, ...] = ()
    ssh: bool = False
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """How the screen is shown; a port of None is one that is found at the start."""

    kind: str
    listen: str = ""
    port: int | None = None
    password: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A VM."""

    name: str
    uuid: str | None = None
    os: str | None = None
    accel: str = ""
    cpu: str = ""
    vcpus: int = 1
    topology: str = ""
    memory_mib: int = 0
    machine: str = ""
    acpi: bool = True
    smm: bool = False
    vmport: bool = True
    firmware: str = ""
    variables: str = ""
    secure: bool | None = None
    kernel: str = ""
    initrd: str = ""
    kernel_args: str = ""
    menu: bool = False
    reboot: str | None = None
    clock: str = "utc"
    timers: tuple[str, ...] = ()
    suspend: tuple[str, ...] = ()
    hyperv: tuple[str, ...] = ()
    genid: bool = False
    rng: str = ""
    tpm: str = ""
    balloon: bool = False
    sound: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    usb: str = ""
    channels: tuple[str, ...] = ()
    redirections: int = 0
    serials: int = 0
    console_log: str | None = None
    video: str = ""
    others: tuple[str, ...] = ()
    screen: Screen
    drives: tuple[Drive, ...] = ()
    cards: tuple[Card, ...] = ()


def flat(facts: Facts) -> dict[str, Any]:
    """Return every fact by its place: ``drives.virtio[0].format``.

    Drives are counted on each bus, in its order; cards that only QEMU has words for come last, as
    the other forms hand them on.
    """
    found: dict[str, Any] = {}
    for field in fields(facts):
        value = getattr(facts, field.name)
        if field.name not in ("drives", "cards"):
            found |= dict(_places(field.name, value))
    counts: dict[str, int] = {}
    for drive in facts.drives:
        number = counts.setdefault(drive.bus, 0)
        counts[drive.bus] += 1
        found |= dict(_places(f"drives.{drive.bus}[{number}]", drive))
    cards = sorted(facts.cards, key=lambda card: bool(card.kind == "lan" or card.forwards))
    for number, card in enumerate(cards):
        found |= dict(_places(f"cards[{number}]", card))
    return found


def _places(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not is_dataclass(value):
        yield place, value
        return
    for field in fields(value):
        yield f"{place}.{field.name}", getattr(value, field.name)


def ranked(orders: dict[str, int]) -> dict[str, int]:
    """Return boot orders as places from 0, whatever numbers they were given."""
    return {name: place for place, name in enumerate(sorted(orders, key=orders.__getitem__))}


def without_card_boot(facts: Facts) -> Facts:
    """Return the facts with only the drives counted in the boot order."""
    orders = {str(n): d.boot for n, d in enumerate(facts.drives) if d.boot is not None}
    places = ranked(orders)
    return replace(
        facts,
        drives=tuple(replace(d, boot=places.get(str(n))) for n, d in enumerate(facts.drives)),
        cards=tuple(replace(card, boot=None) for card in facts.cards),
    )
