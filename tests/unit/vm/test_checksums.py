"""Publishers' sums as they really look."""

import json

import pytest

from thinvirt.errors import NotFound, UsageError, VerificationFailed
from thinvirt.vm.checksums import (
    Checksum,
    digest_for,
    listed_names,
    newest_match,
    parse_checksum,
    parse_sums,
)

A, B = "a" * 64, "b" * 64
LONG = "c" * 128


def test_checksums() -> None:
    assert parse_checksum(f"SHA256:{A.upper()}") == Checksum("sha256", A)
    assert parse_checksum(LONG) == Checksum("sha512", LONG)
    for wrong in ("", "sha256:", f"sha512:{A}", f"md5:{'a' * 32}", "a" * 40, f"sha256:{'g' * 64}"):
        with pytest.raises(UsageError, match="no checksum"):
            parse_checksum(wrong)


def test_gnu_sums_in_text_and_binary_mode() -> None:
    sums = parse_sums(f"{A}  one.img\n{B} *two.img\r\n{A.upper()}  ./dir/three.img\n")
    assert sums.by_name == {
        "one.img": Checksum("sha256", A),
        "two.img": Checksum("sha256", B),
        "three.img": Checksum("sha256", A),
    }


def test_bsd_sums_in_a_clear_signed_file_with_comments() -> None:
    text = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# disk.qcow2: 528154624 bytes
SHA256 (disk.qcow2) = {A}
SHA512 (strong.qcow2) = {LONG}
MD5 (disk.qcow2) = {"d" * 32}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
"""
    assert parse_sums(text).by_name == {
        "disk.qcow2": Checksum("sha256", A),
        "strong.qcow2": Checksum("sha512", LONG),
    }


def test_weak_digests_are_not_read_and_the_stronger_of_two_counts() -> None:
    assert not parse_sums(f"{'d' * 32}  disk.img\n{'e' * 40}  disk.img\n").by_name
    for text in (f"{A}  disk.img\n{LONG}  disk.img", f"{LONG}  disk.img\n{A}  disk.img"):
        assert parse_sums(text).by_name == {"disk.img": Checksum("sha512", LONG)}


def test_a_digest_alone() -> None:
    sums = parse_sums(f"{LONG}\n")
    assert digest_for(sums, "disk.img", "single", sums_url="U") == Checksum("sha512", LONG)
    with pytest.raises(VerificationFailed, match=r"U has no SHA-256 or SHA-512 of disk\.img"):
        digest_for(sums, "disk.img", "list", sums_url="U")


def test_a_single_sum_may_name_the_dated_build() -> None:
    sums = parse_sums(f"SHA256 (disk-20260101.img) = {A}")
    assert digest_for(sums, "disk-latest.img", "single", sums_url="U").hexadecimal == A
    two = parse_sums(f"{A}  a.img\n{B}  b.img")
    assert digest_for(two, "b.img", "single", sums_url="U").hexadecimal == B
    with pytest.raises(VerificationFailed):
        digest_for(two, "c.img", "single", sums_url="U")


def test_oracle_json() -> None:
    page = {
        "base_url": "/templates/OracleLinux/OL9/u5/x86_64",
        "kvm": {"image": "OL9U5_x86_64-kvm-b259.qcow2", "sha256": A.upper(), "size": 1},
        "ova": {"image": "OL9U5_x86_64-olvm-b259.ova", "sha256": "short"},
    }
    sums = parse_sums(json.dumps(page), "image-json")
    assert sums.by_name == {"OL9U5_x86_64-kvm-b259.qcow2": Checksum("sha256", A)}
    assert sums.folder == "/templates/OracleLinux/OL9/u5/x86_64/"
    assert not parse_sums("[1]", "image-json").by_name
    for wrong in ("<html>", "[" * 1_000_000):
        with pytest.raises(VerificationFailed, match="not valid JSON"):
            parse_sums(wrong, "image-json")


def test_a_line_without_end_takes_no_time() -> None:
    for line in (
        f"{A}  x{' ' * 2_000_000}y",
        f"SHA256 ({') ' * 1_000_000}",
        f"{A}{' ' * 2_000_000}",
    ):
        parse_sums(line)


def test_newest_match_counts_as_people_do() -> None:
    page = """<a href="../">up</a> <a href="x-3.9.1-r0.qcow2">x</a>
    <A HREF='/dir/x-3.10.0-r0.qcow2'>x</A> <a href="x-3.10.0-r0.qcow2.sha512">s</a>"""
    names = listed_names(page)
    assert newest_match(r"x-\d+\.\d+\.\d+-r\d+\.qcow2", names, where="W") == "x-3.10.0-r0.qcow2"
    with pytest.raises(NotFound, match="W lists no file"):
        newest_match("y", names, where="W")
