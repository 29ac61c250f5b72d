"""The guest `debian`, booted once under TCG and used as a VM is: by the commands of thinvirt."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mini_guest import THINVIRT, environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(780)]

# Real systemd and cloud-init without KVM, on a machine that may be busy with other tests.
BOOT_TIMEOUT_S = "400"
COMMAND_TIMEOUT_S = 420

USER_DATA = """\
#cloud-config
write_files:
  - path: /etc/written
    content: "by cloud-config\\n"
runcmd:
  - [sh, -c, "echo ran on $(hostname) >/root/ran"]
"""

# Printed by one SSH session, since each costs seconds here.
QUESTIONS = r"""
cloud-init status --wait >/dev/null
say() { printf '%s=%s\n' "$1" "$2"; }
say user "$(id -un)"
say hostname "$(hostname)"
say resolves "$(getent hosts "$(hostname)" >/dev/null && echo yes)"
say written "$(cat /etc/written)"
say ran "$(sudo -n cat /root/ran)"
say status "$(cloud-init status)"
say root_kib "$(df --output=size -k / | tail -n 1 | tr -d ' ')"
say machine_id "$(wc -c </etc/machine-id)"
say host_keys "$(cd /etc/ssh && echo ssh_host_*_key)"
say failed "$(systemctl --failed --no-legend --plain)"
say address "$(ip -4 -o addr show scope global | awk '{ print $4 }')"
say name_server "$(readlink /etc/resolv.conf)"
say root_disk "$(findmnt -no SOURCE /)"
"""


def thinvirt(home: Path, *words: str) -> str:
    """Run one command to its success and return what it printed."""
    done = subprocess.run(
        [THINVIRT, *words],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def vm(tmp_path: Path, debian_image: Path) -> Iterator[Path]:
    """Return a store whose VM `web-7` is at its login prompt."""
    assert debian_image.exists()
    home = tmp_path / "store"
    user_data = tmp_path / "user-data"
    user_data.write_text(USER_DATA)
    thinvirt(home, "template", "build", "debian", "--quiet")
    thinvirt(
        home, "clone", "debian", "web-7", "--size", "5G", "--user-data", str(user_data),
        "--start", "--wait", "--timeout", BOOT_TIMEOUT_S, "--quiet",
    )  # fmt: skip
    try:
        yield home
    finally:
        subprocess.run(
            [THINVIRT, "stop", "--force", "web-7"], env=environment(home), check=False, timeout=60
        )


def test_cloud_init_makes_a_machine_of_its_own(vm: Path) -> None:
    console = next(vm.glob("log/*/console.log")).read_text(errors="replace")
    assert "web-7 login: " in console

    answers = thinvirt(vm, "ssh", "web-7", "--", QUESTIONS)
    told = dict(line.split("=", 1) for line in answers.splitlines() if "=" in line)
    assert int(told.pop("root_kib")) > 4_600_000, "the root file system did not grow"
    assert told == {
        "user": "debian",
        "hostname": "web-7",
        "resolves": "yes",
        "written": "by cloud-config",
        "ran": "ran on web-7",
        "status": "status: done",
        "machine_id": "33",
        "host_keys": "ssh_host_ecdsa_key ssh_host_ed25519_key",
        "failed": "",
        "address": "10.0.2.15/24",
        "name_server": "../run/systemd/resolve/stub-resolv.conf",
        "root_disk": "/dev/vda1",
    }

    thinvirt(vm, "wait", "--agent", "web-7", "--timeout", "60")
    thinvirt(vm, "stop", "web-7", "--timeout", "120")
    assert json.loads(thinvirt(vm, "ls", "--json"))[0]["state"] == "stopped"
    overlay = next(vm.glob("disks/*/web-7.qcow2"))
    subprocess.run(["qemu-img", "check", "-q", str(overlay)], check=True)
