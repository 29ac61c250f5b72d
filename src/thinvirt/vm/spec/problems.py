"""What is wrong with a specification, each thing with its place and its fix."""

from collections.abc import Sequence
from dataclasses import dataclass

from thinvirt.errors import UsageError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that cannot be.

    Attributes:
        place: where it stands: ``disks[1].cache``; "" for the whole.
        message: what is wrong, in words that make sense without the place.
        fix: what to write instead, "" if the message says it.
    """

    place: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the message and its fix in one line."""
        return f"{self.message} ({self.fix})" if self.fix else self.message


class InvalidSpec(UsageError):
    """A specification that cannot be met; the message lists everything that is wrong with it.

    Attributes:
        problems: the list, each with its place.
    """

    kind = "spec"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)
