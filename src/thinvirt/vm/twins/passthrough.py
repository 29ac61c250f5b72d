"""What neither libvirt nor virt-install has a word for, as arguments they hand on to QEMU.

Two things: a network card on a LAN of the store (Unix datagram sockets), and a user network whose
ports are forwarded. Both tools can hand QEMU arguments on, so that nothing that was asked for is
lost; they then know nothing of those cards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from thinvirt.vm.qemu.argv import boot_order, network_options
from thinvirt.vm.qemu.launch import Launch
from thinvirt.vm.spec import NetworkSpec

ANY = "0.0.0.0"  # noqa: S104  # what an empty address means, said aloud
SLOT = 0x1D  # libvirt hands out slots of the root bus from 1 up: far from there


@dataclass(frozen=True, slots=True)
class Card:
    """A network card of a VM.

    Attributes:
        number: which, from 0.
        network: what was asked for.
        mac: its hardware address.
        bridge: the bridge or libvirt network it is on, "" for other kinds.
    """

    number: int
    network: NetworkSpec
    mac: str
    bridge: str = ""


def known_cards(launch: Launch) -> Iterator[Card]:
    """Yield the cards that libvirt has words for."""
    bridges = iter(launch.bridge_ports)
    for number, (network, mac) in enumerate(zip(launch.spec.cards, launch.macs, strict=True)):
        if network.kind in ("network", "bridge"):
            next(bridges, None)
            yield Card(number, network, mac, network.name)
        elif network.kind == "user" and not launch.spec.forwards:
            yield Card(number, network, mac)


def unknown_cards(launch: Launch) -> tuple[str, ...]:
    """Return QEMU's arguments for the cards that libvirt has no words for."""
    known = {card.number for card in known_cards(launch)}
    # libvirt counts from 1, and gives QEMU the numbers as they are
    places = {
        name: place + 1
        for name, place in boot_order(launch.spec, media=launch.media is not None).items()
    }
    options = list(network_options(launch, places))  # two for each card: network and device
    words: list[str] = []
    for number in range(len(launch.spec.cards)):
        if number in known:
            continue
        for option in options[2 * number : 2 * number + 2]:
            text = option[-1]
            if option[0] == "-device":
                # libvirt leaves these to QEMU's choice of a slot, and its own come afterwards
                text += f",addr={SLOT - number:#x}"
            words += [option[0], text]
    return tuple(words)
