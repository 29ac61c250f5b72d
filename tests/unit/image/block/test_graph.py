"""Backing chains, filters and permissions, with a toy format."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.image.block.toy import CLUSTER, ToyNode, toy_file

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, Permission, Status
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.opening import MAX_DEPTH
from thinvirt.image.block.options import Options
from thinvirt.image.block.status import backing_chain_next, chain, extents, is_allocated

K = CLUSTER
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)

    def make_toy(name: str, size: int, backing: str = "", backing_format: str = "toy") -> str:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(toy_file(size, backing, backing_format))
        return name

    return make_toy


TOY: Options = {"driver": "toy"}


def test_a_chain_is_read_through_and_reported_layer_by_layer(make: Make) -> None:
    Path("base.raw").write_bytes(b"b" * (3 * K))
    make("mid", 4 * K, "base.raw", "raw")
    make("top", 6 * K, "mid")
    graph = BlockGraph()
    with graph.open_root("top", TOY, Open.RDWR) as image:
        assert [node.filename for node in chain(image.node)] == ["top", "mid", "base.raw"]
        mid = backing_chain_next(image.node)
        assert mid is not None
        assert mid.read_only
        assert isinstance(mid, ToyNode)
        mid.clusters[1] = b"m" * K
        image.write(2 * K, b"t" * K)
        assert image.read(0, 6 * K) == b"b" * K + b"m" * K + b"t" * K + bytes(3 * K)
        found = [(at // K, e.length // K, e.depth, e.is_data) for at, e in extents(image.node)]
        assert found == [
            (0, 1, 3, True), (1, 1, 2, True), (2, 1, 1, True), (3, 1, 3, False), (4, 1, 2, False),
            (5, 1, 2, False),
        ]  # fmt: skip
        last = list(extents(image.node))[-1][1]
        assert last.flags & Status.EOF
        assert last.is_zero
        assert is_allocated(image.node, 2 * K, 9 * K) == (True, K)
        assert is_allocated(image.node, 0, 9 * K) == (False, K)
    assert not graph.nodes


def test_names_are_plain_until_something_adds_to_them(make: Make) -> None:
    make("d/base", K)
    make("d/top", K, "base")
    with BlockGraph().open_root("d/top", TOY) as image:
        refresh_filename(image.node)
        assert image.node.filename == "d/top"
        assert image.node.backing is not None
        assert image.node.backing.filename == "d/base"
    other = make("other", K)
    with BlockGraph().open_root("d/top", {**TOY, "backing.file.filename": other}) as image:
        refresh_filename(image.node)
        assert image.node.filename == (
            'json:{"backing": {"driver": "toy", "file": {"driver": "file", "filename": "other"}}, '
            '"driver": "toy", "file": {"driver": "file", "filename": "d/top"}}'
        )
        inside = image.node.filename
    with BlockGraph().open_root(inside) as image:
        assert image.node.backing is not None
        assert image.node.backing.filename == "other"
    with BlockGraph().open_root("d/top", {**TOY, "backing": None}) as image:
        refresh_filename(image.node)
        assert image.node.backing is None
        assert '"backing": null' in image.node.filename


def test_errors_name_each_layer(make: Make) -> None:
    make("mid", K, "gone")
    make("top", K, "mid")
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root("top", TOY)
    assert caught.value.message == (
        "Could not open backing file: Could not open backing file: "
        "Could not open 'gone': No such file or directory"
    )
    with BlockGraph().open_root("top", TOY, Open.NO_BACKING) as image:
        assert image.node.backing is None


def test_relative_names_need_a_place(make: Make) -> None:
    header = toy_file(K, "base")
    Path("t").write_bytes(header + bytes(512 - len(header)))
    options = {"driver": "toy", "file.driver": "blkverify", "file.raw.filename": "t"}
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root(
            None, {**options, "file.test.driver": "raw", "file.test.file.filename": "t"}
        )
    assert caught.value.message == "Cannot generate a base directory for blkverify nodes"


def test_an_image_below_itself_is_refused(make: Make) -> None:
    make("a", K, "b")
    make("b", K, "a")
    with pytest.raises(BlockError, match="Backing file 'a' creates an infinite loop"):
        BlockGraph().open_root("a", TOY)
    os.symlink("c", "link")
    make("c", K, "link")
    with pytest.raises(BlockError, match="Backing file 'link' creates an infinite loop"):
        BlockGraph().open_root("c", TOY)


def test_long_chains_work_and_endless_ones_do_not(make: Make) -> None:
    for n in range(MAX_DEPTH + 10):
        make(f"{n}", K, f"{n + 1}")
    make(f"{MAX_DEPTH + 10}", K)
    with pytest.raises(BlockError, match="more than 200 layers"):
        BlockGraph().open_root("0", TOY)
    with BlockGraph().open_root("11", TOY) as image:
        *_, bottom = chain(image.node)
        assert isinstance(bottom, ToyNode)
        bottom.clusters[0] = b"x" * K
        assert image.read(0, K) == b"x" * K
        refresh_filename(image.node)


def test_backing_files_are_not_written_by_others_of_us(make: Make) -> None:
    make("base", K)
    make("top", K, "base")
    with BlockGraph().open_root("top", TOY, Open.RDWR | Open.NO_SHARE):
        with pytest.raises(BlockError, match='Failed to get "write" lock'):
            BlockGraph().open_root("base", TOY, Open.RDWR)
        BlockGraph().open_root("base", TOY).close()


def test_set_read_only_reopens_the_files_below(make: Make) -> None:
    make("base", K)
    make("top", K, "base")
    graph = BlockGraph()
    with graph.open_root("top", TOY, Open.RDWR) as image:
        base = image.node.backing
        assert base is not None
        with pytest.raises(BlockError):
            base.write(0, b"x")
        graph.set_read_only(base, read_only=False)
        assert not base.file.read_only
        base.write(0, b"x")
        base.file.write(0, base.file.read(0, 1))  # through the descriptor opened anew
        graph.set_read_only(base, read_only=True)
        with pytest.raises(BlockError):
            base.write(0, b"x")
        graph.set_backing(image.node, None)
        assert image.node.backing is None
        assert image.read(0, 1) == b"\0"


def test_a_backing_file_can_be_written_by_a_root_of_its_own(make: Make) -> None:
    make("base", K)
    make("top", K, "base")
    graph = BlockGraph()
    with graph.open_root("top", TOY, Open.RDWR) as image:
        base = image.node.backing
        assert base is not None
        with pytest.raises(BlockError, match="Block node is read-only"):
            graph.root_over(base, Permission.WRITE)
        graph.set_read_only(base, read_only=False)
        with graph.root_over(base, Permission.WRITE) as lower:
            lower.write(0, b"x")
        assert image.read(0, 1) == b"x"
        graph.set_read_only(base, read_only=True)
    assert not graph.nodes


def test_a_node_can_be_referred_to_by_name(make: Make) -> None:
    make("base", K)
    make("top", K, "elsewhere")
    graph = BlockGraph()
    with graph.open_root("base", {**TOY, "node-name": "shared"}) as base:
        with graph.open_root("top", {**TOY, "backing": "shared"}) as top:
            assert top.node.backing is base.node
        with pytest.raises(BlockError) as caught:
            graph.open_root("top", {**TOY, "backing": "shared", "backing.x": "1"})
        assert caught.value.message == (
            "Could not open backing file: Cannot reference an existing block device with "
            "additional options or a new filename"
        )
        assert base.read(0, 1) == b"\0"
    assert not graph.nodes


def test_conflicts_within_a_graph_are_told(make: Make) -> None:
    make("base", K)
    graph = BlockGraph()
    options = {**TOY, "node-name": "one", "file.node-name": "shared"}
    with graph.open_root("base", options, Open.RDWR):
        with pytest.raises(BlockError) as caught:
            graph.open_root(None, {**TOY, "file": "shared", "node-name": "two"}, Open.RDWR)
        assert caught.value.message == (
            "Permission conflict on node 'shared': permissions 'write, resize' are both required "
            "by node 'two' (uses node 'shared' as 'file' child) and unshared by node 'one' (uses "
            "node 'shared' as 'file' child)."
        )
        assert set(graph.nodes) == {"one", "shared"}


def test_nothing_stays_open_after_an_error(make: Make) -> None:
    make("top", K, "gone")
    before = set(os.listdir("/proc/self/fd"))
    graph = BlockGraph()
    for options in (TOY, {**TOY, "x": "1", "backing": None}, {**TOY, "node-name": "!"}):
        with pytest.raises(BlockError):
            graph.open_root("top", options, Open.RDWR)
    assert not graph.nodes
    assert set(os.listdir("/proc/self/fd")) == before


def test_copy_on_read_keeps_what_was_read(make: Make) -> None:
    Path("base.raw").write_bytes(b"b" * (4 * K))
    make("top", 4 * K, "base.raw", "raw")
    options = {"driver": "copy-on-read", "file.driver": "toy", "file.file.filename": "top"}
    with BlockGraph().open_root(None, options, Open.RDWR) as image:
        assert image.read(K + 10, K) == b"b" * K
        top = image.node.file
        assert isinstance(top, ToyNode)
        assert set(top.clusters) == {1, 2}
        assert image.node.cluster_size == K
        refresh_filename(image.node)
        assert image.node.filename.startswith('json:{"driver": "copy-on-read", "file"')
    with pytest.raises(BlockError, match="Block node is read-only"):
        BlockGraph().open_root(None, options)


def test_copy_on_read_down_to_a_bottom(make: Make) -> None:
    Path("base.raw").write_bytes(b"b" * (4 * K))
    make("mid", 4 * K, "base.raw", "raw")
    make("top", 4 * K, "mid")
    graph = BlockGraph()
    options = {
        "driver": "copy-on-read", "bottom": "m", "file.driver": "toy",
        "file.file.filename": "top", "file.backing.node-name": "m",
        "file.backing.driver": "toy", "file.backing.file.filename": "mid",
    }  # fmt: skip
    with graph.open_root(None, options, Open.RDWR) as image:
        top = image.node.file
        mid = top.backing
        assert isinstance(top, ToyNode)
        assert isinstance(mid, ToyNode)
        mid.clusters[1] = b"m" * K
        assert image.read(0, 4 * K) == b"b" * K + b"m" * K + b"b" * (2 * K)
        assert set(top.clusters) == {1}


def test_the_copy_on_read_flag_does_the_same(make: Make) -> None:
    Path("base.raw").write_bytes(b"b" * K)
    make("top", K, "base.raw", "raw")
    with BlockGraph().open_root("top", TOY, Open.RDWR | Open.COPY_ON_READ) as image:
        assert image.read(0, 10) == b"b" * 10
        assert isinstance(image.node, ToyNode)
        assert set(image.node.clusters) == {0}
    with pytest.raises(BlockError, match="Can't use copy-on-read on read-only device"):
        BlockGraph().open_root("top", TOY, Open.COPY_ON_READ)


def test_growing_over_a_larger_backing_file_asks_for_zeroes(make: Make) -> None:
    Path("base.raw").write_bytes(b"b" * (4 * K))
    make("top", K, "base.raw", "raw")
    with BlockGraph().open_root("top", TOY, Open.RDWR | Open.RESIZE) as image:
        with pytest.raises(BlockError, match="does not support resize"):
            image.truncate(4 * K)
        assert image.permissions[0] & Permission.RESIZE


def test_deep_trees_of_any_kind_end_in_a_message() -> None:
    def nested(depth: int) -> Options:
        options: Options = {"driver": "null-co"}
        for _ in range(depth):
            options = {"driver": "raw", "file": options}
        return options

    with BlockGraph().open_root(None, nested(150)) as image:
        assert image.read(0, 1) == b"\0"
        refresh_filename(image.node)
        assert image.node.filename.startswith("json:")
    for depth in (500, 1000):
        with pytest.raises(BlockError, match="nodes below each other"):
            BlockGraph().open_root(None, nested(depth))
