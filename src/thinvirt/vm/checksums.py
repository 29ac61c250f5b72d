"""Checksums, and the files in which publishers of images publish them.

Pure: texts in, values out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from thinvirt.errors import NotFound, UsageError, VerificationFailed

SUMS_KINDS: Final = ("list", "single", "image-json")
_HEX_DIGITS: Final = {"sha256": 64, "sha512": 128}  # weaker digests prove nothing, and are not read
_GNU = re.compile(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?:\s+\*?(?P<name>\S.*))?")
_BSD = re.compile(r"(?P<tag>SHA256|SHA512)\s*\((?P<name>.+)\)\s*=\s*(?P<hex>[0-9a-fA-F]+)", re.I)
_LINK = re.compile(r"""href\s*=\s*["']([^"'?#]+)["']""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest promised for a file: ``sha256:HEX`` or ``sha512:HEX``."""

    algorithm: str
    hexadecimal: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexadecimal}"


def parse_checksum(text: str) -> Checksum:
    """Return the checksum that ``ALGORITHM:HEX``, or HEX alone, means.

    Raises:
        UsageError: unknown algorithm, or not as many hexadecimal digits as it has.
    """
    algorithm, colon, digits = text.strip().lower().rpartition(":")
    if not colon:
        algorithm = next((a for a, n in _HEX_DIGITS.items() if n == len(digits)), "")
    wanted = _HEX_DIGITS.get(algorithm)
    if wanted is None or not re.fullmatch(f"[0-9a-f]{{{wanted}}}", digits):
        raise UsageError(
            f"'{text}' is no checksum",
            hint="sha256: followed by 64 hexadecimal digits, or sha512: followed by 128",
        )
    return Checksum(algorithm, digits)


@dataclass(frozen=True, slots=True)
class Sums:
    """What a publisher's checksum file says: digests by file name.

    `folder` is where the publisher says that the files lie, relative to the sums; mostly empty.
    """

    by_name: Mapping[str, Checksum]
    folder: str = ""


def parse_sums(text: str, kind: str = "list") -> Sums:
    """Return the digests of a checksum file.

    GNU lines (``HEX  NAME``), BSD lines (``SHA256 (NAME) = HEX``) and a digest alone (its name is
    empty) are understood wherever they stand, so clear-signed files and comments do no harm; lines
    of MD5 and SHA-1 are passed over. Where a file has both digests the longer one counts.

    Args:
        text: the checksum file.
        kind: one of `SUMS_KINDS`.

    Raises:
        VerificationFailed: a JSON file that is not of Oracle's form.
    """
    if kind == "image-json":
        return _parse_image_json(text)
    found: dict[str, Checksum] = {}
    for line in text.splitlines():
        if (match := _BSD.fullmatch(line.strip())) is not None:
            algorithm, name, digits = match["tag"].lower(), match["name"], match["hex"]
            if len(digits) != _HEX_DIGITS[algorithm]:
                continue
        elif (match := _GNU.fullmatch(line.strip())) is not None:
            name, digits = match["name"] or "", match[1]
            algorithm = "sha256" if len(digits) == _HEX_DIGITS["sha256"] else "sha512"
        else:
            continue
        name = name.rpartition("/")[2]
        if name not in found or len(found[name].hexadecimal) < len(digits):
            found[name] = Checksum(algorithm, digits.lower())
    return Sums(found)


def _parse_image_json(text: str) -> Sums:
    import json

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VerificationFailed(f"the publisher's sums are not valid JSON: {error}") from error
    found: dict[str, Checksum] = {}
    folder = document.get("base_url", "") if isinstance(document, dict) else ""
    for value in document.values() if isinstance(document, dict) else ():
        if isinstance(value, dict) and {"image", "sha256"} <= value.keys():
            digits = str(value["sha256"]).lower()
            if re.fullmatch("[0-9a-f]{64}", digits):
                found[str(value["image"])] = Checksum("sha256", digits)
    return Sums(found, f"{folder}/" if folder and isinstance(folder, str) else "")


def digest_for(sums: Sums, file_name: str, kind: str, *, sums_url: str) -> Checksum:
    """Return the digest promised for `file_name`.

    Args:
        sums: what `parse_sums` gave.
        file_name: the image's name at its publisher.
        kind: with "single" the only digest counts, whatever name stands beside it: some publishers
            write the name of the dated build there.
        sums_url: for the message.

    Raises:
        VerificationFailed: no digest for it, or several with kind "single".
    """
    if kind == "single":
        digests = set(sums.by_name.values())
        if len(digests) == 1:
            return digests.pop()
    if file_name in sums.by_name:
        return sums.by_name[file_name]
    raise VerificationFailed(
        f"{sums_url} has no SHA-256 or SHA-512 of {file_name}",
        hint="the publisher may have renamed the image: thinvirt template pull --check-catalogue",
    )


def listed_names(page: str) -> list[str]:
    """Return the file names a directory page links to."""
    return [unquote(link).rpartition("/")[2] for link in _LINK.findall(page)]


def newest_match(pattern: str, names: Iterable[str], *, where: str) -> str:
    """Return the name that fully matches `pattern` and whose numbers are the highest.

    Raises:
        NotFound: none matches.
    """
    matching = [name for name in names if re.fullmatch(pattern, name)]
    if not matching:
        raise NotFound(
            f"{where} lists no file that matches {pattern}",
            hint="the publisher may have renamed the image: "
            "thinvirt template pull --check-catalogue",
        )
    return max(matching, key=natural_order)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Order ``3.9`` before ``3.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
