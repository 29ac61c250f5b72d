"""Hold a command to a number of bytes a second (``-r``)."""

from thinvirt.image.ops.pace import pacer

__all__ = ["pacer"]
