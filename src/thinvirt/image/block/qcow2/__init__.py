"""The qcow2 format node, versions 2 and 3."""

from thinvirt.image.block.qcow2.image import Qcow2Node

__all__ = ["Qcow2Node"]
