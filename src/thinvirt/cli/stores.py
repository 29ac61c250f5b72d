"""The store a command works on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.cli.output import note

if TYPE_CHECKING:
    from thinvirt.store import Store


def store_of(args: argparse.Namespace, *, create: bool = False) -> "Store":
    """Open the store that ``--store``, $THINVIRT_HOME or the default names.

    What had to be finished or undone of killed commands is told on stderr.

    Raises:
        NoStore: there is none yet, and `create` is not set.
        StoreUnusable: it cannot be used; the message says why.
    """
    from thinvirt.store import open_store

    home = Path(args.store).expanduser() if args.store else None
    store = open_store(home, create=create)
    for done in store.recovered:
        note(done)
    return store
