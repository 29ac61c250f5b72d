"""From a specification to its three forms, through other people's tools, and back to facts.

1. Debian's virt-install makes XML of our command: the same facts as our XML.
2. Our XML is valid by libvirt's schema, and libvirt defines it.
3. libvirt makes a QEMU command line of our XML: the same facts as ours.
4. Our XML and our QEMU command line say the same.

Differences that are meant are declared in `thinvirt.vm.twins.differences`; any other is a fault.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.oracle.twins.cases import Case
from tests.oracle.twins.facts import Facts, flat, without_card_boot
from tests.oracle.twins.from_argv import from_argv
from tests.oracle.twins.from_xml import from_xml
from tests.oracle.twins.private_libvirt import Libvirt

from thinvirt.image import create
from thinvirt.service.installing import InstallPlan, InstallRequest, plan
from thinvirt.service.os_knowledge import OsKnowledge
from thinvirt.service.twins import twin_of_install
from thinvirt.vm.twins.differences import Pair, declared

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")  # what virt-xml-validate names
SYSTEM_PYTHON = "/usr/bin/python3"
_AT_ONCE = 200  # virt-installs whose output is kept in open files
_HERE = Path(__file__).parent


@dataclass(slots=True)
class Trip:
    """A case on its way.

    Attributes:
        faults: what is not as it should be.
        meant: the names of the declared differences that were met.
    """

    case: Case
    planned: InstallPlan
    xml: str
    virt_install: tuple[str, ...]
    qemu: tuple[str, ...]
    faults: list[str] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)

    def compare(self, pair: Pair, ours: Facts, theirs: Facts) -> None:
        """Note the differences between two forms."""
        if pair == "libvirt-qemu":  # its cards are not the VM's: see differences.py
            ours, theirs = without_card_boot(ours), without_card_boot(theirs)
        mine, other = flat(ours), flat(theirs)
        for place in sorted(mine.keys() | other.keys()):
            a, b = mine.get(place), other.get(place)
            if a == b:
                continue
            found = declared(pair, place, _text(a), _text(b))
            if found is None:
                self.faults.append(f"{pair}: {place} is {_text(a)} here and {_text(b)} there")
            else:
                self.meant.add(found.name)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def make_files(folder: Path) -> None:
    """Make the disks, discs and kernels that the cases speak of."""
    mib = 1 << 20
    with chdir(folder):
        for name in ("plain.raw", "data.raw", "disc.iso", "other.iso", "kernel", "initrd"):
            with open(name, "wb") as file:
                file.truncate(mib)
        for name in ("plain.qcow2", "data.qcow2", "it's a, b & c=d.qcow2"):
            create(Path(name), mib, format="qcow2")
        for name, below, form in (
            ("overlay.qcow2", "plain.qcow2", "qcow2"),
            ("middle.qcow2", "plain.raw", "raw"),
            ("top.qcow2", "middle.qcow2", "qcow2"),
        ):
            create(Path(name), None, format="qcow2", backing=folder / below, backing_format=form)


def set_out(case: Case, folder: Path, knowledge: OsKnowledge) -> Trip:
    """Plan a case as ``thinvirt install`` does, and write its forms."""
    with chdir(folder):
        info = knowledge.find(case.spec.os) if case.spec.os else None
        request = InstallRequest(
            name=case.name,
            spec=_absolute(case.spec.to_facts(), folder, case),
            os=info,
            firmware_asked=True,
        )
        planned = plan(None, request)
        for disk in planned.new_disks:  # virt-install looks whether they are there
            path = disk.path or folder / (
                f"{case.name}.qcow2" if disk.number == 0 else f"{case.name}.disk{disk.number}.qcow2"
            )
            path.touch()
        (folder / f"{case.name}-seed.iso").touch()
        return Trip(
            case,
            planned,
            twin_of_install(planned, "xml").text,
            twin_of_install(planned, "virt-install").words,
            twin_of_install(planned, "qemu").words,
        )


def _absolute(facts: dict[str, Any], folder: Path, case: Case) -> Any:
    """Return the specification with whole paths where it names files."""
    for part in (facts.get("install", {}), facts.get("boot", {})):
        for key in ("media", "kernel", "initrd"):
            if key in part:
                part[key] = str(folder / part[key])
    return type(case.spec).from_facts(facts)


def go(trips: Sequence[Trip], libvirt: Libvirt, folder: Path) -> None:
    """Send all cases through the tools, and note what is found."""
    _validate(trips, folder)
    _libvirt(trips, libvirt)
    for first in range(0, len(trips), _AT_ONCE):
        _virt_install(trips[first : first + _AT_ONCE], libvirt, folder)
    for trip in trips:
        trip.compare("xml-qemu", from_xml(trip.xml), from_argv(trip.qemu))


def _validate(trips: Sequence[Trip], folder: Path) -> None:
    files = [folder / f"{trip.case.name}.xml" for trip in trips]
    for trip, file in zip(trips, files, strict=True):
        file.write_text(trip.xml)
    done = subprocess.run(
        ["xmllint", "--noout", "--relaxng", SCHEMA, *files],
        check=False,
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines()
    for trip, file in zip(trips, files, strict=True):
        if f"{file} validates" not in lines:
            told = [line for line in lines if line.startswith(str(file))]
            trip.faults.append(f"schema: {'; '.join(told)}")


def _libvirt(trips: Sequence[Trip], libvirt: Libvirt) -> None:
    files = [shlex.quote(str(libvirt.folder / f"{trip.case.name}.xml")) for trip in trips]
    for trip in trips:
        (libvirt.folder / f"{trip.case.name}.xml").write_text(trip.xml)
    defined = libvirt.many([f"define --validate {file}" for file in files])
    native = libvirt.many([f"domxml-to-native qemu-argv --xml {file}" for file in files])
    libvirt.many([f"undefine --keep-nvram {trip.case.name}" for trip in trips])
    for trip, (_, refused), (line, trouble) in zip(trips, defined, native, strict=True):
        if refused:
            trip.faults.append(f"define: {refused}")
        if trouble or not line:
            trip.faults.append(f"domxml-to-native: {trouble}")
        else:
            words = shlex.split(line.replace("\\\n", " "))
            start = next(
                n for n, word in enumerate(words) if "qemu-system" in word and "=" not in word
            )
            trip.compare("libvirt-qemu", from_argv(trip.qemu), from_argv(words[start:]))


def _virt_install(trips: Sequence[Trip], libvirt: Libvirt, folder: Path) -> None:
    more = ("--connect", libvirt.uri, "--print-xml", "1", "--dry-run")
    # Each would make it where it is missing, and two at once would stumble over each other.
    libvirt.virsh("pool-create-as", "files", "dir", "--target", str(folder), check=False)
    home = libvirt.folder / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [SYSTEM_PYTHON, _HERE / "many_virt_installs.py"],
        input=json.dumps([[*trip.virt_install, *more] for trip in trips]),
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"},
    )
    for trip, (status, out, err) in zip(trips, json.loads(done.stdout), strict=True):
        if status:
            trip.faults.append(f"virt-install: {err.strip()[-400:]}")
            continue
        document = out[out.index("<domain") : out.index("</domain>") + len("</domain>")]
        trip.compare("virt-install", from_xml(trip.xml), from_xml(document))
