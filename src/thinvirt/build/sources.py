"""Which package archives to ask: the host's own Debian sources, or the one the user names."""

import re
from collections.abc import Iterator
from pathlib import Path

from thinvirt.errors import UsageError

RELEASE = "bookworm"
SUITES = (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

Stanza = dict[str, str]  # field names in lower case


def debian_sources(mirror: str | None = None, *, etc: Path = Path("/etc/apt")) -> str:
    """Return the text of a deb822 sources file for Debian 12, component main.

    Args:
        mirror: the URL of a Debian archive; None takes what `etc` lists for Debian 12, with the
            keys stated there. Other people's archives and other releases are left out.
        etc: apt's configuration directory.

    Raises:
        UsageError: `mirror` is no URL, or the host lists no archive of Debian 12.
    """
    if mirror is not None:
        if not re.fullmatch(r"(https?|file|copy)://?[^\s]+", mirror):
            raise UsageError(
                f"'{mirror}' is not the URL of a package archive",
                hint="an http, https or file URL of a directory that holds dists/ and pool/",
            )
        suites = " ".join(SUITES[:2])
        return _format([{"uris": mirror, "suites": suites, "signed-by": str(KEYRING)}])
    stanzas = list(_host_stanzas(etc))
    if not any(RELEASE in stanza["suites"].split() for stanza in stanzas):
        raise UsageError(
            f"this host's apt lists no archive of Debian 12 ({RELEASE})",
            hint="name one: thinvirt template build --mirror URL …",
        )
    return _format(stanzas)


def _host_stanzas(etc: Path) -> Iterator[Stanza]:
    parts = sorted((etc / "sources.list.d").glob("*"))
    for path in (etc / "sources.list", *parts):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            stanzas = _parse_deb822(text)
        elif path.suffix == ".list":
            stanzas = _parse_lines(text)
        else:
            continue
        for stanza in stanzas:
            suites = [suite for suite in stanza["suites"].split() if suite in SUITES]
            if suites and "main" in stanza["components"].split() and _is_debians(stanza):
                yield {**stanza, "suites": " ".join(suites)}


def _is_debians(stanza: Stanza) -> bool:
    """Tell whether the keys stated, if any, can be Debian's; others' archives state their own."""
    key = stanza.get("signed-by", "")
    return not key or "debian-archive" in key or "BEGIN PGP" in key


def _parse_deb822(text: str) -> Iterator[Stanza]:
    """Yield the stanzas of a ``.sources`` file that are enabled and offer binary packages."""
    for block in re.split(r"\n[ \t]*\n", text):
        stanza: Stanza = {}
        field = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and field:
                stanza[field] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                field = name.strip().lower()
                stanza[field] = value.strip()
        enabled = stanza.get("enabled", "yes").lower() in ("yes", "true", "1", "on", "with")
        if enabled and "deb" in stanza.get("types", "").split():
            yield {"uris": "", "suites": "", "components": "", **stanza}


def _parse_lines(text: str) -> Iterator[Stanza]:
    """Yield the ``deb`` lines of a ``.list`` file: ``deb [option=value …] URI SUITE COMPONENT``."""
    line_form = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>.*)")
    for line in text.splitlines():
        match = line_form.fullmatch(line.partition("#")[0].strip())
        words = match["rest"].split() if match else []
        if match is None or len(words) < 3:
            continue
        options = dict(
            option.split("=", 1) for option in (match["options"] or "").split() if "=" in option
        )
        stanza = {"uris": words[0], "suites": words[1], "components": " ".join(words[2:])}
        if "signed-by" in options:
            stanza["signed-by"] = options["signed-by"]
        if options.get("trusted", "no") == "yes":
            stanza["trusted"] = "yes"
        yield stanza


def _format(stanzas: list[Stanza]) -> str:
    blocks = []
    for stanza in stanzas:
        lines = ["Types: deb", f"URIs: {stanza['uris']}", f"Suites: {stanza['suites']}"]
        lines.append("Components: main")
        lines += [
            f"{name.title()}: {stanza[name]}" for name in ("signed-by", "trusted") if name in stanza
        ]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
