"""Two real guests on a private LAN: they find each other, and the LAN outlives its switch."""

from pathlib import Path

import pytest
from tests.mini_guest import thinvirt
from tests.sector_guest import kill_all

from thinvirt.run import lan
from thinvirt.service.clones import CloneRequest, clone
from thinvirt.service.templates import import_image
from thinvirt.store import open_store
from thinvirt.vm.spec import GraphicsSpec, NetworkSpec, VmSpec

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SPEC = VmSpec(
    networks=(NetworkSpec("user"), NetworkSpec("lan", "lab")), graphics=GraphicsSpec("none")
)
MEGABYTES = 4


def test_two_guests_reach_each_other(home: Path, tiny_image: Path) -> None:
    store = open_store(home)
    import_image(store, tiny_image, name="tiny", facts={"login_user": "root", "memory_mib": 128})
    one, two = clone(store, CloneRequest(template="tiny", name="node", count=2, spec=SPEC))
    there = store.identity(two).lan_address

    def inside(name: str, script: str) -> str:
        done = thinvirt(home, "ssh", name, "--", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        assert thinvirt(home, "start", "node-*", "--wait", "ssh").returncode == 0
        assert " 0% packet loss" in inside(one.name, f"ping -c 3 -w 30 {there}")

        # More than one TCP window, so that a queue that loses frames would be noticed.
        inside(
            two.name, f"mkdir -p /tmp/w; dd if=/dev/urandom of=/tmp/w/data bs=1M count={MEGABYTES}"
        )
        inside(two.name, "httpd -p 8080 -h /tmp/w")
        fetched = inside(one.name, f"wget -q -O - http://{there}:8080/data | md5sum")
        assert fetched.split()[0] == inside(two.name, "md5sum /tmp/w/data").split()[0]

        kill_all(store.layout.networks)
        lan.ensure_switch(store.layout.network("lab"))  # as the next start does
        assert " 0% packet loss" in inside(one.name, f"ping -c 3 -w 30 {there}")
    finally:
        kill_all(home)
