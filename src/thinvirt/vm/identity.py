"""Who a VM is, derived from the store it lives in and its number there; nothing is remembered.

A VM's number is never used again in its store, so neither is what is derived from it: a second
attempt of the same job is another VM to DHCP, to cloud-init and to vmgenid.
"""

from dataclasses import dataclass

QEMU_OUI = "52:54:00"  # locally administered, the prefix QEMU and libvirt give to guests
LAN_ADDRESSES = (1 << 23) - 2  # 10.128.0.0/9 without the network's and the broadcast address
_LAN_FIRST = (10 << 24) | (128 << 16) | 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one VM from every other.

    Attributes:
        uuid: the machine's UUID, also its cloud-init instance-id and its vmgenid.
        mac: the address of its first network card.
        lan_address: its IPv4 address on a private LAN, 10.128.0.0/9.
    """

    uuid: str
    mac: str
    lan_address: str


def derive_identity(store_uuid: str, mac_base: int, vm_id: int) -> Identity:
    """Return the identity of VM number `vm_id`.

    Args:
        store_uuid: the store's own random UUID.
        mac_base: the store's own random offset, below 2^24.
        vm_id: the VM's number, from 1. MAC addresses repeat after 2^24 numbers, LAN addresses
            after 2^23 - 2; UUIDs never.
    """
    return Identity(
        uuid=uuid5(store_uuid, f"vm/{vm_id}"),
        mac=mac_address(mac_base, vm_id),
        lan_address=lan_address(vm_id),
    )


def uuid5(namespace: str, name: str) -> str:
    """Return the name-based UUID of RFC 4122, 4.3, version 5 (SHA-1)."""
    seed = bytes.fromhex(namespace.replace("-", "")) + name.encode()
    from hashlib import sha1  # OpenSSL takes 2 ms to load

    raw = bytearray(sha1(seed, usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50  # version
    raw[8] = raw[8] & 0x3F | 0x80  # variant
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def mac_address(mac_base: int, vm_id: int, card: int = 0) -> str:
    """Return the address of a VM's network card number `card`, counted from 0.

    The first card has QEMU's prefix; further cards have another locally administered one each, so
    that they never meet another VM's.
    """
    low = (mac_base + vm_id) & 0xFFFFFF
    prefix = QEMU_OUI if card == 0 else f"52:54:{card:02x}"
    return f"{prefix}:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"


def lan_address(vm_id: int) -> str:
    """Return a VM's IPv4 address on a private LAN: 10.128.0.0/9 plus its number."""
    value = _LAN_FIRST + (vm_id - 1) % LAN_ADDRESSES
    return ".".join(str(value >> shift & 0xFF) for shift in (24, 16, 8, 0))
