"""The guest `tiny`, booted from each bus under TCG, as its documentation promises it."""

import json
import re
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from thinvirt.run import agent
from thinvirt.run.qmp import QmpClient
from thinvirt.run.seed_disc import write_seed_disc
from thinvirt.vm.seed import SeedInterface, seed_files

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

BOOT_TIMEOUT_S = 150  # generous: the machine may be busy with other tests
MAC = "52:54:00:12:34:56"
LAN_MAC = "52:54:00:12:34:57"

# The part of cloud-config that `tiny` reads, in JSON.
CLOUD_CONFIG = "#cloud-config\n" + json.dumps(
    {
        "hostname": "on-%s",
        "write_files": [
            {"path": "/srv/a/b", "content": "it's \\o/ fine\n", "permissions": "0600"},
        ],
        "runcmd": ["cat /srv/a/b", ["stat", "-c", "%%a", "/srv/a/b"], ["echo", "two  $words"]],
    }
)

# Disk and CD on each bus: QEMU's options for a machine without defaults.
BUSES = {
    "ide": ("pc", ["ide-hd,drive=disk,bus=ide.0"], "ide-cd,drive=seed,bus=ide.1"),
    "sata": ("q35", ["ide-hd,drive=disk,bus=ide.0"], "ide-cd,drive=seed,bus=ide.1"),
    "scsi": ("q35", ["virtio-scsi-pci", "scsi-hd,drive=disk"], "scsi-cd,drive=seed"),
    "virtio": ("q35", ["virtio-blk-pci,drive=disk"], "ide-cd,drive=seed,bus=ide.1"),
}


@dataclass
class Machine:
    """A running QEMU and its channels."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    qmp: QmpClient

    def console(self) -> str:
        return (self.folder / "console").read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Return what the pattern matched on the console."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.console())):
            assert self.process.poll() is None, f"QEMU ended\n{self.console()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in time\n{self.console()}"
            time.sleep(0.05)
        return match[0]

    def ask_agent(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        return agent.ask(self.folder / "agent", command, arguments, timeout_s=20)

    def ssh_port(self) -> int:
        match = re.search(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)", self.usernet())
        assert match
        return int(match[1])

    def usernet(self) -> str:
        return self.qmp.monitor("info usernet")


@contextmanager
def machine(folder: Path, disk: Path, bus: str, *more: str) -> Iterator[Machine]:
    """Run a machine with `disk` and the folder's ``seed.iso``, if there is one."""
    kind, devices, cd_device = BUSES[bus]
    seed = folder / "seed.iso"
    command = [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", kind,
        "-accel", "tcg", "-m", "96", "-serial", f"file:{folder}/console",
        "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
        "-drive", f"file={disk},if=none,id=disk,format=qcow2",
        *(word for device in devices for word in ("-device", device)),
        "-netdev", "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", f"virtio-net-pci,netdev=net0,mac={MAC}", *more,
    ]  # fmt: skip
    if seed.exists():
        command += ["-drive", f"file={seed},if=none,id=seed,format=raw,media=cdrom,readonly=on"]
        command += ["-device", cd_device]
    (folder / "console").write_bytes(b"")
    process = subprocess.Popen(command, cwd=folder)
    try:
        deadline = time.monotonic() + 20
        while not (folder / "qmp").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with QmpClient(folder / "qmp", timeout_s=20) as qmp:
            yield Machine(process, folder, qmp)
    finally:
        process.kill()
        process.wait()
        (folder / "qmp").unlink(missing_ok=True)


def overlay(folder: Path, base: Path, size: str = "") -> Path:
    disk = folder / "disk.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disk)]
    subprocess.run([*command, *([size] if size else [])], check=True)
    return disk


def write_seed(folder: Path, name: str, **more: Any) -> None:
    settings = {"ssh_keys": [], "interfaces": [SeedInterface(MAC)], **more}
    files = seed_files(instance_id=f"instance-of-{name}", hostname=name, **settings)
    write_seed_disc(folder / "seed.iso", files)


