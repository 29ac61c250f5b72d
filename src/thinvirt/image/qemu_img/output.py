"""Values as qemu-img prints them for people."""

from __future__ import annotations

from thinvirt.image.block.options import qemu_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from thinvirt.image.block.abilities import Snapshot
    from thinvirt.image.block.options import Value

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def size_text(size: int) -> str:
    """Return a size with three digits and a unit: ``196 KiB``."""
    # As much as fits below 1000 after scaling, so that three digits always do.
    step = 0
    while step < len(_UNITS) - 1 and size / (1 << 10 * step) >= 1000:
        step += 1
    return f"{size / (1 << 10 * step):.3g} {_UNITS[step]}B"


def value_lines(value: Value, level: int) -> Iterable[str]:
    """Yield the lines that show a dict or list, indented."""
    indent = " " * 4 * level
    if isinstance(value, dict):
        named = [(key.replace("-", " "), inner) for key, inner in qemu_order(value)]
    else:
        named = [(f"[{index}]", inner) for index, inner in enumerate(value)]
    for name, inner in named:
        if isinstance(inner, dict | list):
            yield f"{indent}{name}:\n"
            yield from value_lines(inner, level + 1)
        else:
            yield f"{indent}{name}: {_scalar(inner)}\n"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def snapshot_table(snapshots: Iterable[Snapshot]) -> str:
    """Return the table of snapshots, with its heading."""
    import time

    lines = ["Snapshot list:\n"]
    lines.append(f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}\n")
    for snapshot in snapshots:
        seconds = snapshot.vm_clock_ns // 10**9
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.date_ns // 10**9))
        clock = (
            f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}."
            f"{snapshot.vm_clock_ns // 10**6 % 1000:03}"
        )
        icount = "" if snapshot.icount is None else str(snapshot.icount)
        lines.append(
            f"{snapshot.id:<9} {snapshot.name:<16} {size_text(snapshot.vm_state_size):>8}"
            f"{date:>20}{clock:>13}{icount:>11}\n"
        )
    return "".join(lines)
