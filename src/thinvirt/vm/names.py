"""What a template, VM or network may be called, and how the VMs of a batch are named."""

import re

from thinvirt.errors import UsageError

MAX_NAME_LENGTH = 63  # a VM's name is its guest's host name: one DNS label (RFC 1123, 2.1)
MAX_BATCH = 100_000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
_TEMPLATE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


def check_vm_name(name: str) -> str:
    """Return `name` if a VM (or network) may have it.

    Raises:
        UsageError: it is not one DNS label, which the guest's host name has to be.
    """
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name) or name.isdigit():
        raise UsageError(
            f"'{name}' cannot name a VM",
            hint="1 to 63 letters, digits and hyphens, not only digits, no hyphen at either end: "
            "the name becomes the guest's host name",
        )
    return name


def check_template_name(name: str) -> str:
    """Return `name` if a template may have it.

    Raises:
        UsageError: it has other characters than letters, digits, dot, hyphen and underscore, or
            more than 63 of them; "@" separates the version and cannot be part of it.
    """
    if len(name) > MAX_NAME_LENGTH or not _TEMPLATE_NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name a template",
            hint="1 to 63 letters, digits, dots, hyphens and underscores, "
            "beginning and ending with a letter or digit",
        )
    return name


def batch_names(name: str, count: int | None) -> list[str]:
    """Return the names of a batch: ``web`` alone, or ``web-001 … web-100`` for a count of 100.

    The number is padded to three digits, or to as many as the largest needs.

    Raises:
        UsageError: the count is out of range or the longest name is not possible.
    """
    if count is None:
        return [check_vm_name(name)]
    if not 1 <= count <= MAX_BATCH:
        raise UsageError(f"a count of {count} is not possible", hint=f"from 1 to {MAX_BATCH}")
    width = max(3, len(str(count)))
    check_vm_name(f"{name}-{count:0{width}d}")
    return [f"{name}-{number:0{width}d}" for number in range(1, count + 1)]
