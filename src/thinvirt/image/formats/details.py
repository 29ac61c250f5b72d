"""What is said of an image beyond its sizes: by name, JSON-ready."""

from collections.abc import Mapping

Details = Mapping[str, str | int | bool]
