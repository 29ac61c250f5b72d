"""The drop-in for qemu-img: its command line, messages and output, on our own block graph."""
