import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from thinvirt.errors import BaseChanged, Conflict, HostileImage, UnsupportedFeature, UsageError
from thinvirt.service.templates import (
    check_base,
    import_image,
    name_from_file,
    promote,
    remove_templates,
    take_image,
    verify,
)
from thinvirt.store import Store, Template
from thinvirt.store.batches import create_batch
from thinvirt.store.check import findings


def test_a_template_is_published_by_digest_and_frozen(store: Store, tiny: Template) -> None:
    path = store.template_image(tiny)
    assert path.name == f"{tiny.digest}.raw"
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.stat().st_blocks * 512 < 128 << 10  # sparse stayed sparse
    assert subprocess.check_output(["sha256sum", path], text=True).split()[0] == tiny.digest
    assert list(findings(store)) == []


def test_the_same_again_adds_nothing_and_a_change_is_a_version(store: Store, image: Path) -> None:
    first = take_image(store, image, name="tiny")
    again = take_image(store, image, name="tiny")
    assert (first.was_there, again.was_there) == (False, True)
    assert again.template == first.template
    other = import_image(store, image, name="other")
    assert other.digest == first.template.digest
    assert len(list(store.layout.templates.iterdir())) == 1
    remove_templates(store, ["other"])
    assert store.template_image(first.template).exists()
    remove_templates(store, ["tiny"])
    assert list(store.layout.templates.iterdir()) == []
    assert import_image(store, image, name="tiny").ref == "tiny@2"  # a version means one image
    assert list(findings(store)) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("cirros-0.5.1-x86_64-disk.img", "cirros-0.5.1-x86_64-disk"),
        ("debian 12.qcow2", "debian-12"),
        ("x.raw.img", "x"),
        ("_odd(1)_.vmdk", "odd-1"),
    ],
)
def test_a_name_is_made_of_the_files(file: str, name: str) -> None:
    assert name_from_file(Path(file)) == name


def test_no_name_can_be_made_of_some(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        name_from_file(tmp_path / "¿?.img")


def test_moving_takes_the_file_or_puts_it_back(store: Store, image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.qcow2"
    bad.write_bytes(b"QFI\xfb" + bytes(600))
    with pytest.raises(Exception, match="version"):
        import_image(store, bad, name="bad", move=True)
    assert bad.exists()
    import_image(store, image, name="tiny", move=True)
    assert not image.exists()
    assert list(findings(store)) == []


@pytest.mark.oracle
def test_formats_are_found_by_content(store: Store, image: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / "cirros.img"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, misnamed], check=True)
    assert import_image(store, misnamed).format == "qcow2"
    foreign = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", image, foreign], check=True)
    taken = take_image(store, foreign, name="foreign")
    assert (taken.converted_from, taken.template.format) == ("vmdk", "qcow2")
    subprocess.run(["qemu-img", "compare", image, store.template_image(taken.template)], check=True)


@pytest.mark.oracle
def test_hostile_and_packed_files_are_refused_and_leave_nothing(
    store: Store, image: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", overlay], check=True
    )
    with pytest.raises(HostileImage):
        import_image(store, overlay)
    subprocess.run(["gzip", "-k", image], check=True)
    with pytest.raises(UnsupportedFeature) as caught:
        import_image(store, image.with_name(image.name + ".gz"))
    assert "gunzip" in caught.value.hint
    assert list(store.layout.templates.iterdir()) == []
    assert list(findings(store)) == []


def test_a_template_with_clones_stays(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, [f"web-{n}" for n in range(1, 6)])
    with pytest.raises(Conflict, match=r"5 clones: web-1, web-2, web-3 and 2 more"):
        remove_templates(store, ["tiny"])
    assert store.template_image(tiny).exists()


def write_into(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(0o444)


def test_a_base_changed_behind_our_back_is_refused(store: Store, tiny: Template) -> None:
    check_base(store, tiny)
    write_into(store.template_image(tiny), b"bad")
    with pytest.raises(BaseChanged, match="tiny@1") as caught:
        check_base(store, tiny)
    assert "thinvirt template verify tiny@1" in caught.value.hint
    assert [bool(v.problem) for v in verify(store, [])] == [True]
    store.template_image(tiny).unlink()
    with pytest.raises(BaseChanged, match="gone"):
        check_base(store, tiny)


def test_a_restored_base_is_accepted_once_verified(store: Store, tiny: Template) -> None:
    path = store.template_image(tiny)
    saved = path.with_suffix(".saved")
    shutil.copyfile(path, saved)
    os.replace(saved, path)
    check_base(store, tiny)  # another inode: the digest decides
    again = store.catalog.find_template("tiny")
    assert again.fingerprint != tiny.fingerprint
    assert [v.problem for v in verify(store, ["tiny"])] == [""]
    assert list(findings(store)) == []


@pytest.mark.oracle
def test_promote_makes_a_self_contained_template(store: Store, image: Path) -> None:
    import_image(store, image, name="tiny", facts={"os": "test"})
    create_batch(store, store.catalog.find_template("tiny"), ["web"], virtual_size=2 << 20)
    disk = store.overlay(store.catalog.find_vm("web"))
    subprocess.run(
        ["qemu-io", "-c", "write -P 0x42 1M 64k", disk], check=True, stdout=subprocess.DEVNULL
    )
    made = promote(store, "web", name="golden")
    path = store.template_image(made)
    assert (made.ref, made.format, made.facts) == ("golden@1", "qcow2", {"os": "test"})
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    assert "backing-filename" not in info
    assert info["virtual-size"] == made.virtual_size == 2 << 20
    subprocess.run(["qemu-img", "compare", disk, path], check=True)
    assert list(findings(store)) == []


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_importing_the_same_again_puts_a_harmed_image_back(
    store: Store, image: Path, harm: str
) -> None:
    tiny = import_image(store, image, name="tiny")
    path = store.template_image(tiny)
    path.unlink()
    if harm == "changed":
        path.write_bytes(bytes(tiny.file_size))
    with pytest.raises(BaseChanged) as refused:
        check_base(store, tiny)
    assert "thinvirt template import FILE --name tiny" in refused.value.hint
    again = take_image(store, image, name="tiny")
    assert (again.was_there, again.restored, again.template.ref) == (True, True, "tiny@1")
    assert [verdict.problem for verdict in verify(store, [])] == [""]
    check_base(store, store.catalog.find_template("tiny"))
    path.unlink()
    assert import_image(store, image, name="other").digest == tiny.digest  # under any name
    assert [verdict.problem for verdict in verify(store, [])] == ["", ""]
    assert not take_image(store, image, name="tiny").restored
    assert list(findings(store)) == []


def test_a_raw_file_without_boot_record_is_told(store: Store, tmp_path: Path) -> None:
    plain, disk = tmp_path / "passwd", tmp_path / "disk"
    plain.write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes(512))
    assert not take_image(store, plain).looks_bootable
    assert take_image(store, disk).looks_bootable
