"""Disk images: formats (pure), block I/O, and operations on whole images.

A library that is used alone: it imports nothing of thinvirt but its errors, units and progress.
"""
