"""The store: directories, catalogue and locks. Everything outside names it through these."""

from thinvirt.store.records import Batch, Fingerprint, Template, Vm
from thinvirt.store.store import NoStore, Store, open_store

__all__ = ["Batch", "Fingerprint", "NoStore", "Store", "Template", "Vm", "open_store"]
