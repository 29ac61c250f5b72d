"""Which UEFI build a VM gets, from QEMU's firmware descriptors (docs/interop/firmware.json)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from thinvirt.vm.spec.words import Machine

_MACHINES: dict[Machine, str] = {"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"}  # one of each family


@dataclass(frozen=True, slots=True)
class FirmwareBuild:
    """One UEFI build that is installed: its code, and its variables as a new VM gets them."""

    code: str
    variables: str


def choose_firmware(
    descriptors: Iterable[Mapping[str, Any]], machine: Machine, *, secure_boot: bool
) -> FirmwareBuild | None:
    """Return the first build that fits; None if there is none.

    Args:
        descriptors: the parsed descriptor files, most important first.
        machine: the VM's machine.
        secure_boot: whether it shall start signed boot loaders only.
    """
    for descriptor in descriptors:
        try:
            build = _fitting(descriptor, machine, secure_boot=secure_boot)
        except (KeyError, TypeError, AttributeError):
            continue  # written for another program, or by hand
        if build is not None:
            return build
    return None


def _fitting(
    descriptor: Mapping[str, Any], machine: Machine, *, secure_boot: bool
) -> FirmwareBuild | None:
    features = set(descriptor["features"])
    wanted = {"secure-boot", "enrolled-keys"}
    if secure_boot != wanted.issubset(features) or ("requires-smm" in features) != secure_boot:
        return None
    name = _MACHINES[machine]
    fits = any(
        target["architecture"] == "x86_64"
        and any(fnmatchcase(name, pattern) for pattern in target["machines"])
        for target in descriptor["targets"]
    )
    mapping = descriptor["mapping"]
    if not fits or "uefi" not in descriptor["interface-types"] or mapping["device"] != "flash":
        return None
    return FirmwareBuild(mapping["executable"]["filename"], mapping["nvram-template"]["filename"])
