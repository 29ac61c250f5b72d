"""The store: directories, catalogue and locks. Everything outside names it through these."""

from thinvirt.store.opening import NoStore, open_store
from thinvirt.store.records import Batch, Fingerprint, Template, Vm
from thinvirt.store.store import Store

__all__ = ["Batch", "Fingerprint", "NoStore", "Store", "Template", "Vm", "open_store"]
