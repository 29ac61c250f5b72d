"""Random sequences of import, clone, removal and killed commands, against a plain model."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thinvirt.errors import Conflict, NotFound
from thinvirt.progress import Silent
from thinvirt.service.templates import import_image, remove_templates
from thinvirt.store import Store, open_store
from thinvirt.store.batches import create_batch
from thinvirt.store.check import findings
from thinvirt.store.removal import remove_vms

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TEMPLATES = st.sampled_from(["tiny", "debian"])


class StoreMachine(RuleBasedStateMachine):
    """The model: which VM stands on which template reference, and the newest versions."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="thinvirt-model-"))
        self.vms: dict[str, str] = {}
        self.templates: dict[str, bytes] = {}
        self.last_version: dict[str, int] = {}
        self.ids: set[int] = set()

    @initialize()
    def make(self) -> None:
        self.store: Store = open_store(self.folder / "store")

    def newest(self, name: str) -> str | None:
        versions = [int(ref.split("@")[1]) for ref in self.templates if ref.split("@")[0] == name]
        return f"{name}@{max(versions)}" if versions else None

    @rule(name=TEMPLATES, content=st.binary(min_size=1, max_size=2))
    def import_template(self, name: str, content: bytes) -> None:
        image = self.folder / "image"
        image.write_bytes(content * 512)
        template = import_image(self.store, image, name=name)
        known = [
            ref for ref, data in self.templates.items() if ref.startswith(name) and data == content
        ]
        if known:
            assert template.ref in known
            return
        version = self.last_version[name] = self.last_version.get(name, 0) + 1
        assert template.ref == f"{name}@{version}"
        self.templates[template.ref] = content

    @rule(name=TEMPLATES, vms=st.lists(NAMES, min_size=1, max_size=4, unique=True))
    def clone(self, name: str, vms: list[str]) -> None:
        ref = self.newest(name)
        try:
            template = self.store.catalog.find_template(name)
            batch = create_batch(self.store, template, vms)
        except NotFound:
            assert ref is None
        except Conflict:
            assert set(vms) & self.vms.keys()
        else:
            assert template.ref == ref
            assert not set(vms) & self.vms.keys()
            self.vms.update(dict.fromkeys(vms, ref))
            fresh = {vm.id for vm in self.store.catalog.vms_of_batch(batch)}
            assert not fresh & self.ids
            self.ids |= fresh

    @rule(vms=st.lists(NAMES, min_size=1, max_size=4, unique=True))
    def remove(self, vms: list[str]) -> None:
        try:
            found = self.store.catalog.find_vms(vms)
        except NotFound:
            assert not set(vms) <= self.vms.keys()
            return
        remove_vms(self.store, found, refuse_running=lambda _: None)
        for name in vms:
            del self.vms[name]

    @rule(name=TEMPLATES)
    def remove_template(self, name: str) -> None:
        ref = self.newest(name)
        try:
            remove_templates(self.store, [name])
        except NotFound:
            assert ref is None
        except Conflict:
            assert ref in self.vms.values()
        else:
            assert ref is not None
            assert ref not in self.vms.values()
            del self.templates[ref]

    @precondition(lambda self: self.templates)
    @rule(vms=st.lists(NAMES, min_size=1, max_size=4, unique=True), moment=st.integers(0, 2))
    def killed_clone(self, vms: list[str], moment: int) -> None:
        """A child makes a batch and dies at once, nothing undone, before its commit."""
        if set(vms) & self.vms.keys():
            return
        ref = sorted(self.templates)[0]
        child = os.fork()
        if child == 0:
            die_in_batch(self.folder / "store", ref, vms, moment)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 9
        self.store.close()
        self.store = open_store(self.folder / "store")

    @rule()
    def move(self) -> None:
        self.store.close()
        aside = self.folder / "aside"
        (self.folder / "store").rename(aside)
        aside.rename(self.folder / "store")
        self.store = open_store(self.folder / "store")

    @invariant()
    def agrees(self) -> None:
        catalog = self.store.catalog
        assert {vm.name: vm.origin for vm in catalog.iter_vms()} == self.vms
        assert {t.ref for t in catalog.templates()} == self.templates.keys()
        files = {p.name.partition(".")[0] for p in self.store.layout.templates.iterdir()}
        assert files == {t.digest for t in catalog.templates()}
        assert list(findings(self.store)) == []

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.folder)


def die_in_batch(home: Path, ref: str, vms: list[str], moment: int) -> None:
    """Make a batch in a forked child and leave without any undoing."""

    class Dying(Silent):
        def step(self, title: str, total: int | None = None, unit: str = "") -> None:
            if moment == 0:
                os._exit(9)

        def advance(self, amount: int) -> None:
            if moment == 1:
                os._exit(9)

    try:
        store = open_store(home)
        create_batch_without_commit = moment == 2
        if create_batch_without_commit:
            import thinvirt.store.batches as batches

            batches._commit = lambda *_: os._exit(9)
        create_batch(store, store.catalog.find_template(ref), vms, progress=Dying())
    finally:
        os._exit(1)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
