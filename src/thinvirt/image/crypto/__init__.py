"""Encryption of images: sector ciphers, key derivation, and LUKS key slots."""
