"""Names that stand in images: bytes of unknown origin, to be used as paths and to be printed."""


def name_of(raw: bytes) -> str:
    """Return a file name as the operating system's functions take it, whatever its bytes."""
    return raw.decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """Return `name` without what a terminal would obey or could not show."""
    return "".join(c if c.isprintable() else "?" for c in name)
