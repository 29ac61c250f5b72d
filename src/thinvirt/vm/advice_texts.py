"""The sentences of the advice, in one place: a translation is another table of the same keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ENGLISH: Final[Mapping[str, str]] = {
    # -- disk bus
    "bus-virtio": "it has a virtio driver ({source}): near native speed, least overhead",
    "bus-virtio-disc": "with the virtio-win driver disc attached: near native speed",
    "bus-sata": "it has an AHCI driver ({source}), and no virtio driver is known",
    "bus-sata-windows": (
        "it has an AHCI driver of its own; virtio is faster but needs the virtio-win driver disc"
    ),
    "bus-sata-unlisted": "no virtio driver of it is known, and machine q35 has SATA",
    "bus-sata-generic": "what most systems have a driver for: name the system for better advice",
    "bus-ide": "the most compatible bus, and no virtio driver of it is known",
    "bus-ide-windows": (
        "it has neither an AHCI nor a virtio driver of its own; "
        "virtio is faster but needs the virtio-win driver disc"
    ),
    "bus-ide-generic": "the most compatible bus: name the system for better advice",
    # -- cache
    "cache-writeback": (
        "the host's page cache holds what clones of one template share, and it flushes what must "
        "survive a power failure"
    ),
    "cache-writethrough": (
        "it does not flush the disk's cache by default, so every write has to reach the disk"
    ),
    # -- network
    "network-virtio": "it has a virtio network driver: the fastest, with the least overhead",
    "network-virtio-disc": "with the virtio-win driver disc attached: the fastest",
    "network-listed": "it has a driver for this card, and no virtio network driver is known",
    "network-e1000e": "the usual card of machine q35; no virtio network driver of it is known",
    "network-default": "the card that most systems know; nothing is known of its drivers",
    # -- machine
    "machine-q35": "it is known to run on q35: PCI Express, AHCI",
    "machine-pc": "it is not known to run on q35; everything runs on pc",
    "machine-pc-old-virtio": "it drives virtio, but not the virtio 1.0 that goes with q35",
    # -- firmware
    "firmware-bios": "starts fastest, and it is known to start from it",
    "firmware-bios-default": "starts fastest, and nothing speaks against it",
    "firmware-efi": "it does not start from BIOS any more",
    # -- sizes
    "memory-recommended": "recommended for it",
    "memory-twice": "twice the least it needs, for want of a recommendation",
    "memory-default": "nothing is known of its needs",
    "disk-recommended": "recommended for it; an empty disk occupies nothing",
    "disk-twice": "twice the least it needs; an empty disk occupies nothing",
    "disk-default": "nothing is known of its needs; an empty disk occupies nothing",
    "vcpus-recommended": "recommended for it",
    "vcpus-twice": "twice the least it needs, for want of a recommendation",
    "vcpus-default": "nothing is known of its needs",
    # -- video, rest
    "video-virtio": "it has a virtio-gpu driver",
    "video-bochs": "the plain display of UEFI firmware",
    "video-vga": "every system shows something on it",
    "rng-virtio": "it has a driver: keys are made without waiting for entropy",
    "rng-none": "no driver of it is known",
    "tpm-needed": "its installer asks for a TPM 2.0",
    "tpm-none": "it does not ask for one",
    "clock-localtime": "it takes the hardware clock for local time",
    "clock-utc": "it takes the hardware clock for UTC",
    # -- notes
    "note-past": "support of {os} ended {date}: no security updates any more",
    "note-past-old": "{os} is of {date}: its support has probably ended",
    "note-generic": "name the system for better advice: thinvirt advise --list",
    "note-driver-disc": (
        "virtio needs a driver disc: download virtio-win.iso, attach it as a second CD-ROM, and "
        "choose the driver in the installer (viostor for virtio, vioscsi for scsi, NetKVM)"
    ),
    "note-secure-boot": "{os} asks for Secure Boot: UEFI firmware with Microsoft's keys enrolled",
    "note-cirros": (
        "{os} asks a metadata service for up to two minutes unless it has a seed disc, which every "
        "thinvirt VM has; its messages are on the serial console"
    ),
    "note-bus": "{note}",
    # -- warnings and what to do about them
    "warn-bus-bad": "{os} has no driver for disk bus {bus} ({source}): it will not find its disk",
    "warn-bus-windows": "{os} has no {bus} driver of its own: it will not find its disk",
    "warn-bus-unknown": "whether {os} drives disk bus {bus} is not known",
    "warn-bus-note": "disk bus {bus}: {note}",
    "warn-ide-q35": "machine q35 has no IDE bus",
    "warn-memory": "{given} MiB of memory are less than {os} needs ({least} MiB)",
    "warn-disk": "a disk of {given} is smaller than {os} needs ({least})",
    "warn-vcpus": "virtual CPUs: {given}, and {os} needs {least}",
    "warn-q35": "{os} is not known to run on machine q35",
    "warn-firmware-bad": "{os} does not start from {firmware}",
    "warn-firmware-old": "{os} is older than its makers' support of UEFI",
    "warn-tpm": "the installer of {os} refuses a machine without a TPM 2.0",
    "warn-secure-boot": "the installer of {os} refuses a machine without Secure Boot",
    "warn-network-windows": "{os} has no virtio network driver of its own: no network at first",
    "warn-network-unknown": "whether {os} drives network model {model} is not known",
    "warn-cirros-network": "without network or seed {os} waits two minutes for a metadata service",
    "fix-bus": "use bus {advised}",
    "fix-bus-disc": "attach the virtio-win driver disc, or use bus {advised}",
    "fix-ide-q35": "use bus sata, or machine pc",
    "fix-memory": "give at least {least} MiB; {advised} MiB are recommended",
    "fix-disk": "give at least {least}; {advised} GiB are recommended",
    "fix-vcpus": "give at least {least}",
    "fix-q35": "use machine pc",
    "fix-firmware": "use {advised} firmware",
    "fix-tpm": "add a TPM 2.0 (it needs swtpm)",
    "fix-secure-boot": "use UEFI firmware with Secure Boot and Microsoft's keys",
    "fix-network": "use network model {advised}",
    "fix-network-disc": "attach the virtio-win driver disc, or use network model {advised}",
    "fix-cirros-network": "give it a seed or a network",
}
LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = {"en": ENGLISH}


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence of the table with what is to stand in it."""

    key: str
    values: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, key: str, **values: object) -> "Text":
        """Return the sentence `key` with these values."""
        return cls(key, tuple((name, str(value)) for name, value in values.items()))

    def render(self, language: str = "en") -> str:
        """Return it in words; English where a language lacks it."""
        table = LANGUAGES.get(language, ENGLISH)
        return table.get(self.key, ENGLISH[self.key]).format(**dict(self.values))

    def __str__(self) -> str:
        """Return it in English."""
        return self.render()
