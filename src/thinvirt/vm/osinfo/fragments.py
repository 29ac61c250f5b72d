"""What fragments say of a system by themselves, before anything is inherited.

Apart from `records`, because only whoever reads fragments needs it: a dataclass costs start-up
time.
"""

from dataclasses import dataclass

from thinvirt.vm.osinfo.records import Firmware, Media, PublishedImage, Resources


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """What a fragment says of one device: the system drives it, or expressly does not."""

    device: str
    supported: bool = True


@dataclass(frozen=True, slots=True)
class Tree:
    """An installation tree; the ``treeinfo_*`` are regular expressions to know its .treeinfo by."""

    architecture: str
    url: str = ""
    kernel: str = ""
    initrd: str = ""
    boot_iso: str = ""
    treeinfo_family: str = ""
    treeinfo_variant: str = ""
    treeinfo_version: str = ""
    treeinfo_arch: str = ""
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OsRecord:
    """What one fragment, or several put together, say of a system; nothing is inherited yet."""

    id: str
    short_ids: tuple[str, ...] = ()
    name: str = ""
    vendor: str = ""
    version: str = ""
    family: str = ""
    distro: str = ""
    codename: str = ""
    release_date: str = ""
    eol_date: str = ""
    status: str = ""
    derives_from: tuple[str, ...] = ()
    clones: tuple[str, ...] = ()
    upgrades: tuple[str, ...] = ()
    devices: tuple[DeviceLink, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    resources: tuple[Resources, ...] = ()
    media: tuple[Media, ...] = ()
    trees: tuple[Tree, ...] = ()
    images: tuple[PublishedImage, ...] = ()
    kernel_url_argument: str = ""
    cloud_image_username: str = ""
    good_buses: tuple[str, ...] = ()
    bad_buses: tuple[str, ...] = ()
