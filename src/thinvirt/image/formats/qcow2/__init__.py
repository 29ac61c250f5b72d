"""The qcow2 format, versions 2 and 3, as `docs/interop/qcow2.txt` of QEMU specifies it."""
