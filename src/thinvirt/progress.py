"""How long work reports where it stands, without knowing who watches."""

from typing import Protocol


class Progress(Protocol):
    """What a function that may take over a second tells its caller.

    An interface draws it (a bar on a terminal, events in the API) and may raise from any call to
    cancel the work: the work then undoes itself as after any other error.
    """

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        """A new step begins; `total` is its length in `unit` ("bytes", "VMs"), None if unknown."""

    def advance(self, amount: int) -> None:
        """So much more of the present step is done."""


class Silent:
    """A `Progress` that nobody watches: the default."""

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        """Do nothing."""

    def advance(self, amount: int) -> None:
        """Do nothing."""
