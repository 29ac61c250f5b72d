"""Values that several verbs' options take."""

import argparse

MOST_SECONDS = 1_000_000  # eleven days; poll(2) can wait twice as long


def seconds(text: str) -> float:
    """Return a number of seconds, for argparse: 0 or more, and not for ever.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not possible: a number of seconds from 0 to {MOST_SECONDS}"
        )
    return value
