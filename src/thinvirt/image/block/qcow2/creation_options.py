"""The options of new images, and those that can be changed later."""

from __future__ import annotations

from thinvirt.image.block.schema import Option, OptionList, OptionType

_BOOL, _STRING, _SIZE, _NUMBER = (
    OptionType.BOOL,
    OptionType.STRING,
    OptionType.SIZE,
    OptionType.NUMBER,
)

_COMMON = (
    Option("size", _SIZE, "Virtual disk size"),
    Option("compat", _STRING, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    Option("backing_file", _STRING, "File name of a base image"),
    Option("backing_fmt", _STRING, "Image format of the base image"),
    Option("data_file", _STRING, "File name of an external data file"),
    Option("data_file_raw", _BOOL, "The external data file must stay valid as a raw image"),
    Option("lazy_refcounts", _BOOL, "Postpone refcount updates", "off"),
    Option("refcount_bits", _NUMBER, "Width of a reference count entry in bits", "16"),
)
CREATE_OPTIONS = OptionList(
    "qcow2-create-opts",
    (
        Option(
            "encryption",
            _BOOL,
            "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        ),
        Option("encrypt.format", _STRING, "Encrypt the image, format choices: 'aes', 'luks'"),
        Option(
            "encrypt.key-secret",
            _STRING,
            "ID of secret providing qcow AES key or LUKS passphrase",
        ),
        Option("encrypt.cipher-alg", _STRING, "Name of encryption cipher algorithm"),
        Option("encrypt.cipher-mode", _STRING, "Name of encryption cipher mode"),
        Option("encrypt.ivgen-alg", _STRING, "Name of IV generator algorithm"),
        Option("encrypt.ivgen-hash-alg", _STRING, "Name of IV generator hash algorithm"),
        Option("encrypt.hash-alg", _STRING, "Name of encryption hash algorithm"),
        Option("encrypt.iter-time", _NUMBER, "Time to spend in PBKDF in milliseconds"),
        Option("cluster_size", _SIZE, "qcow2 cluster size", "65536"),
        Option("extended_l2", _BOOL, "Extended L2 tables", "off"),
        Option(
            "preallocation",
            _STRING,
            "Preallocation mode (allowed values: off, metadata, falloc, full)",
        ),
        Option(
            "compression_type",
            _STRING,
            "Compression method used for image cluster compression",
            "zlib",
        ),
        *_COMMON,
    ),
)
AMEND_OPTIONS = OptionList(
    "qcow2-amend-opts",
    (
        Option("encrypt.state", _STRING, "Select new state of affected keyslots (active/inactive)"),
        Option("encrypt.keyslot", _NUMBER, "Select a single keyslot to modify explicitly"),
        Option("encrypt.old-secret", _STRING, "Select all keyslots that match this password"),
        Option(
            "encrypt.new-secret",
            _STRING,
            "New secret to set in the matching keyslots. Empty string to erase",
        ),
        Option("encrypt.iter-time", _NUMBER, "Time to spend in PBKDF in milliseconds"),
        *_COMMON,
    ),
)
