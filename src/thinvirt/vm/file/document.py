"""What a file says, with the place where each value stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from thinvirt.errors import UsageError

MAX_TEXT: Final = 4 << 20  # characters; ten thousand VMs take half of it
MAX_VALUES: Final = 500_000  # with aliases written out: what is short may mean a great deal
MAX_DEPTH: Final = 32  # a specification has four


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a text; lines and columns count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """A value read from a text.

    Attributes:
        value: plain: groups of keys, lists, texts, numbers, true, false, None.
        marks: where each value stands, by its place (``vms[0].disks[1].cache``).
    """

    value: Any
    marks: dict[str, Mark] = field(default_factory=dict)

    def mark(self, place: str) -> Mark | None:
        """Return where something stands: itself, else what it would be in."""
        while place not in self.marks and place:
            place = outer(place)
        return self.marks.get(place)


class BadText(UsageError):
    """A text that is no YAML or JSON, or more than anybody writes.

    Attributes:
        mark: where, None for the whole.
    """

    kind = "vm-file"

    def __init__(self, message: str, mark: Mark | None = None, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.mark = mark


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a file.

    Attributes:
        file: as it was named.
        mark: where in it, None for the whole.
        place: the key: ``vms[0].disks[1].cache``.
        message: what was found, and what is wrong with it.
        fix: what to write instead, "" if the message says it.
    """

    file: str
    mark: Mark | None
    place: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return ``FILE:LINE:COLUMN: KEY: what is wrong (what to write)``."""
        where = f"{self.file}:{self.mark.line}:{self.mark.column}" if self.mark else self.file
        key = f" {self.place}:" if self.place else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{where}:{key} {self.message}{fix}"

    def to_facts(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "file": self.file,
            "line": self.mark.line if self.mark else None,
            "column": self.mark.column if self.mark else None,
            "key": self.place,
            "message": self.message,
            "fix": self.fix,
        }


class InvalidFile(UsageError):
    """Files of VMs that cannot be met; nothing was changed.

    Attributes:
        findings: everything that is wrong with them.
    """

    kind = "vm-file"

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = tuple(findings)


def outer(place: str) -> str:
    """Return the place that a value is in: ``disks[1].cache`` is in ``disks[1]``."""
    if place.endswith("]"):
        return place[: place.rindex("[")]
    return place.rpartition(".")[0]


def inner(place: str, key: str | int) -> str:
    """Return the place of a key or of an item in a value."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key
