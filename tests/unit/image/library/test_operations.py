"""Whole-image operations as functions: what they do with arguments, targets and errors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from thinvirt import image as ti
from thinvirt.errors import Busy, Conflict, NotFound, ThinvirtError, UsageError

SIZE = 1 << 20
CLUSTER = 65536


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.qcow2"
    ti.create(path, SIZE)
    with ti.open_image(path, writable=True) as image:
        image.write(0, b"base" * 4096)
    return path


@pytest.fixture
def top(base: Path) -> Path:
    path = base.with_name("top.qcow2")
    ti.create(path, backing=base.name, backing_format="qcow2")
    with ti.open_image(path, writable=True) as image:
        image.write(CLUSTER, b"top!" * 4096)
    return path


def test_create_takes_typed_options_and_overwrites_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "new.qcow2"
    ti.create(path, SIZE, options={"cluster_size": 4096, "lazy_refcounts": True})
    facts = ti.info(path)
    assert facts.cluster_size == 4096
    assert facts.specific is not None
    assert facts.specific["data"]["lazy-refcounts"] is True
    before = path.read_bytes()
    with pytest.raises(Conflict) as caught:
        ti.create(path, SIZE)
    assert caught.value.path == path
    assert path.read_bytes() == before
    ti.create(path, 2 * SIZE, format="raw", overwrite=True)
    assert path.stat().st_size == 2 * SIZE
    data = tmp_path / "a,b.raw"
    ti.create(tmp_path / "ext.qcow2", SIZE, options={"data_file": str(data)})
    assert data.exists()


def test_flatten_with_progress(top: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat.qcow2"
    told: list[tuple[int, int]] = []
    ti.convert(top, flat, progress=lambda done, total: told.append((done, total)))
    assert told
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert ti.compare(top, flat) is None
    assert ti.info(flat).backing_filename == ""
    assert ti.check(flat).is_sound


def test_convert_other_ways(top: Path, tmp_path: Path) -> None:
    ti.convert([top, top], tmp_path / "two.raw", format="raw")
    assert (tmp_path / "two.raw").stat().st_size == 2 * SIZE
    ti.convert(top, tmp_path / "small.qcow2", compress=True)
    assert ti.compare(top, tmp_path / "small.qcow2") is None
    thin = tmp_path / "thin.qcow2"
    ti.convert(top, thin, backing="base.qcow2", backing_format="qcow2")
    with ti.open_image(thin) as image:
        assert {e.depth for e in image.extents() if e.kind == "data"} == {0, 1}
    assert ti.compare(top, thin) is None
    ti.copy_part(top, tmp_path / "part", start=CLUSTER, length=4096)
    assert (tmp_path / "part").read_bytes() == b"top!" * 1024


def test_cancelling_removes_what_was_begun(top: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise ti.Cancelled

    with pytest.raises(ti.Cancelled):
        ti.convert(top, tmp_path / "flat.qcow2", progress=stop)
    with pytest.raises(ti.Cancelled):
        ti.copy_part(top, tmp_path / "flat.qcow2", progress=stop)
    assert not (tmp_path / "flat.qcow2").exists()
    works: list[Callable[[], object]] = [
        lambda: ti.commit(top, progress=stop),
        lambda: ti.rebase(top, None, progress=stop),
        lambda: ti.compare(top, top, progress=stop),
    ]
    for work in works:
        with pytest.raises(ti.Cancelled):
            work()
        with ti.open_image(top, writable=True) as image:  # no lock is left behind either
            assert image.read(CLUSTER - 4, 8) == bytes(4) + b"top!"
            assert len(image.backing_chain) == 2
    assert ti.check(top).is_sound


@pytest.mark.parametrize(
    "arguments",
    [
        {"options": {"colour": "red"}},
        {"format": "raw", "compress": True},
        {"format": "raw", "bitmaps": True},
        {"format": "sausage"},
        {"snapshot": "none"},
        {"backing": "not-there", "backing_format": "raw"},
    ],
)
def test_a_convert_that_cannot_be_leaves_nothing(
    top: Path, tmp_path: Path, arguments: dict[str, object]
) -> None:
    with pytest.raises(ThinvirtError) as caught:
        ti.convert(top, tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert caught.value.path in (top, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"source": []},
        {"source": ["a", "b"], "bitmaps": True},
        {"minimum_hole": 100},
        {"minimum_hole": -512},
        {"share_blocks": True, "compress": True},
        {"target": "json:{}"},
    ],
)
def test_arguments_that_do_not_fit_are_refused_first(
    tmp_path: Path, arguments: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        ti.convert(**{"source": "missing", "target": tmp_path / "new", **arguments})  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        ti.amend("missing", {})
    with pytest.raises(UsageError):
        ti.create(tmp_path / "new", -1)
    assert not (tmp_path / "new").exists()


def test_an_error_is_not_laid_to_another_image(base: Path) -> None:
    with pytest.raises(ThinvirtError) as caught:
        ti.convert(base, "null-co://", options={"colour": "red"})
    assert caught.value.path is None


def test_what_cannot_be_read_is_named_with_its_place(base: Path, tmp_path: Path) -> None:
    broken = {
        "driver": "blkdebug",
        "image": {"driver": "qcow2", "file.driver": "file", "file.filename": str(base)},
        "inject-error": [{"event": "none", "iotype": "read", "sector": 4, "errno": 5}],
    }
    with pytest.raises(ti.BlockError, match="error while reading") as caught:
        ti.convert(broken, tmp_path / "new.raw", format="raw")
    assert caught.value.offset is not None
    assert "new.raw" not in caught.value.message
    assert not (tmp_path / "new.raw").exists()
    with pytest.warns(ti.ImageWarning, match="error while reading"):
        ti.convert(broken, tmp_path / "new.raw", format="raw", salvage=True)
    assert (tmp_path / "new.raw").read_bytes()[:2048] == b"base" * 512
    assert (tmp_path / "new.raw").read_bytes()[2048:2560] == bytes(512)


def test_an_image_is_not_converted_onto_itself(top: Path) -> None:
    before = top.read_bytes()
    with pytest.raises(Busy):
        ti.convert(top, top, overwrite=True)
    assert top.read_bytes() == before


def test_compare_says_where(top: Path, base: Path) -> None:
    difference = ti.compare(top, base)
    assert difference is not None
    assert (difference.kind, difference.offset) == ("content", CLUSTER)


def test_commit_and_rebase_keep_what_shows(top: Path, base: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat.raw"
    ti.convert(top, flat, format="raw")
    ti.rebase(top, None)
    assert ti.info(top).backing_filename == ""
    assert ti.compare(top, flat) is None
    ti.rebase(top, base.name, backing_format="qcow2")
    assert ti.compare(top, flat) is None
    ti.commit(top)
    assert ti.compare(base, flat) is None
    with ti.open_image(top) as image:
        assert all(extent.depth == 1 for extent in image.extents())
    with pytest.raises(UsageError, match="no backing file"):
        ti.commit(base)
    with pytest.raises(UsageError, match="go together"):
        ti.rebase(top, base)


def test_resize_shrinks_only_when_told(base: Path) -> None:
    with pytest.raises(UsageError, match="cut off"):
        ti.resize(base, SIZE // 2)
    ti.resize(base, SIZE // 2, shrink=True)
    ti.resize(base, 3 * SIZE)
    assert ti.info(base).virtual_size == 3 * SIZE


def test_snapshots(base: Path) -> None:
    ti.create_snapshot(base, "before")
    with ti.open_image(base, writable=True) as image:
        image.write(0, b"after")
        assert [each.name for each in image.snapshots] == ["before"]
    with ti.open_image(base, snapshot="before") as image:
        assert image.read(0, 5) == b"baseb"
    ti.apply_snapshot(base, "before")
    with ti.open_image(base) as image:
        assert image.read(0, 5) == b"baseb"
    ti.delete_snapshot(base, "before")
    for work in (ti.apply_snapshot, ti.delete_snapshot):
        with pytest.raises(NotFound) as caught:
            work(base, "before")
        assert caught.value.path == base


def test_bitmaps(base: Path) -> None:
    ti.add_bitmap(base, "one", granularity=CLUSTER)
    ti.add_bitmap(base, "two")
    ti.merge_bitmap(base, "one", "two")
    ti.clear_bitmap(base, "one")
    ti.enable_bitmap(base, "two", enabled=False)
    with ti.open_image(base) as image:
        assert [(b.name, b.enabled) for b in image.bitmaps] == [("one", True), ("two", False)]
    ti.remove_bitmap(base, "one")
    with pytest.raises(ti.BlockError, match="Operation remove on bitmap one failed"):
        ti.remove_bitmap(base, "one")


def test_amend_and_measure(base: Path) -> None:
    ti.amend(base, {"lazy_refcounts": True})
    specific = ti.info(base).specific
    assert specific is not None
    assert specific["data"]["lazy-refcounts"] is True
    assert 0 < ti.measure(base).required <= ti.measure(base).fully_allocated
    assert ti.measure(SIZE, format="raw").required == SIZE


def test_check_finds_and_repairs(base: Path) -> None:
    with base.open("r+b") as file:  # a refcount of a cluster nobody uses: a leak
        header = file.read(56)
        table = int.from_bytes(header[48:56], "big")
        file.seek(table)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block + 2 * 100)
        file.write(b"\0\1")
        file.truncate(101 * CLUSTER)
    report = ti.check(base)
    assert not report.is_sound
    assert report.counts.leaks == 1
    assert len(report.findings) == 1
    repaired = ti.check(base, repair="leaks")
    assert repaired.is_sound
    assert repaired.counts.leaks_fixed == 1
    with pytest.raises(UsageError):
        ti.check(base, repair="everything")
    with pytest.raises(ti.BlockError, match="cannot be checked"):
        ti.check(base, format="raw")
