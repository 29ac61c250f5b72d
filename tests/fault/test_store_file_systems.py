"""File systems that are too small, read-only or unsuitable, in a mount namespace of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
mount -t tmpfs -o size=$SIZE,nr_inodes=$INODES tmpfs "$STORE" || exit 99
export THINVIRT_HOME=$STORE/home
try() { "$PYTHON" -m thinvirt "$@"; echo "status:$?"; }
found() {
    "$PYTHON" - <<'END'
from pathlib import Path
import os
from thinvirt.store import open_store
from thinvirt.store.check import findings
store = open_store(Path(os.environ["THINVIRT_HOME"]), readonly=True)
print("vms:%d findings:%d" % (store.catalog.vm_count(), len(list(findings(store)))))
END
}
"""


def in_small_file_system(tmp_path: Path, script: str, *, size: str, inodes: int = 0) -> list[str]:
    mount = tmp_path / "small"
    mount.mkdir()
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    environment = {"SIZE": size, "INODES": str(inodes), "STORE": str(mount)}
    result = subprocess.run(
        [*namespace, "bash", "-c", SCRIPT + script],
        env=os.environ | environment | {"PYTHON": sys.executable, "IMAGE": str(tmp_path / "i")},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 99:
        pytest.skip("tmpfs cannot be mounted here")
    if result.returncode == 98:
        pytest.skip("vfat cannot be mounted here: no loop devices, or a kernel without it")
    print(result.stderr)
    return result.stdout.splitlines()


@pytest.mark.parametrize(("size", "inodes"), [("6m", 0), ("64m", 600)])
def test_a_batch_that_does_not_fit_leaves_nothing(tmp_path: Path, size: str, inodes: int) -> None:
    (tmp_path / "i").write_bytes(os.urandom(1 << 16))
    lines = in_small_file_system(
        tmp_path,
        """
        try template import "$IMAGE" --name tiny
        try clone tiny few --count 5
        try clone tiny many --count 1000
        found
        try rm 'few-*'
        try clone tiny some --count 20
        found
        """,
        size=size,
        inodes=inodes,
    )
    statuses = [line for line in lines if line.startswith(("status", "vms"))]
    assert statuses == [
        "status:0",
        "status:0",
        "status:75",
        "vms:5 findings:0",
        "status:0",
        "status:0",
        "vms:20 findings:0",
    ]


def test_an_import_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(os.urandom(8 << 20))
    lines = in_small_file_system(
        tmp_path,
        """
        try template import "$IMAGE" --name big
        found
        find "$THINVIRT_HOME/incoming" "$THINVIRT_HOME/templates" -type f | sed s/^/file:/
        """,
        size="6m",
    )
    assert lines == ["status:75", "vms:0 findings:0"]


def test_a_disk_that_is_full_to_the_last_byte(tmp_path: Path) -> None:
    """Listing still works, a change says what is the matter, and room brings everything back."""
    (tmp_path / "i").write_bytes(os.urandom(1 << 16))
    lines = in_small_file_system(
        tmp_path,
        """
        try template import "$IMAGE" --name tiny
        try clone tiny web --count 5
        dd if=/dev/zero of="$STORE/ballast" bs=4k 2>/dev/null
        try ls --json
        try clone tiny more --count 5
        rm "$STORE/ballast"
        try clone tiny more --count 5
        found
        """,
        size="6m",
    )
    statuses = [line for line in lines if line.startswith(("status", "vms"))]
    assert statuses == [*["status:0"] * 3, "status:75", "status:0", "vms:10 findings:0"]
    assert sum('"name": "web-00' in line for line in lines) == 5


def test_a_read_only_file_system(tmp_path: Path) -> None:
    """Listings work, also of commits that a killed command left in the WAL; changes say why not."""
    (tmp_path / "i").write_bytes(os.urandom(1 << 16))
    lines = in_small_file_system(
        tmp_path,
        """
        try template import "$IMAGE" --name tiny
        "$PYTHON" - <<'END'
import os
from pathlib import Path
from thinvirt.store import open_store
from thinvirt.store.batches import create_batch
store = open_store(Path(os.environ["THINVIRT_HOME"]))
create_batch(store, store.catalog.find_template("tiny"), ["web-001"])
os.kill(os.getpid(), 9)
END
        mount -o remount,ro "$STORE"
        try ls --json
        try show web-001
        try df
        try template ls
        try template verify
        try clone tiny more 2>&1
        try rm web-001 2>&1
        """,
        size="16m",
    )
    statuses = [line for line in lines if line.startswith("status")]
    assert statuses == [*["status:0"] * 6, "status:74", "status:74"]
    assert sum('"name": "web-001"' in line for line in lines) == 1
    assert sum("read-only file system" in line for line in lines) == 2


def test_a_file_system_that_does_not_bear_a_store(tmp_path: Path) -> None:
    """vfat: neither sparse files nor sockets. Nothing is left there."""
    lines = in_small_file_system(
        tmp_path,
        """
        truncate -s 32M "$STORE/fat" && /sbin/mkfs.vfat "$STORE/fat" >/dev/null || exit 99
        mkdir "$STORE/mnt" && mount -o loop "$STORE/fat" "$STORE/mnt" 2>/dev/null || exit 98
        THINVIRT_HOME=$STORE/mnt/store
        try template import "$IMAGE" 2>&1
        find "$STORE/mnt" -type f
        umount "$STORE/mnt"
        """,
        size="64m",
    )
    assert lines[-1] == "status:74"
    assert "does not bear a store" in lines[0]
    assert "vfat" in lines[0]
    assert "THINVIRT_HOME" in lines[1]


def test_a_full_file_system_of_small_blocks_kills_no_command(tmp_path: Path) -> None:
    """SQLite's shared memory then has holes for which there is no room: SIGBUS."""
    (tmp_path / "i").write_bytes(os.urandom(1 << 16))
    lines = in_small_file_system(
        tmp_path,
        """
        truncate -s 16M "$STORE/ext4" && mkfs.ext4 -q -b 1024 "$STORE/ext4" || exit 98
        mkdir "$STORE/small" && mount -o loop "$STORE/ext4" "$STORE/small" || exit 98
        export THINVIRT_HOME=$STORE/small/home
        try template import "$IMAGE" --name tiny
        try clone tiny web --count 3
        cat /dev/zero >"$STORE/small/fill" 2>/dev/null
        try ls --json
        try df
        try clone tiny other
        try rm 'web-*'
        rm "$STORE/small/fill"
        try rm 'web-*'
        found
        """,
        size="64m",
    )
    statuses = [line for line in lines if line.startswith(("status", "vms"))]
    assert statuses == [
        *("status:0", "status:0"),
        *("status:0", "status:0", "status:75", "status:75"),
        *("status:0", "vms:0 findings:0"),
    ]
