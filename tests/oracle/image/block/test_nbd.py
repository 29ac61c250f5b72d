"""NBD: real servers, and what real qemu-img says of the same names."""

import json
import os
import socket
from pathlib import Path

import pytest
from tests.oracle.image.block.test_file import mapped
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.options import Options, parse_image_opts

pytestmark = pytest.mark.oracle
K = 1 << 10
URI = "nbd+unix://?socket=s"
RAW = {"driver": "raw"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket's path is short: the test's folder by way of the present one.
    monkeypatch.chdir(tmp_path)
    Path("a.raw").write_bytes(b"")
    os.truncate("a.raw", 1 << 20)
    with open("a.raw", "r+b") as file:
        file.seek(64 * K)
        file.write(os.urandom(100 * K))


def serve(qemu: Qemu, *arguments: str) -> None:
    """Start qemu-nbd on the socket "s"."""
    qemu.serve("-e", "9", "-k", str(Path("s").resolve()), *arguments)


def test_what_is_served_is_read_written_and_mapped(qemu: Qemu) -> None:
    serve(qemu, "-f", "raw", "a.raw")
    with BlockGraph().open_root(URI, RAW, Open.RDWR | Open.UNMAP) as image:
        assert image.read(0, image.size) == Path("a.raw").read_bytes()
        assert mapped(image) == json.loads(qemu.img("map", "--output=json", "-f", "raw", URI))
        image.write(3, b"abc")
        image.write(200 * K + 1, b"x" * 40_000)
        image.write_zeroes(70 * K, 10 * K)
        image.write_zeroes(90 * K, 20 * K, WriteFlags.MAY_UNMAP)
        image.discard(128 * K, 4 * K)
        image.flush()
        data = Path("a.raw").read_bytes()
        assert data[3:6] == b"abc"
        assert data[200 * K + 1 : 200 * K + 40_001] == b"x" * 40_000
        assert data[70 * K : 80 * K] == bytes(10 * K)
        assert image.read(0, image.size) == data
        assert mapped(image) == json.loads(qemu.img("map", "--output=json", "-f", "raw", URI))


def test_odd_sizes_and_read_only_exports(qemu: Qemu) -> None:
    Path("odd").write_bytes(os.urandom(1000))
    serve(qemu, "-r", "-f", "raw", "odd")
    with BlockGraph().open_root(URI, RAW) as image:
        assert image.size == 1024
        assert image.read(0, 1024) == Path("odd").read_bytes() + bytes(24)
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root(URI, RAW, Open.RDWR)
    assert caught.value.message in qemu.run("qemu-io", "-f", "raw", "-c", "write 0 1", URI).stderr
    with BlockGraph().open_root(URI, {**RAW, "file.auto-read-only": "on"}) as image:
        assert image.node.file.read_only


def test_tcp_and_export_names(qemu: Qemu) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    qemu.serve(
        "-e", "9", "-b", "127.0.0.1", "-p", str(port), "-x", "an export", "-f", "raw", "a.raw"
    )
    names = [
        f"nbd://127.0.0.1:{port}/an%20export",
        f"nbd:127.0.0.1:{port}:exportname=an export",
        json_name({"driver": "nbd", "host": "127.0.0.1", "port": port, "export": "an export"}),
    ]
    for name in names:
        theirs = json.loads(qemu.img("info", "--output=json", name))
        with BlockGraph().open_root(name, RAW) as image:
            refresh_filename(image.node)
            assert image.node.filename == theirs["filename"]
            assert image.size == 1 << 20
    for name in (f"nbd://127.0.0.1:{port}/other", f"nbd://127.0.0.1:{port}"):
        assert_same_error(qemu, name)


def json_name(options: Options) -> str:
    return "json:" + json.dumps({"driver": "raw", "file": options})


def assert_same_error(qemu: Qemu, name: str) -> None:
    theirs = qemu.img_error("info", name)
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root(name, None, Open.NO_IO)
    ours = f"{caught.value.message}\n{caught.value.qemu_hint}"
    assert theirs.rstrip() == f"qemu-img: Could not open '{name}': {ours}".rstrip()


@pytest.mark.parametrize(
    "name",
    [
        "nbd+unix:///?socket=gone", "nbd:unix:gone", "nbd:unix:gone:exportname=x", "nbd:localhost",
        "nbd:[::1", "nbd:", "nbd://", "nbd+unix:///x", "nbd+unix:///x?sock=y", "nbd://h?x=y",
        "nbd+unix://h/x?socket=y", "nbd:127.0.0.1:1", "nbd://127.0.0.1:1/x", "nbd+unix:///x?socket="
        + "y" * 200,
    ],
)  # fmt: skip
def test_errors_are_qemus(qemu: Qemu, name: str) -> None:
    assert_same_error(qemu, name)


@pytest.mark.parametrize(
    "text",
    [
        "driver=nbd", "driver=nbd,host=a,path=b", "driver=nbd,path=a,port=1", "driver=nbd,port=1",
        "driver=nbd,path=a,server.type=unix", "driver=nbd,server.type=x", "driver=nbd,server.x=y",
        "driver=nbd,server.type=inet,server.host=a", "driver=nbd,server.type=unix,server.path=gone",
        "driver=nbd,path=gone,tls-creds=x", "driver=nbd,path=gone,open-timeout=x",
        "driver=nbd,path=gone,nope=1", "driver=nbd,server.type=unix,server.path=a,server.z=1",
    ],
)  # fmt: skip
def test_errors_of_options_are_qemus(qemu: Qemu, text: str) -> None:
    theirs = qemu.img_error("info", "--image-opts", text)
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root(None, parse_image_opts(text), Open.NO_IO)
    assert theirs.rstrip() == f"qemu-img: Could not open '{text}': {caught.value.message}"


@pytest.mark.parametrize(
    "options",
    [
        {"server.type": "unix", "server.path": "s"},
        {"path": "s"},
        {"path": "s", "export": ""},
        {"server": {"type": "unix", "path": "s"}, "export": ""},
    ],
)
def test_names_are_qemus(qemu: Qemu, options: Options) -> None:
    serve(qemu, "-f", "raw", "a.raw")
    name = json_name({"driver": "nbd", **options})
    theirs = json.loads(qemu.img("info", "--output=json", name))
    with BlockGraph().open_root(name) as image:
        refresh_filename(image.node)
        assert image.node.filename == theirs["filename"]


def test_bitmaps_are_shown_as_status(qemu: Qemu) -> None:
    qemu.img("create", "-q", "-f", "qcow2", "b.qcow2", "1M")
    qemu.img("bitmap", "--add", "b.qcow2", "dirty")
    qemu.io("-c", "write 64k 64k", "b.qcow2")
    serve(qemu, "-r", "-f", "qcow2", "-B", "dirty", "b.qcow2")
    name = json_name({"driver": "nbd", "path": "s", "x-dirty-bitmap": "qemu:dirty-bitmap:dirty"})
    theirs = json.loads(qemu.img("map", "--output=json", name))
    with BlockGraph().open_root(name) as image:
        assert mapped(image) == theirs
    wrong = name.replace("bitmap:dirty", "bitmap:x")
    assert_same_error(qemu, wrong)


def test_a_server_that_went_away(qemu: Qemu) -> None:
    serve(qemu, "-f", "raw", "a.raw")
    options = {**RAW, "file.reconnect-delay": "20"}
    lost = BlockGraph().open_root(URI, RAW)
    found = BlockGraph().open_root(URI, options)
    qemu.end_pids()
    with pytest.raises(BlockError) as caught:
        lost.read(0, 512)
    assert caught.value.reason == "Input/output error"
    Path("s").unlink(missing_ok=True)
    serve(qemu, "-f", "raw", "a.raw")
    assert found.read(64 * K, 512) == Path("a.raw").read_bytes()[64 * K : 64 * K + 512]
    found.close()
    lost.close()
