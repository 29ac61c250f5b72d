"""Print what virt-install chooses for every operating system, as JSON. Run by the system's Python.

Its own code decides, on a connection that says it is QEMU on x86_64: libvirt's test driver with
the capabilities of the file named by the first argument.
"""

import json
import sys

sys.path.insert(0, "/usr/share/virt-manager")
from virtinst import DeviceDisk, DeviceInterface, Guest  # type: ignore[import-not-found]
from virtinst.connection import VirtinstConnection  # type: ignore[import-not-found]
from virtinst.osdict import OSDB  # type: ignore[import-not-found]

CAPABILITIES = """<capabilities>
  <host><uuid>00000000-0000-0000-0000-000000000001</uuid><cpu><arch>x86_64</arch></cpu></host>
  <guest><os_type>hvm</os_type><arch name='x86_64'><wordsize>64</wordsize>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
    <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
    <domain type='qemu'/></arch></guest>
</capabilities>"""


def main() -> None:
    with open(sys.argv[1], "w") as file:
        file.write(CAPABILITIES)
    connection = VirtinstConnection(
        f"__virtinst_test__test:///default,caps={sys.argv[1]},fakeuri='qemu:///system',"
        "connver=9000000,libver=9000000"
    )
    connection.open(None, None)
    chosen = {}
    for system in OSDB.list_os():
        guest = Guest(connection)
        guest.type, guest.os.os_type, guest.os.arch = "qemu", "hvm", "x86_64"
        guest.set_os_name(system.name)
        guest._set_default_machine()
        disk = DeviceDisk(connection)
        disk.device = "disk"
        resources = system.get_recommended_resources()
        chosen[system.name] = {
            "machine": guest.os.machine,
            "bus": disk._default_bus(guest),
            "network": DeviceInterface.default_model(guest),
            "efi": guest.prefers_uefi(),
            "virtio_gpu": system.supports_virtiogpu(),
            "virtio_rng": system.supports_virtiorng(),
            "virtio_blk": system.supports_virtiodisk(),
            "virtio_scsi": system.supports_virtioscsi(),
            "memory": resources.get_recommended_ram("x86_64"),
            "least_memory": resources.get_minimum_ram("x86_64"),
            "disk": resources.get_recommended_storage("x86_64"),
            "vcpus": resources.get_recommended_ncpus("x86_64"),
            "clock": system.get_clock(),
            "label": system.label,
        }
    json.dump(chosen, sys.stdout)


main()
