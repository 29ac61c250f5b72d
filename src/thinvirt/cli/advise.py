"""``thinvirt advise``: what suits an operating system, and why."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinvirt.cli.output import note, print_json, print_json_rows, table
from thinvirt.errors import UsageError
from thinvirt.units import format_size

if TYPE_CHECKING:
    from thinvirt.service.os_knowledge import Detected, OsKnowledge
    from thinvirt.vm.advice import Advice
    from thinvirt.vm.osinfo.records import OsInfo

_EPILOG = """OS is an id such as debian12, centos7.0, ubuntu24.04, win11 or linux2022. The ids are
osinfo-db's; --list shows them, and `thinvirt advise list` too.
"""
_TITLES = {
    "bus": "disk bus",
    "cache": "disk cache",
    "network": "network model",
    "machine": "machine",
    "firmware": "firmware",
    "memory_mib": "memory",
    "disk_gib": "disk size",
    "vcpus": "virtual CPUs",
    "video": "video",
    "rng": "random numbers",
    "tpm": "TPM",
    "clock": "clock",
}
_UNITS = {"memory_mib": " MiB", "disk_gib": " GiB"}
_SUPPORT = {"good": "yes", "bad": "no", "unknown": "not known"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("os", nargs="?", metavar="OS", help="the operating system's id")
    parser.add_argument(
        "--osinfo", "--os-variant", metavar="OS", help="the same, as virt-install spells it"
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="list the ids, or those that a pattern such as 'debian*' fits",
    )
    parser.add_argument("--media", metavar="ISO", help="find out which system a disc is of")
    parser.add_argument(
        "--arch", default="x86_64", metavar="ARCH", help="the guest's architecture (x86_64)"
    )
    parser.add_argument(
        "--driver-disc", action="store_true", help="Windows: the virtio-win disc is attached"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print advice, or the list of systems."""
    from thinvirt.service.os_knowledge import OsKnowledge

    name = args.os or args.osinfo
    if args.os and args.osinfo and args.os != args.osinfo:
        raise UsageError(f"two systems are named: '{args.os}' and '{args.osinfo}'")
    knowledge = OsKnowledge()
    for remark in knowledge.notes:
        note(remark)
    if args.list is not None or name == "list" or not (name or args.media):
        if args.media:
            raise UsageError("--list and --media exclude each other")
        pattern = args.list or "*"
        return _print_list(knowledge, pattern if name in (None, "list") else name, args.json)
    found = knowledge.detect(Path(args.media)) if args.media else None
    info = knowledge.find(name) if name else found.os if found else knowledge.find("generic")
    if found and name and found.os.id != info.id and info.short_id not in found.others:
        note(f"{args.media} looks like a disc of {found.os.short_id}, not of {info.short_id}")
    return _print_advice(args, info, found)


def _today() -> str:
    import time

    return time.strftime("%Y-%m-%d")


def _print_list(knowledge: "OsKnowledge", pattern: str, as_json: bool) -> int:
    from fnmatch import fnmatchcase

    from thinvirt.errors import NotFound
    from thinvirt.service.os_knowledge import near

    wanted = pattern.lower()
    rows = [
        summary
        for summary in knowledge.summaries(today=_today())
        if any(fnmatchcase(n, wanted) for n in (summary.short_id, *summary.aliases))
        or (wanted.strip("*?[]") == wanted and wanted in summary.short_id)
    ]
    if not rows and pattern != "*":
        known = {summary.short_id: 0 for summary in knowledge.summaries(today=_today())}
        raise NotFound(f"no operating system matches '{pattern}'", hint=near(wanted, known))
    if as_json:
        print_json_rows(
            {
                "name": row.short_id,
                "aliases": list(row.aliases),
                "title": row.name,
                "family": row.family,
                "released": row.release_date or None,
                "support_ends": row.eol_date or None,
                "support_ended": row.past,
                "id": row.id,
            }
            for row in rows
        )
        return 0
    cells = (
        (
            row.short_id,
            row.name,
            row.release_date,
            row.eol_date or ("ended" if row.past else ""),
            " ".join(row.aliases),
        )
        for row in rows
    )
    for line in table(("NAME", "SYSTEM", "RELEASED", "SUPPORT ENDS", "ALSO"), cells):
        print(line)
    return 0


def _print_advice(args: argparse.Namespace, info: "OsInfo", found: "Detected | None") -> int:
    from thinvirt.vm.advice import advise
    from thinvirt.vm.cache_modes import EXPLAINED

    advice = advise(info, architecture=args.arch, driver_disc=args.driver_disc, today=_today())
    if args.json:
        print_json(_facts(info, advice, found, args.arch))
        return 0
    print(f"{info.name} ({info.short_id})")
    if found is not None:
        for line in _media_lines(found):
            print(line)
    print()
    rows = [
        (_TITLES[name], f"{choice.value}{_UNITS.get(name, '')}", choice.reason.render())
        for name, choice in advice.choices()
    ]
    for line in table(("WHAT", "ADVICE", "WHY"), rows):
        print(line)
    print()
    supports = [(one.bus, _SUPPORT[one.value], one.source) for one in advice.buses]
    for line in table(("DISK BUS", "DRIVER", "SOURCE"), supports):
        print(line)
    print()
    for line in table(("CACHE", "WHAT IT DOES AND WHAT A POWER CUT TAKES"), EXPLAINED.items()):
        print(line)
    for remark in advice.notes:
        print(f"\nnote: {remark.render()}")
    return 0


def _media_lines(found: "Detected") -> list[str]:
    media = found.media
    lines = [f"disc: volume id '{found.ids.volume}', {format_size(found.ids.size)}"]
    if not found.ids.bootable:
        lines.append("      it has no El Torito boot record: firmware does not start from it")
    if media.kernel:
        lines.append(f"      kernel {media.kernel}, initrd {media.initrd}")
    if not found.exact:
        lines.append("      its size is not known: probably a later respin")
    if found.others:
        lines.append(f"      it may also be of {', '.join(found.others)}")
    return lines


def _facts(
    info: "OsInfo", advice: "Advice", found: "Detected | None", architecture: str
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": info.short_id,
        "title": info.name,
        "aliases": list(info.short_ids[1:]),
        "id": info.id,
        "source": info.source,
        "family": info.family,
        "released": info.release_date or None,
        "support_ends": info.eol_date or None,
        "minimum": {
            key: info.resource("minimum", figure, architecture)
            for key, figure in (
                ("memory_bytes", "memory_bytes"),
                ("disk_bytes", "disk_bytes"),
                ("vcpus", "cpus"),
            )
        },
    }
    facts |= advice.as_facts()
    if found is not None:
        media = found.media
        facts["media"] = {
            "volume_id": found.ids.volume,
            "size": found.ids.size,
            "bootable": found.ids.bootable,
            "exact": found.exact,
            "kernel": media.kernel or None,
            "initrd": media.initrd or None,
            "live": media.live,
            "others": list(found.others),
        }
    return facts
