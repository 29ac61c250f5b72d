"""What real qemu-img says of the files that trouble left behind."""

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
_COPIED = re.compile(r"ERROR OFLAG_COPIED \w+ cluster: l\d_(?:entry|index)=.*")
_ENTRY = re.compile(r"l[12]_entry=([0-9a-f]+) refcount=(\d+)")
_DIRTY = 1


@dataclass(frozen=True)
class View:
    """Something that can be read with qemu-img.

    Attributes:
        ways: arguments of ``qemu-img convert`` that name it; the first that works counts.
        partial: it may be found half made, the rest being zeroes or not there.
        loose: guest ranges that may also read as zeroes: they were to be given up.
    """

    ways: tuple[tuple[str, ...], ...]
    partial: bool = False
    loose: tuple[tuple[int, int], ...] = ()


def view(*words: str, partial: bool = False, loose: Sequence[tuple[int, int]] = ()) -> View:
    """Return a view that there is one way to."""
    return View((words,), partial, tuple(loose))


Views = dict[str, View]
Seen = dict[str, bytes | None]


def qemu_img(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the real qemu-img in a folder."""
    return subprocess.run(
        ["qemu-img", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def look(folder: Path, views: Views) -> Seen:
    """Return what every view reads as, None where it cannot be opened."""
    return {label: _read(folder, way) for label, way in views.items()}


def _read(folder: Path, one: View) -> bytes | None:
    target = folder.with_name(folder.name + ".raw")
    for way in one.ways:
        target.unlink(missing_ok=True)
        if qemu_img(folder, "convert", "-O", "raw", *way, str(target)).returncode == 0:
            return target.read_bytes()
    return None


def assert_old_or_new(now: Seen, before: Seen, after: Seen, views: Views, *, lossy: bool) -> None:
    """Every sector holds what it held before or should hold after.

    Args:
        now: what was left.
        before: what it was.
        after: what it would be.
        views: what they were made from.
        lossy: power failed: a sector that was being written may hold anything.
    """
    for label, found in now.items():
        old, new = before[label], after[label]
        if found is None:
            is_new = views[label].partial or old is None or new is None
            assert is_new, f"{label} cannot be opened any more"
            continue
        if found in (old, new):
            continue
        assert old is not None or new is not None, f"{label} cannot be"
        if not views[label].partial:
            sizes = {len(content) for content in (old, new) if content is not None}
            assert len(found) in sizes, (label, len(found), sizes)
        _compare_sectors(label, found, old, new, views[label], lossy=lossy)


def _compare_sectors(
    label: str, found: bytes, old: bytes | None, new: bytes | None, one: View, *, lossy: bool
) -> None:
    for at in range(0, len(found), SECTOR):
        piece = found[at : at + SECTOR]
        choices = [c[at : at + SECTOR] for c in (old, new) if c is not None and at < len(c)]
        if piece in choices:
            continue
        zeroes = one.partial or any(start <= at < end for start, end in one.loose)
        if zeroes and not any(piece):
            continue
        if lossy and (one.partial or len(set(choices)) > 1):
            continue
        raise AssertionError(f"{label}: neither old nor new at byte {at}: {piece[:16].hex()}")


def assert_leaks_at_worst(folder: Path, name: str) -> None:
    """Real ``qemu-img check`` finds nothing worse than leaks, and can repair those.

    A mark that speaks of a refcount and the refcount itself are two writes: between them they may
    contradict each other, which does no harm as long as the cluster is not shared. A lazy image is
    marked dirty: its refcounts may be behind, and a repair must bring them up to date.

    Args:
        folder: where it lies.
        name: of the image.
    """
    path = folder / name
    head = path.read_bytes()[:112]
    found = qemu_img(folder, "check", "-f", "qcow2", name)
    if found.returncode == 0:
        return
    assert found.returncode in (2, 3), found.stderr
    version, features = struct.unpack_from(">4xI64xQ", head)
    is_dirty = version == 3 and features & _DIRTY
    errors = [line for line in found.stderr.splitlines() if line.startswith("ERROR")]
    if not is_dirty:
        assert all(_COPIED.match(line) for line in errors), found.stderr
    copy = folder / "copy"
    shutil.copyfile(path, copy)
    try:
        if errors and not is_dirty:
            _assert_not_shared(qemu_img(folder, "check", "-f", "qcow2", "-r", "leaks", str(copy)))
        repaired = qemu_img(folder, "check", "-f", "qcow2", "-r", "all", str(copy))
        assert repaired.returncode == 0, repaired.stderr
    finally:
        copy.unlink()


def _assert_not_shared(repaired: "subprocess.CompletedProcess[str]") -> None:
    """With refcounts that equal the references, no cluster marked as ours alone is shared."""
    for line in repaired.stderr.splitlines():
        if "OFLAG_COPIED" in line and (entry := _ENTRY.search(line)):
            is_marked = int(entry[1], 16) >> 63
            assert not (is_marked and int(entry[2]) > 1), repaired.stderr
