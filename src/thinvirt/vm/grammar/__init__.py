"""virt-install's option grammar: ``--disk path=/x.qcow2,bus=sata`` and the like, read into parts.

Each option is a table of keys, declared once; parsing, ``--disk ?`` and the reference page are made
from it.
"""
