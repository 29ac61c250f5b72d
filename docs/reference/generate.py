"""Write the pages of docs/reference that are made from declarations in the code.

script/reference          write them
script/reference --check  only say (exit 1) which are out of date
"""

import argparse
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

sys.path.insert(0, str(Path(__file__).parents[2]))
from docs.reference.image_options import format_options

import thinvirt
from thinvirt import errors
from thinvirt.cli.parsers import whole_parser
from thinvirt.cli.verbs import VERBS
from thinvirt.image.block.registry import FOREIGN_FORMATS, FOREIGN_PROTOCOLS
from thinvirt.image.qemu_img.differences import DIFFERENCES
from thinvirt.image.qemu_img.table import COMMANDS, command_module
from thinvirt.vm.file.schema import file_schema
from thinvirt.vm.os_support import TABLE, TABLE_BUSES, Row
from thinvirt.vm.twins.differences import DIFFERENCES as TWIN_DIFFERENCES

REFERENCE = Path(__file__).parent
MADE = "<!-- made by script/reference: change the code, not this page -->\n"


def error_classes(base: type[errors.ThinvirtError]) -> Iterator[type[errors.ThinvirtError]]:
    """Yield `base` and every class derived from it, parents first."""
    yield base
    for derived in base.__subclasses__():
        yield from error_classes(derived)


def exit_status_page() -> str:
    """Return the page of exit statuses and error kinds."""
    for module in walk_packages(thinvirt.__path__, "thinvirt."):  # those define kinds of their own
        if not module.name.endswith(".__main__"):
            import_module(module.name)
    meanings: dict[int, str] = {0: "done"}
    kinds: dict[int, list[str]] = {}
    for cls in error_classes(errors.ThinvirtError):
        meanings.setdefault(cls.exit_status, cls.meaning)
        known = kinds.setdefault(cls.exit_status, [])
        if cls.kind not in known:
            known.append(cls.kind)
    meanings[errors.INTERRUPTED_STATUS] = "interrupted by Ctrl-C; what was half done was undone"
    rows = "\n".join(
        f"| {status} | {meanings[status]} | "
        f"{', '.join(f'`{kind}`' for kind in sorted(kinds.get(status, [])))} |"
        for status in sorted(meanings)
    )
    return (
        f"{MADE}# Exit status\n\n"
        "Every command keeps to this table; with `--json` an error is one object on standard "
        'error:\n`{"error": {"kind": …, "message": …, "hint": …}}`, where `kind` never '
        "changes its meaning.\n`thinvirt ssh` passes the remote command's status on, and "
        "`thinvirt run` has [its own contract](run.md).\n\n"
        f"| status | meaning | error kinds |\n|---|---|---|\n{rows}\n"
    )


