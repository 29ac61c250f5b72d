"""What a build of a guest image gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished image and what is known of it.

    `inputs_digest` (hexadecimal) covers packages and recipe: equal digests mean that the image need
    not be built again. `facts` is JSON-ready and describes the guest.
    """

    image: Path
    inputs_digest: str
    facts: Mapping[str, object]
