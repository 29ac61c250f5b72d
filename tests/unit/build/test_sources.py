"""Which of a host's package sources are taken."""

from pathlib import Path

import pytest

from thinvirt.build.sources import debian_sources
from thinvirt.errors import UsageError

DEBIAN = """\
# the distribution
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""

OTHERS = """\
Types: deb
URIs: https://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/vendor.gpg

Types: deb
URIs: https://containers.example/debian
Suites: bookworm
Components: stable
"""


def etc(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        path = tmp_path / ("sources.list" if name == "main" else f"sources.list.d/{name}")
        path = path.with_name(path.name.replace("_", "."))
        path.write_text(text)
    return tmp_path


def uris(sources: str) -> list[str]:
    return [line.split()[1] for line in sources.splitlines() if line.startswith("URIs:")]


def test_takes_the_distributions_and_leaves_others_out(tmp_path: Path) -> None:
    found = debian_sources(etc=etc(tmp_path, debian_sources=DEBIAN, vendor_sources=OTHERS))
    assert uris(found) == ["http://archive.example/debian"]
    assert "Suites: bookworm bookworm-updates\n" in found
    assert "Components: main\n" in found
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in found


def test_reads_the_one_line_format(tmp_path: Path) -> None:
    lines = (
        "deb http://a.example/debian bookworm main non-free # the first\n"
        "#deb http://b.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        " http://c.example/debian-security bookworm-security main\n"
        "deb-src http://d.example/debian bookworm main\n"
        "deb http://e.example/debian trixie main\n"
        "deb broken\n"
    )
    found = debian_sources(etc=etc(tmp_path, main=lines, disabled_list_disabled=lines))
    assert uris(found) == ["http://a.example/debian", "http://c.example/debian-security"]


def test_an_inline_key_survives(tmp_path: Path) -> None:
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    text = "Types: deb\nURIs: http://a.example\nSuites: bookworm\nComponents: main\n" + key
    found = debian_sources(etc=etc(tmp_path, debian_sources=text))
    assert key.replace("Signed-By:\n", "Signed-By: \n") in found


@pytest.mark.parametrize("text", ["", "deb http://a.example/ubuntu noble main\n"])
def test_another_distribution_must_name_a_mirror(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="lists no archive of Debian 12") as caught:
        debian_sources(etc=etc(tmp_path, main=text))
    assert "--mirror" in caught.value.hint


def test_a_mirror_replaces_the_hosts_sources(tmp_path: Path) -> None:
    found = debian_sources("https://mirror.example/debian", etc=etc(tmp_path))
    assert uris(found) == ["https://mirror.example/debian"]
    assert "debian-archive-keyring" in found