def commands_page() -> str:
    """Return the page of all commands with their options, as their ``--help`` shows them."""
    parts = [f"{MADE}# Commands\n"]
    top = whole_parser()
    for verb in VERBS.values():
        parser = top
        for word in verb.name.split():
            subparsers = next(
                a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
            )
            parser = subparsers.choices[word]
        parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
        parts.append(f"## thinvirt {verb.name}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def qemu_img_page() -> str:
    """Return the table of how ``thin-img`` compares with qemu-img, command by command."""
    parts = [
        f"{MADE}# thin-img and qemu-img 7.2\n\n"
        "`thin-img`, also `thinvirt image`, has the commands, options, output, messages and exit "
        "status of qemu-img 7.2 for\nraw, qcow2 and luks images. Called by the name `qemu-img` "
        "(a link) it says what qemu-img says, to the byte.\n\n"
        "| support | meaning |\n|---|---|\n"
        "| yes | as qemu-img |\n"
        "| differs | the last column says how |\n"
        "| accepted | taken, and without effect on what is done |\n\n"
        "Other formats and protocols are handed to an installed qemu-img, with the same command "
        "line:\n"
        f"{', '.join(f'`{name}`' for name in sorted(FOREIGN_FORMATS | FOREIGN_PROTOCOLS))}.\n"
        "Where there is none, a message says so and nothing is changed.\n\n"
        "Differences that are meant, besides those of single options:\n\n"
        + "".join(f"- {subject} {text}\n" for subject, text in DIFFERENCES.values())
    ]
    for name in COMMANDS:
        command = command_module(name).COMMAND
        rows = "\n".join(
            f"| {' '.join(f'`{n}`' for n in option.names)} | {option.value.replace('|', ', ')} "
            f"| {option.support} | {option.help} |"
            for option in command.options
        )
        parts.append(
            f"## {name}\n\n{command.summary} `{name} [options] {command.operands}`\n\n"
            f"| option | value | support | what it does |\n|---|---|---|---|\n{rows}\n"
        )
    parts.append(format_options())
    return "\n".join(parts)


def os_buses_page() -> str:
    """Return thinvirt's table of which systems drive which disk buses."""
    words = {"good": "yes", "bad": "no", "unknown": "not known"}
    rows = "\n".join(
        f"| {', '.join(row.distros)} | {_versions(row)} | "
        f"{' | '.join(words[getattr(row, bus)] for bus in TABLE_BUSES)} | {row.source}"
        f"{'; ' if row.note else ''}{row.note} |"
        for row in TABLE
    )
    return (
        f"{MADE}# Disk buses by operating system\n\n"
        "osinfo-db knows of virtio drivers only; this table of thinvirt's own has the rest, with "
        "the source of each line.\nA line holds from its first version to its last, the first "
        "line that fits counts, and where osinfo-db says that a\nsystem drives virtio or "
        "virtio-scsi, that counts instead. A system that is in no line takes the line of the "
        "nearest\nsystem it derives from. `thinvirt advise OS` shows what comes of it, and [a "
        "file of yours](../guide/operating-systems.md)\ncan say otherwise.\n\n"
        f"| systems | versions | {' | '.join(TABLE_BUSES)} | source |\n"
        f"|---|---|{'---|' * len(TABLE_BUSES)}---|\n{rows}\n"
    )


def _versions(row: Row) -> str:
    if row.first and row.last:
        return row.first if row.first == row.last else f"{row.first} to {row.last}"
    if row.first:
        return f"{row.first} and later"
    return f"up to {row.last}" if row.last else "all"


def twins_page() -> str:
    """Return the table of how the forms of a VM differ."""
    pairs = {
        "virt-install": "our XML and what virt-install makes of our command",
        "libvirt-qemu": "our QEMU command line and the one libvirt makes of our XML",
        "xml-qemu": "our XML and our QEMU command line",
    }
    rows = "\n".join(
        f"| {difference.what} | {'; '.join(pairs[pair] for pair in difference.pairs)} | "
        f"{difference.why} |"
        for difference in TWIN_DIFFERENCES
    )
    return (
        f"{MADE}# Equivalents of a VM: where they differ\n\n"
        "The forms that `--as` and `--print-command` give ([the guide](../guide/twins.md)) make "
        "the same VM: what was asked for\nagrees in all of them. What does not, because a tool has "
        "no word for it or decides it itself, stands here; the tests\nhold generated VMs against "
        "virt-install and libvirt (`script/twins SEED COUNT`), and any other difference is a "
        "fault.\n\n"
        f"| difference | between | why |\n|---|---|---|\n{rows}\n"
    )


def vm_schema() -> str:
    """Return the JSON Schema of the files that ``thinvirt apply`` takes."""
    return json.dumps(file_schema(), indent=1, ensure_ascii=False) + "\n"


PAGES = {
    "vm.schema.json": vm_schema,
    "exit-status.md": exit_status_page,
    "commands.md": commands_page,
    "qemu-img.md": qemu_img_page,
    "os-buses.md": os_buses_page,
    "twins.md": twins_page,
}


def main() -> int:
    """Write or check the pages."""
    check = "--check" in sys.argv[1:]
    stale = 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if path.exists() and path.read_text() == text:
            continue
        if check:
            print(f"{path.name} is out of date: run script/reference")
            stale = 1
        else:
            path.write_text(text)
            print(f"wrote {path.name}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
