"""Where the forms of a VM differ on purpose, or because one has no word for what another says.

The round trips of tests/oracle/twins compare facts; a difference that is not declared here is a
fault. docs/reference/twins.md is made from this table.
"""

import re
from dataclasses import dataclass
from typing import Literal

Pair = Literal["virt-install", "libvirt-qemu", "xml-qemu"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind of difference.

    Attributes:
        name: its short name.
        pairs: between which forms: our XML and that of our virt-install command, our QEMU command
            line and the one that libvirt makes of our XML, our XML and our QEMU command line.
        place: the facts, as a regular expression for the whole of their names.
        ours: what the first says, as a regular expression for the whole.
        theirs: what the second says.
        what: the difference, as a sentence.
        why: its reason, and what follows from it.
    """

    name: str
    pairs: tuple[Pair, ...]
    place: str
    ours: str
    theirs: str
    what: str
    why: str


_ANY = ".*"
_OURS: tuple[Pair, ...] = ("libvirt-qemu",)

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "identity",
        ("virt-install", "libvirt-qemu"),
        r"uuid|cards\[\d+\]\.mac",
        "",
        r"[0-9a-f:-]+",
        "A UUID or hardware address that nobody asked for is chosen by the tool.",
        "Before a VM is made it has none; the equivalents of a VM that is there say its own.",
    ),
    Difference(
        "backing",
        ("virt-install",),
        r"drives\..*\.below",
        _ANY,
        "",
        "virt-install names only the top of a backing chain.",
        "It has no words for the rest; libvirt reads it from the headers of the images, which say "
        "the same. Our XML and QEMU command line spell it out, so that no header decides.",
    ),
    Difference(
        "escaped",
        ("virt-install",),
        r"(?:drives\..*\.source|firmware|variables|console_log)",
        r".*[&<>'\"].*",
        r".*&(?:amp|lt|gt|apos|quot);.*",
        "virt-install cannot be told paths that contain `&`, `<`, `>` or a quotation mark.",
        "It escapes them twice, and the domain then names another file: use the XML.",
    ),
    Difference(
        "os",
        ("xml-qemu",),
        "os",
        _ANY,
        "",
        "A QEMU command line does not say which operating system runs in it.",
        "In the XML it is a remark for tools; the guest sees nothing of it.",
    ),
    Difference(
        "network",
        ("xml-qemu",),
        r"cards\[\d+\]\.kind",
        "network",
        "bridge",
        "libvirt's networks are bridges to QEMU.",
        "QEMU is given the bridge that the network stands on.",
    ),
    Difference(
        "network-name",
        ("xml-qemu",),
        r"cards\[\d+\]\.name",
        "default",
        r"virbr\d+",
        "A bridge of libvirt's has another name than its network.",
        "QEMU is given the bridge, which is looked up when the command line is written.",
    ),
    Difference(
        "ssh",
        ("xml-qemu", "libvirt-qemu"),
        r"cards\[\d+\]\.ssh",
        "True|False",
        "True|False",
        "Only thinvirt and its QEMU command line lead a port of the loopback to the guest's SSH.",
        "libvirt has no word for it in a plain user network. Ports that were asked for with "
        "`--forward` are in all forms: libvirt hands those cards on to QEMU.",
    ),
    Difference(
        "hostname",
        ("xml-qemu", "libvirt-qemu"),
        r"cards\[\d+\]\.hostname",
        _ANY,
        _ANY,
        "Only thinvirt and its QEMU command line tell the guest its name by DHCP.",
        "libvirt has no word for it; a seed tells the name in all forms.",
    ),
    Difference(
        "free-port",
        ("xml-qemu",),
        r"screen\.port",
        "",
        "59[0-9][0-9]",
        "SPICE without a port: libvirt looks for a free one, the QEMU command line names one.",
        "QEMU can look for a free port for VNC only.",
    ),
    Difference(
        "any-address",
        ("xml-qemu", "libvirt-qemu"),
        r"screen\.listen",
        r"(?:0\.0\.0\.0)?",
        r"(?:0\.0\.0\.0)?",
        "A screen on every address is on IPv4's in libvirt, and on IPv6's too in QEMU.",
        "libvirt has to be given one address.",
    ),
    Difference(
        "exported-port",
        _OURS,
        r"screen\.port",
        "(?:5900)?",
        r"590\d",
        "libvirt's export names a port for screens that have none.",
        "A VM that libvirt starts gets a free port.",
    ),
    Difference(
        "exported-network",
        _OURS,
        r"cards\[\d+\]\.(?:kind|name|rom)",
        _ANY,
        _ANY,
        "libvirt's export shows every card on a tap device, without its place in the boot order.",
        "It opens networks only when it starts a VM; that they agree is shown by the XML.",
    ),
    Difference(
        "exported-reboot",
        _OURS,
        "reboot",
        "stop",
        "",
        "libvirt's export does not say what a reboot of the guest does.",
        "libvirt tells QEMU over QMP when it starts the VM; the XML says it.",
    ),
    Difference(
        "usb-cdrom",
        _OURS,
        r"drives\.usb\[\d+\]\.(?:device|write_cache)",
        "cdrom|",
        "disk|True",
        "libvirt makes a removable USB disk of a USB CD-ROM drive.",
        "Its device for it cannot be a CD-ROM since drives are configured as nodes; thinvirt gives "
        "the guest a real CD-ROM drive. The content is the same; use another bus if the drive's "
        "kind matters.",
    ),
)


def declared(pair: Pair, place: str, ours: str, theirs: str) -> Difference | None:
    """Return the declaration that covers a difference; None if there is none."""
    for difference in DIFFERENCES:
        if (
            pair in difference.pairs
            and re.fullmatch(difference.place, place)
            and re.fullmatch(difference.ours, ours)
            and re.fullmatch(difference.theirs, theirs)
        ):
            return difference
    return None
