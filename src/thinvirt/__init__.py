"""thinvirt: one read-only template, a thousand copy-on-write virtual machines."""

__version__ = "0.1.0"