def ssh(folder: Path, port: int, *command: str, options: Sequence[str] = ()) -> str:
    """Run a command in the guest by SSH, by key alone."""
    done = subprocess.run(
        [
            "ssh", "-F", "none", "-i", str(folder / "key"), "-p", str(port), "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known",
            "-o", "ConnectTimeout=60", "-o", "LogLevel=ERROR", *options,
            "root@127.0.0.1", *command,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("bus", ["ide", "scsi"])
def test_reaches_its_login_from_every_bus(tmp_path: Path, tiny_image: Path, bus: str) -> None:
    write_seed(tmp_path, "from-seed", user_data=CLOUD_CONFIG % bus)
    with machine(tmp_path, overlay(tmp_path, tiny_image), bus) as guest:
        guest.wait_for(rf"on-{bus} login: ")
        assert "thinvirt-tiny: network 10.0.2.15" in guest.console()
        guest.wait_for("user-data finished")
        assert (
            "user-data: it's \\o/ fine\nuser-data: 600\nuser-data: two  $words" in guest.console()
        )


def test_takes_a_fixed_address_on_sata(tmp_path: Path, tiny_image: Path) -> None:
    card = {
        "match": {"macaddress": MAC.upper()},
        "addresses": ["10.0.2.99/24"],
        "routes": [
            {"to": "10.9.0.0/16", "via": "10.0.2.3"},
            {"via": "10.0.2.2", "to": "0.0.0.0/0"},
        ],
        "nameservers": {"search": ["example.org"], "addresses": ["10.0.2.3"]},
    }
    absent = {"match": {"macaddress": LAN_MAC}, "dhcp4": True}
    files = seed_files(instance_id="i", hostname="fixed", ssh_keys=[], interfaces=[])
    config = {"network": {"version": 2, "ethernets": {"absent": absent, "first": card}}}
    script = "#!/bin/sh\nip route\ncat /etc/resolv.conf\n"
    write_seed_disc(
        tmp_path / "seed.iso",
        {**files, "network-config": json.dumps(config), "user-data": script},
    )
    with machine(tmp_path, overlay(tmp_path, tiny_image), "sata") as guest:
        guest.wait_for("fixed login: ")
        guest.wait_for("user-data finished")
        said = guest.console()
    assert "names a card that is not there" in said
    assert "thinvirt-tiny: network 10.0.2.99\n" in said
    assert re.search(r"user-data: default via 10\.0\.2\.2 dev eth0", said)
    assert re.search(r"user-data: 10\.9\.0\.0/16 via 10\.0\.2\.3 dev eth0", said)
    assert "user-data: search example.org\nuser-data: nameserver 10.0.2.3" in said


def test_keeps_every_promise_on_virtio(tmp_path: Path, tiny_image: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True
    )
    write_seed(
        tmp_path,
        "web-001",
        ssh_keys=[(tmp_path / "key.pub").read_text().strip()],
        interfaces=[SeedInterface(MAC), SeedInterface(LAN_MAC, "10.128.0.7")],
        user_data="#!/bin/sh\necho \"ran on $(hostname)\"\necho 'said '\"'once'\" >>/root/ran\n",
    )
    disk = overlay(tmp_path, tiny_image, "3G")
    devices = (
        "-netdev", "hubport,id=net1,hubid=1",
        "-device", f"virtio-net-pci,netdev=net1,mac={LAN_MAC}",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={tmp_path}/agent,server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-device", "vmgenid,guid=auto", "-device", "virtio-rng-pci", "-device", "VGA",
    )  # fmt: skip
    with machine(tmp_path, disk, "virtio", *devices) as guest:
        guest.wait_for("web-001 login: ")
        guest.wait_for("user-data: ran on web-001")
        guest.wait_for("user-data finished")
        facts = _facts_by_ssh(tmp_path, guest)
        assert facts["host"] == "web-001"
        assert facts["addresses"] == ["10.0.2.15", "10.128.0.7"]
        assert facts["root_kib"] > 2_900_000
        assert facts["authorized"] == 1
        _check_password_is_refused(tmp_path, guest)
        _check_agent(guest)
        _check_second_boot(guest)
        guest.qmp.execute("system_powerdown")
        assert guest.process.wait(60) == 0
    subprocess.run(["qemu-img", "check", "-q", str(disk)], check=True)


def _facts_by_ssh(folder: Path, guest: Machine) -> dict[str, Any]:
    script = r"""
        printf '{"host": "%s", "root_kib": %s, "authorized": %s, "addresses": [' \
            $(hostname) $(df -k / | awk 'NR == 2 { print $2 }') $(wc -l </root/.ssh/authorized_keys)
        ip -4 -o a | grep -v 127.0.0.1 |
            awk '{ sub("/.*", "", $4); printf "%s\"%s\"", sep, $4; sep = "," }'
        echo ']}'
    """
    output = ssh(folder, guest.ssh_port(), script)
    facts: dict[str, Any] = json.loads(output)
    return facts


def _check_password_is_refused(folder: Path, guest: Machine) -> None:
    """Without the key nobody comes in, though the account has no password."""
    options = ("-o", "IdentityFile=none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none")
    (folder / "key").rename(folder / "away")
    try:
        assert "Permission denied (publickey)" in ssh(
            folder, guest.ssh_port(), "true", options=options
        )
    finally:
        (folder / "away").rename(folder / "key")


def _check_agent(guest: Machine) -> None:
    assert guest.ask_agent("guest-get-host-name")["host-name"] == "web-001"
    started = guest.ask_agent(
        "guest-exec", {"path": "/bin/cat", "arg": ["/etc/machine-id"], "capture-output": True}
    )
    deadline = time.monotonic() + 30
    while not (status := guest.ask_agent("guest-exec-status", started))["exited"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert re.fullmatch(rb"[0-9a-f]{32}\n", b64decode(status["out-data"]))


def _check_second_boot(guest: Machine) -> None:
    """The same instance boots again: its host key stays, its user-data does not run again."""
    before = ssh(guest.folder, guest.ssh_port(), "md5sum /etc/dropbear/*key; sync; reboot")
    guest.wait_for("(?s)web-001 login: .*init.*web-001 login: ")
    after = ssh(guest.folder, guest.ssh_port(), "md5sum /etc/dropbear/*key; cat /root/ran")
    assert after == before + "said 'once'\n"


def test_boots_without_a_seed_and_with_a_hostile_one(tmp_path: Path, tiny_image: Path) -> None:
    disk = overlay(tmp_path, tiny_image)
    with machine(tmp_path, disk, "virtio") as guest:
        guest.wait_for("tiny login: ")
        assert "thinvirt-tiny: no seed" in guest.console()
        assert "thinvirt-tiny: network 10.0.2.15" in guest.console()
    hostile = '{"instance-id": "$(reboot)`reboot`", "local-hostname": "a b;reboot", "x": [1,'
    write_seed_disc(
        tmp_path / "seed.iso",
        {"meta-data": hostile, "user-data": "\0\1\2", "network-config": "ethernets: {}\n"},
    )
    with machine(tmp_path, disk, "virtio") as guest:
        guest.wait_for("tiny login: ")
        assert "the seed's meta-data is not JSON" in guest.console()
        assert "host name is not one" in guest.console()
        assert "neither a script (#!) nor #cloud-config" in guest.console()
