"""Images cut off inside their refcounts: what rewrites them refuses and leaves them alone."""

from pathlib import Path

import pytest
from tests.qcow2_images import make, opened

from thinvirt.image.qemu_img import main as program

CLUSTER = 65536
BLOCK = 2 * CLUSTER  # where the refcount block lies
CUTS = [CLUSTER + 4, CLUSTER + 100, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 2, BLOCK + 4, BLOCK + 6]
COMMANDS = {
    "widen": ["amend", "-o", "refcount_bits=64"],
    "narrow": ["amend", "-o", "refcount_bits=1"],
    "snapshot": ["snapshot", "-c", "new"],
    "bitmap": ["bitmap", "--add", "--granularity", "64k"],
    "resize": ["resize", "-q"],
}
_LAST = {"bitmap": ["new"], "resize": ["+100G"]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_without_its_refcounts_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, cut: int
) -> None:
    path = tmp_path / "disk"
    make(path, "size=64M")
    with opened(path) as (root, _):
        root.write(0, b"w" * (1 << 20))
    before = path.read_bytes()[:cut]
    path.write_bytes(before)
    words = [*COMMANDS[command], str(path), *_LAST.get(command, [])]
    status = program.main(["thin-img", *words])
    told = capfd.readouterr().err
    assert "Marking image as corrupt" in told
    if command != "bitmap":  # it is stored when the image is closed: qemu-img's status is 0 too
        assert status == 1
    after = path.read_bytes()
    assert len(after) == cut
    assert after[CLUSTER:] == before[CLUSTER:]  # the first cluster has the mark
