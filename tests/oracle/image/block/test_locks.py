"""Locks: real QEMU programs and we see each other."""

import os
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import ImageLocked
from thinvirt.image.block.file_create import create_file
from thinvirt.image.block.flags import Open, Permission
from thinvirt.image.block.graph import BlockGraph

pytestmark = pytest.mark.oracle

HINT = "Is another process using the image [a.raw]?\n"
EXCLUSIVE = "driver=blkdebug,unshare-child-perms.0=write,image.driver=file,image.filename=a.raw"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    monkeypatch.chdir(tmp_path)
    return "a.raw"


def test_we_are_refused_and_told_by_whom(qemu: Qemu, image: str) -> None:
    holder = qemu.hold("--image-opts", EXCLUSIVE, "-r")
    with pytest.raises(ImageLocked) as caught:
        BlockGraph().open_root(image, {"driver": "raw"}, Open.RDWR)
    assert caught.value.message == 'Failed to get "write" lock'
    assert caught.value.qemu_hint == HINT
    assert [found.pid for found in caught.value.holders] == [holder.pid]
    assert f"qemu-io (process {holder.pid})" in caught.value.hint
    theirs = qemu.run("qemu-io", "-f", "raw", "-c", "read 0 512", image).stderr
    assert caught.value.message + "\n" + HINT in theirs
    BlockGraph().open_root(image, {"driver": "raw"}).close()  # reading was not forbidden
    qemu.end(holder)
    BlockGraph().open_root(image, {"driver": "raw"}, Open.RDWR).close()


def test_a_vms_disk_is_safe_from_us(qemu: Qemu, image: str) -> None:
    holder = qemu.hold("-f", "raw", "-C", image)  # writes, and shares writing
    # A format relies on nobody else writing: a qcow2 file of a VM is held like this.
    with (
        pytest.raises(ImageLocked) as caught,
        BlockGraph().open_root(image, {"driver": "raw"}) as ours,
    ):
        ours.set_permissions(
            Permission.CONSISTENT_READ, Permission.ALL & ~(Permission.WRITE | Permission.RESIZE)
        )
    assert caught.value.message == 'Failed to get shared "write" lock'
    assert caught.value.holders[0].pid == holder.pid
    assert caught.value.holders[0].writes


def test_they_are_refused(qemu: Qemu, image: str) -> None:
    with BlockGraph().open_root(image, {"driver": "raw"}, Open.RDWR | Open.NO_SHARE):
        said = qemu.img_error("resize", "-f", "raw", image, "2M")
        assert 'Failed to get "write" lock\n' + HINT in said
        qemu.img("info", "-f", "raw", image)
    qemu.img("resize", "-q", "-f", "raw", image, "2M")


def test_creating_over_an_image_in_use_is_refused(qemu: Qemu, image: str) -> None:
    Path(image).write_bytes(b"precious" * 512)
    holder = qemu.hold("--image-opts", EXCLUSIVE, "-r")
    said = qemu.img_error("create", "-q", "-f", "raw", image, "1M")
    with pytest.raises(ImageLocked) as caught:
        create_file(image, 1 << 20)
    assert f"{caught.value.message}\n{caught.value.qemu_hint}" in said
    assert caught.value.holders[0].pid == holder.pid
    assert Path(image).read_bytes() == b"precious" * 512


def test_two_users_in_one_process_see_each_other(image: str) -> None:
    with (
        BlockGraph().open_root(image, {"driver": "raw"}, Open.NO_SHARE),
        pytest.raises(ImageLocked) as caught,
    ):
        BlockGraph().open_root(image, {"driver": "raw"}, Open.RDWR)
    assert [found.pid for found in caught.value.holders] == [os.getpid()]
    assert "this process itself" in caught.value.hint


def test_a_failed_change_leaves_the_locks_as_they_were(qemu: Qemu, image: str) -> None:
    with (
        BlockGraph().open_root(image, {"driver": "raw"}) as ours,
        BlockGraph().open_root(image, {"driver": "raw"}, Open.RDWR),
    ):
        before = ours.permissions
        with pytest.raises(ImageLocked):
            ours.set_permissions(Permission.CONSISTENT_READ, Permission.CONSISTENT_READ)
        assert ours.permissions == before
        qemu.io("-f", "raw", "-c", "write 0 512", image)


def test_locking_can_be_left_out(qemu: Qemu, image: str) -> None:
    qemu.hold("--image-opts", EXCLUSIVE, "-r")
    options = {"driver": "raw", "file.locking": "off"}
    BlockGraph().open_root(image, options, Open.RDWR).close()


def test_auto_read_only_opens_for_writing_only_when_somebody_writes(image: str) -> None:
    Path(image).chmod(0o444)
    options = {"driver": "raw", "auto-read-only": "on"}
    with BlockGraph().open_root(image, options) as ours:
        assert ours.read(0, 4) == bytes(4)


def test_a_running_vm_keeps_its_disk(qemu: Qemu, image: str) -> None:
    machine = qemu.start(
        "qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none",
        "-qmp", "stdio", "-drive", f"if=virtio,format=raw,file={image}",
    )  # fmt: skip
    assert machine.stdout is not None
    assert machine.stdin is not None
    assert "QMP" in machine.stdout.readline()
    machine.stdin.write('{"execute": "qmp_capabilities"}\n')
    machine.stdin.flush()
    assert "return" in machine.stdout.readline()  # its devices are there
    for flags, message in (
        (Open.RDWR, 'Failed to get "write" lock'),
        (Open.NO_SHARE, 'Failed to get shared "write" lock'),
    ):
        with pytest.raises(ImageLocked) as caught:
            BlockGraph().open_root(image, {"driver": "raw"}, flags)
        assert caught.value.message == message
        assert f"qemu-system-x86_64 (process {machine.pid})" in caught.value.hint
    with BlockGraph().open_root(image, {"driver": "raw", "force-share": "on"}) as ours:
        assert ours.read(0, 4) == bytes(4)
