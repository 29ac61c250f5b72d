"""What can be wrong with encryption, apart from the image."""

from __future__ import annotations

from thinvirt.errors import ImageError, UnsupportedFeature


class WrongPassphrase(ImageError):
    """No key slot opens with the passphrase."""

    kind = "image-passphrase"


class CipherMissing(UnsupportedFeature):
    """A cipher that QEMU may well have, and that cannot be used here; `name` says which."""

    def __init__(self, name: str, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.name = name
