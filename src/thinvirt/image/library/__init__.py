"""What a Python programmer imports: images to read and write, and whole-image operations.

Everything here is had by ``from thinvirt.image import …``; `docs/guide/image-library.md` shows how.
"""
