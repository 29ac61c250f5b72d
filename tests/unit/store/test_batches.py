from pathlib import Path

import pytest

from thinvirt.errors import Conflict, NotFound, UsageError
from thinvirt.progress import Silent
from thinvirt.store import Store, Template, open_store
from thinvirt.store.batches import create_batch
from thinvirt.store.check import findings
from thinvirt.store.removal import remove_vms


def all_names(store: Store) -> list[str]:
    return [vm.name for vm in store.catalog.iter_vms()]


def test_a_batch_appears_as_a_whole(store: Store, tiny: Template) -> None:
    names = [f"web-{n:03d}" for n in range(1, 101)]
    batch = create_batch(store, tiny, names)
    vms = store.catalog.vms_of_batch(batch)
    assert [vm.name for vm in vms] == names
    assert [vm.id for vm in vms] == list(range(1, 101))
    assert all(store.overlay(vm).stat().st_blocks * 512 <= 12 << 10 for vm in vms)
    assert list(findings(store)) == []


def test_a_name_that_is_taken_leaves_nothing_made(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, ["web-002"])
    with pytest.raises(Conflict, match="'web-002'"):
        create_batch(store, tiny, ["web-001", "web-002", "web-003"])
    assert all_names(store) == ["web-002"]
    assert list(findings(store)) == []


def test_an_interruption_undoes_the_batch_at_once(store: Store, tiny: Template) -> None:
    class CtrlC(Silent):
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_batch(store, tiny, [f"vm-{n}" for n in range(500)], progress=CtrlC())
    assert all_names(store) == []
    assert list(store.layout.disks.iterdir()) == []
    assert list(findings(store)) == []


def test_a_name_taken_meanwhile_undoes_the_batch(store: Store, tiny: Template) -> None:
    other = open_store(store.layout.home)

    class Quicker(Silent):
        def step(self, title: str, total: int | None = None, unit: str = "") -> None:
            create_batch(other, tiny, ["b"])

    with pytest.raises(Conflict, match="'b'"):
        create_batch(store, tiny, ["a", "b", "c"], progress=Quicker())
    assert all_names(store) == ["b"]
    assert list(findings(store)) == []


def test_ids_and_folders_are_never_used_again(store: Store, tiny: Template) -> None:
    first = store.catalog.vms_of_batch(create_batch(store, tiny, ["a", "b"]))
    remove_vms(store, first, refuse_running=lambda _: None)
    again = store.catalog.vms_of_batch(create_batch(store, tiny, ["a", "b"]))
    assert {vm.id for vm in first}.isdisjoint(vm.id for vm in again)
    assert first[0].batch.id != again[0].batch.id
    assert store.identity(first[0]) != store.identity(again[0])


def test_the_disk_may_be_larger_but_not_smaller(store: Store, tiny: Template) -> None:
    batch = create_batch(store, tiny, ["big"], virtual_size=(5 << 20) + 1)
    assert batch.virtual_size == (5 << 20) + 512
    with pytest.raises(UsageError, match="smaller than template tiny@1"):
        create_batch(store, tiny, ["small"], virtual_size=4096)


def test_a_template_removed_meanwhile_is_noticed(store: Store, tiny: Template) -> None:
    from thinvirt.store.publication import remove_template

    remove_template(store, tiny)
    with pytest.raises(NotFound, match="tiny@1"):
        create_batch(store, tiny, ["a"])


def test_removal_of_some_and_of_all(store: Store, tiny: Template) -> None:
    create_batch(store, tiny, ["a", "b", "c"])
    for vm in store.catalog.find_vms(["a"]):
        store.layout.log_dir(vm.id).mkdir()
        (store.layout.log_dir(vm.id) / "console.log").write_text("hello")
    remove_vms(store, store.catalog.find_vms(["a", "b"]), refuse_running=lambda _: None)
    assert all_names(store) == ["c"]
    assert list(store.layout.log.iterdir()) == []
    assert list(findings(store)) == []
    remove_vms(store, store.catalog.find_vms(["*"]), refuse_running=lambda _: None)
    assert list(store.layout.disks.iterdir()) == []
    assert list(findings(store)) == []


def test_a_moved_store_works(tmp_path: Path, store: Store, tiny: Template) -> None:
    from thinvirt.service.templates import check_base

    create_batch(store, tiny, ["a"])
    identity = store.identity(store.catalog.find_vm("a"))
    store.close()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = open_store(tmp_path / "elsewhere")
    vm = moved.catalog.find_vm("a")
    check_base(moved, vm.require_template())
    assert moved.identity(vm) == identity
    assert moved.overlay(vm).exists()
    assert list(findings(moved)) == []
