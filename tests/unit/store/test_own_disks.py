"""VMs that are no clones, and what VMs have beside their overlays."""

import sqlite3
from pathlib import Path

import pytest

from thinvirt.errors import NoSpace
from thinvirt.store import Store, Template, open_store
from thinvirt.store.batches import create_batch, create_own
from thinvirt.store.check import findings
from thinvirt.store.removal import remove_vms

SPEC = '{"disks":[{},{"size":1024}],"firmware":"efi","tpm":"tpm-crb"}'


def make_files(folder: Path, name: str) -> None:
    for suffix in ("qcow2", "disk1.qcow2", "vars.fd", "tpm"):
        (folder / f"{name}.{suffix}").write_bytes(b"x")


def make_further(folder: Path, name: str) -> None:
    for suffix in ("disk1.qcow2", "vars.fd", "tpm"):
        (folder / f"{name}.{suffix}").write_bytes(b"x")


def everybody_sleeps(_: object) -> None:
    """No VM runs here."""


def test_a_vm_with_disks_of_its_own(store: Store) -> None:
    batch = create_own(store, "box", spec_json=SPEC, virtual_size=1024, make=make_files)
    vm = store.catalog.find_vm("box")
    assert (vm.template, vm.origin, vm.batch) == (None, "", batch)
    assert vm.spec.firmware == "efi"
    assert list(findings(store)) == []
    remove_vms(store, [vm], refuse_running=everybody_sleeps)
    assert list(store.layout.disks.iterdir()) == []


def test_a_failure_leaves_nothing(store: Store) -> None:
    def fails(folder: Path, name: str) -> None:
        make_files(folder, name)
        raise NoSpace("no space left")

    with pytest.raises(NoSpace):
        create_own(store, "box", spec_json=SPEC, virtual_size=1024, make=fails)
    assert list(store.layout.disks.iterdir()) == []
    assert store.catalog.vm_count() == 0


def test_a_clones_further_files_go_with_it(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, ["a", "b"], spec_json=SPEC, further=make_further)
    folder = store.overlay(store.catalog.find_vm("a")).parent
    assert list(findings(store)) == []
    remove_vms(store, [store.catalog.find_vm("a")], refuse_running=everybody_sleeps)
    assert sorted(path.name for path in folder.iterdir()) == [
        "b.disk1.qcow2",
        "b.qcow2",
        "b.tpm",
        "b.vars.fd",
    ]


def test_a_catalogue_of_version_1_is_brought_up_to_date(
    store: Store, tiny: Template, tmp_path: Path
) -> None:
    """What version 1 knew stays, and no number is ever used again."""
    create_batch(store, tiny, ["a"])
    create_batch(store, tiny, ["gone"])
    remove_vms(store, [store.catalog.find_vm("gone")], refuse_running=everybody_sleeps)
    kept, home = store.catalog.find_vm("a"), store.layout.home
    store.close()
    catalog = sqlite3.connect(home / "catalog.sqlite3", isolation_level=None)
    catalog.executescript(
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, 'template_id INTEGER REFERENCES', "
        "'template_id INTEGER NOT NULL REFERENCES') WHERE name = 'batches';"
        "PRAGMA user_version = 1;"
    )
    catalog.close()
    catalog = sqlite3.connect(home / "catalog.sqlite3", isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError):
        catalog.execute(
            "INSERT INTO batches (state, virtual_size, extended_l2, spec, created) "
            "VALUES ('pending', 1, 0, '', 0)"
        )
    catalog.close()
    assert open_store(home, readonly=True).catalog.find_vm("a") == kept
    migrated = open_store(home)
    assert migrated.catalog.find_vm("a") == kept
    batch = create_own(migrated, "box", spec_json="{}", virtual_size=1, make=make_files)
    assert batch.id == 3
    assert open_store(home).catalog.find_vm("box").template is None
