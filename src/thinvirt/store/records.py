"""The rows of the catalogue as values."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from thinvirt.errors import Conflict, StoreUnusable

if TYPE_CHECKING:
    from thinvirt.vm.spec import VmSpec


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `stat` said of a template's file when its digest was last known to be right.

    Anybody who writes to the file changes ``ctime``, which no system call can set back.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the fingerprint of the file at `path`."""
        status = path.stat(follow_symlinks=False)
        return cls.from_status(status)

    @classmethod
    def from_status(cls, status: os.stat_result) -> Self:
        """Return the fingerprint in a `stat` result."""
        return cls(
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A frozen base image of the store.

    Attributes:
        id: its row.
        name: what people call it; versions of one name are counted from 1.
        version: which of them.
        digest: SHA-256 of the whole file, hexadecimal.
        format: "qcow2" or "raw".
        virtual_size: what a guest sees, in bytes.
        file_size: length of the file, in bytes.
        source: where it came from, in words: a path, a URL, a recipe.
        facts: what is known of its guest operating system (JSON).
        created: when it was published, seconds since the epoch.
        fingerprint: what `stat` said when the digest was last right.
    """

    id: int
    name: str
    version: int
    digest: str
    format: str
    virtual_size: int
    file_size: int
    source: str
    facts: dict[str, Any]
    created: int
    fingerprint: Fingerprint

    @property
    def ref(self) -> str:
        """The name that stays unambiguous: ``tiny@2``."""
        return f"{self.name}@{self.version}"

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.digest}.{self.format}"


@dataclass(frozen=True, slots=True)
class Batch:
    """VMs made together: they share all but name and number.

    Attributes:
        id: its row, and its folder's name.
        template: what its overlays are based on; None: the VM was installed, or imported.
        spec_json: the VM specification (`thinvirt.vm.spec.VmSpec`) as JSON.
        virtual_size: what the guests see, in bytes.
        extended_l2: whether the overlays have subclusters.
        created: when, seconds since the epoch.
    """

    id: int
    template: Template | None
    spec_json: str
    virtual_size: int
    extended_l2: bool
    created: int


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM: a linked clone of its batch's template, or one with disks of its own.

    Attributes:
        id: its row; never used again, so what is derived from it is unique.
        name: what people call it, also the guest's host name.
        batch: what it shares with the VMs made with it.
        overrides_json: what differs from the batch's specification, as JSON.
    """

    id: int
    name: str
    batch: Batch
    overrides_json: str | None = field(default=None)

    @property
    def template(self) -> Template | None:
        """The template its disk is based on; None: its disks are its own."""
        return self.batch.template

    @property
    def origin(self) -> str:
        """What it was made of, for people: ``tiny@2``, "" for a VM with disks of its own."""
        return self.batch.template.ref if self.batch.template else ""

    def require_template(self) -> Template:
        """Return the template its disk is based on.

        Raises:
            Conflict: it has none.
        """
        if self.batch.template is None:
            raise Conflict(f"VM '{self.name}' is no clone: its disks are its own")
        return self.batch.template

    @property
    def spec(self) -> "VmSpec":
        """Its specification.

        Raises:
            StoreUnusable: what the catalogue has is none.
        """
        from thinvirt.vm.spec import VmSpec  # only for commands that look into it

        try:
            return VmSpec.from_json(self.batch.spec_json, self.overrides_json)
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(f"the specification of VM '{self.name}'") from error


def damaged(what: str) -> StoreUnusable:
    """Return the error for something in the catalogue that we did not write so."""
    return StoreUnusable(
        f"the catalogue is damaged: {what} cannot be read",
        hint="the images are untouched: put back a copy of catalog.sqlite3, and keep this one",
    )
