"""Suggestions for names that are not there."""

from collections.abc import Sequence


def suggest(name: str, known: Sequence[str]) -> str:
    """Return ``did you mean A, B?`` with up to three names like `name`, or an empty text."""
    from difflib import get_close_matches  # only on the way to an error

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if not near:
        lower = name.lower()
        near = [other for other in known if other.lower().startswith(lower)][:3]
    return f"did you mean {' or '.join(near)}?" if near else ""
