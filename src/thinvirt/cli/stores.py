"""The store a command works on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.cli.output import note
from thinvirt.errors import UsageError

if TYPE_CHECKING:
    from thinvirt.store import Store


def home_of(args: argparse.Namespace) -> Path | None:
    """Return the directory that ``--store`` names; None: $THINVIRT_HOME or the default.

    Raises:
        UsageError: it is empty, as a shell's unset variable makes it; not another store is meant.
    """
    if args.store is None:
        return None
    if not args.store:
        raise UsageError("--store is empty", hint="name a directory, or leave the option away")
    return Path(args.store).expanduser()


def store_of(args: argparse.Namespace, *, create: bool = False) -> "Store":
    """Open the store that ``--store``, $THINVIRT_HOME or the default names.

    What had to be finished or undone of killed commands is told on stderr.

    Raises:
        NoStore: there is none yet, and `create` is not set.
        StoreUnusable: it cannot be used; the message says why.
        UsageError: ``--store`` is empty.
    """
    from thinvirt.store import open_store

    store = open_store(home_of(args), create=create)
    for done in store.recovered:
        note(done)
    return store
