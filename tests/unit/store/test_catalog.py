import os
import sqlite3
from pathlib import Path

import pytest

from thinvirt.errors import Busy, NotFound, StoreUnusable, UsageError
from thinvirt.service.templates import import_image
from thinvirt.store import NoStore, Store, Template, open_store
from thinvirt.store.batches import create_batch
from thinvirt.store.removal import remove_vms
from thinvirt.store.schema import SCHEMA_VERSION


def test_names_and_patterns(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, [f"web-{n:03d}" for n in range(1, 31)])
    create_batch(store, tiny, ["db"])

    def names(*patterns: str) -> list[str]:
        return [vm.name for vm in store.catalog.find_vms(patterns)]

    assert names("db", "web-00[12]") == ["db", "web-001", "web-002"]
    assert names("web-01?", "web-010") == [f"web-{n:03d}" for n in range(10, 20)]
    assert names("[!w]*") == ["db"]
    with pytest.raises(NotFound, match=r"'x\*'"):
        names("x*")
    with pytest.raises(NotFound) as caught:
        names("wbe-001")
    assert "web-001" in caught.value.hint


def test_a_listing_comes_in_pages(
    store: Store, tiny: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinvirt.store.catalog.PAGE", 7)
    create_batch(store, tiny, [f"vm-{n:03d}" for n in range(50)])
    assert [vm.name for vm in store.catalog.iter_vms()] == [f"vm-{n:03d}" for n in range(50)]
    assert len(list(store.catalog.iter_vms(limit=20))) == 20
    assert [vm.id for vm in store.catalog.iter_vms(ids=[3, 40])] == [3, 40]
    assert store.catalog.count_vms(["vm-01*"]) == 10


def test_template_references(store: Store, image: Path) -> None:
    first = import_image(store, image, name="tiny")
    with image.open("r+b") as file:
        file.write(b"changed")
    second = import_image(store, image, name="tiny")
    find = store.catalog.find_template
    assert find("tiny") == second
    assert find("tiny@1") == first
    assert find(first.digest[:12]) == first
    assert find(f"sha256:{second.digest}") == second
    with pytest.raises(NotFound, match="tiny@3") as caught:
        find("tiny@3")
    assert "tiny@2" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        find("tyni")
    assert "tiny" in caught.value.hint
    with pytest.raises(UsageError):
        find("tiny@x")


def test_the_lock_of_a_vm_names_its_holder(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, ["web"])
    vm = store.catalog.find_vm("web")
    other = open_store(store.layout.home)
    with store.lock_vm(vm, "stop"):
        holder = rf"process {os.getpid()} \(thinvirt stop web\)"
        with pytest.raises(Busy, match=holder), other.lock_vm(vm, "start"):
            pass
        with pytest.raises(Busy, match="thinvirt stop web"):
            remove_vms(other, [vm], refuse_running=lambda _: None)
    with other.lock_vm(vm, "start"):
        pass
    assert not store.layout.vm_lock(vm.id).exists()


def test_a_removed_vm_cannot_be_locked(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, ["web"])
    vm = store.catalog.find_vm("web")
    remove_vms(store, [vm], refuse_running=lambda _: None)
    with pytest.raises(NotFound, match="removed"), store.lock_vm(vm, "start"):
        pass


def test_no_store_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoStore):
        open_store(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_a_newer_store_is_refused(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.layout.catalog) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnusable, match="newer thinvirt"):
        open_store(store.layout.home)


def test_a_damaged_catalogue_is_told(store: Store) -> None:
    store.close()
    store.layout.catalog.write_bytes(b"this is no database, whatever it is called\n" * 100)
    with pytest.raises(StoreUnusable, match="damaged"):
        open_store(store.layout.home)


def test_another_sqlite_file_is_refused(store: Store) -> None:
    store.close()
    store.layout.catalog.unlink()
    connection = sqlite3.connect(store.layout.catalog)
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(StoreUnusable, match="not a thinvirt catalogue"):
        open_store(store.layout.home)


def test_readonly_changes_nothing(store: Store, tiny: Template) -> None:
    reader = open_store(store.layout.home, readonly=True)
    assert reader.catalog.find_template("tiny") == tiny
    with pytest.raises(StoreUnusable):
        create_batch(reader, tiny, ["a"])


def test_identity_is_the_one_of_the_uuid_module(store: Store, tiny: Template) -> None:
    from uuid import UUID, uuid5

    create_batch(store, tiny, ["a", "b"])
    identity = store.identity(store.catalog.find_vm("b"))
    assert UUID(identity.uuid) == uuid5(UUID(store.uuid), "vm/2")
    assert UUID(store.uuid).version == 4
    assert identity.mac.startswith("52:54:00:")
    assert int(identity.mac[9:].replace(":", ""), 16) == (store.mac_base + 2) % (1 << 24)
    assert identity.lan_address == "10.128.0.2"
