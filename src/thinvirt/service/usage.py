"""What templates and their clones occupy, and what full copies would.

Bytes are what `stat` counts as allocated (``st_blocks``), so holes cost nothing on either side.

A *full copy* of a VM's disk holds everything the template holds and everything the VM wrote, so it
occupies at least the larger of the two; that lower bound is what is counted for it. Both sides
include the template once: without it there is nothing to make the next VM from.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thinvirt.image.block.hostfile import allocated_bytes
from thinvirt.store import Store, Template
from thinvirt.store.trouble import explained


@dataclass(frozen=True, slots=True)
class Usage:
    """What one template and its clones occupy, in bytes; or the sum of several.

    Attributes:
        name: the template, or "total".
        clones: how many VMs.
        template_bytes: what the template's image occupies.
        clones_bytes: what the overlays occupy together.
        copies_bytes: what full copies in their place would occupy, at least.
        shared: another name of the same bytes has the image too, and the total counts it there.
    """

    name: str
    clones: int
    template_bytes: int
    clones_bytes: int
    copies_bytes: int
    shared: bool = False

    @property
    def full_copies_bytes(self) -> int:
        """What the template and full copies would occupy, at least."""
        return self.template_bytes + self.copies_bytes

    @property
    def occupied_bytes(self) -> int:
        """What is occupied: template and overlays."""
        return self.template_bytes + self.clones_bytes

    @property
    def saved_bytes(self) -> int:
        """What sharing saves, at least."""
        return self.full_copies_bytes - self.occupied_bytes

    @property
    def factor(self) -> float:
        """How many times more full copies would occupy, at least."""
        return self.full_copies_bytes / self.occupied_bytes if self.occupied_bytes else 1.0

    def as_facts(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        return {
            "name": self.name,
            "clones": self.clones,
            "template_bytes": self.template_bytes,
            "clones_bytes": self.clones_bytes,
            "occupied_bytes": self.occupied_bytes,
            "full_copies_bytes": self.full_copies_bytes,
            "saved_bytes": self.saved_bytes,
            "factor": round(self.factor, 2),
        }


def usage(store: Store, refs: Sequence[str] = ()) -> list[Usage]:
    """Return what each template and its clones occupy.

    Args:
        store: theirs.
        refs: which templates; none: all.

    Raises:
        NotFound: there is no such template.
    """
    chosen = (
        list({t.id: t for t in (store.catalog.find_template(ref) for ref in refs)}.values())
        if refs
        else store.catalog.templates()
    )
    counted: set[str] = set()
    figures = []
    for template in chosen:
        # Two names of the same bytes share one file, which the total counts once.
        shared = template.digest in counted
        counted.add(template.digest)
        figures.append(_usage(store, template, shared=shared))
    return figures


def total(figures: Sequence[Usage]) -> Usage:
    """Return the sum of all figures."""
    return Usage(
        "total",
        sum(f.clones for f in figures),
        sum(f.template_bytes for f in figures if not f.shared),
        sum(f.clones_bytes for f in figures),
        sum(f.copies_bytes for f in figures),
    )


def _usage(store: Store, template: Template, *, shared: bool) -> Usage:
    image = store.template_image(template)
    try:
        own = allocated_bytes(image.stat())
    except FileNotFoundError:
        own = 0
    clones = clones_bytes = copies_bytes = 0
    with explained(store.layout.home):
        for batch_id, count in store.catalog.batches_of(template):
            clones += count
            for size in _overlay_sizes(store, batch_id):
                clones_bytes += size
                copies_bytes += max(own, size)
    return Usage(template.ref, clones, own, clones_bytes, copies_bytes, shared)


def _overlay_sizes(store: Store, batch_id: int) -> list[int]:
    """Return what each overlay of a batch occupies; one listing of one folder."""
    try:
        with os.scandir(store.layout.batch(batch_id)) as entries:
            return [allocated_bytes(entry.stat(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return []  # just removed; or lost, which is not for this command to say
