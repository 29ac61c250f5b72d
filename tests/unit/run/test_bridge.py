"""Places on bridges: libvirt's networks, and what keeps a VM off a bridge."""

from pathlib import Path

import pytest

from thinvirt.errors import Conflict, NotFound, QemuFailed
from thinvirt.run import bridge
from thinvirt.run.bridge import bridge_of_network, helper_trouble, tap_on

NETWORK = """<network ipv6='yes'><name>lab</name>
  <forward mode='nat'/><bridge stp='on' name='{bridge}' delay='0'/></network>"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that stands for libvirt's; virsh is not installed."""
    monkeypatch.setattr(bridge, "_NETWORK_FOLDERS", (tmp_path,))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_libvirt_network_has_a_bridge(networks: Path) -> None:
    (networks / "lab.xml").write_text(NETWORK.format(bridge="lo"))
    assert bridge_of_network("lab") == "lo"


def test_a_network_that_is_not_up(networks: Path) -> None:
    (networks / "lab.xml").write_text(NETWORK.format(bridge="virbr77"))
    with pytest.raises(NotFound, match="'lab' is not up: there is no bridge 'virbr77'") as caught:
        bridge_of_network("lab")
    assert "net-start lab" in caught.value.hint


def test_a_network_without_a_bridge(networks: Path) -> None:
    (networks / "lab.xml").write_text("<network><forward mode='passthrough'/></network>")
    with pytest.raises(Conflict, match="no bridge of its own"):
        bridge_of_network("lab")


def test_a_network_that_nobody_knows(networks: Path) -> None:
    with pytest.raises(NotFound, match="virsh is not installed"):
        bridge_of_network("lab")


def test_a_bridge_that_is_not_there() -> None:
    with pytest.raises(NotFound, match="no bridge 'br-nope'"), tap_on("br-nope"):
        pass
    with pytest.raises(NotFound, match="no bridge 'lo'"), tap_on("lo"):
        pass


@pytest.mark.parametrize(
    ("said", "kind", "told", "hint"),
    [
        (
            "failed to parse default acl file `/etc/qemu/bridge.conf'",
            Conflict,
            "there is no /etc/qemu/bridge.conf",
            "mkdir -p /etc/qemu; echo 'allow br0'",
        ),
        ("access denied by acl file", Conflict, "does not allow bridge 'br0'", "echo 'allow br0'"),
        ("failed to create tun device: Operation not permitted", QemuFailed, "not permitted", ""),
        ("failed to open /dev/net/tun: No such file or directory", QemuFailed, "/dev/net/tun", ""),
    ],
)
def test_why_the_helper_refused(
    said: str, kind: type[Exception], told: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    error = helper_trouble(Path("/bin/true"), "br0", said)
    assert isinstance(error, kind)
    assert told in str(error)
    assert hint in error.hint


def test_a_helper_that_is_not_set_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = "failed to create tun device: Operation not permitted"
    error = helper_trouble(Path("/bin/true"), "br0", said)
    assert "is not set-user-id root" in str(error)
    assert "chmod u+s" in error.hint
