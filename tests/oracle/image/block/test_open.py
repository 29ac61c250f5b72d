"""Opening: what qemu-img says to the same name, and the names it prints."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.options import parse_image_opts

pytestmark = pytest.mark.oracle


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[None]:
    """Work in the test's folder: names in messages are as given."""
    before = Path.cwd()
    os.chdir(tmp_path)
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    (tmp_path / "odd.raw").write_bytes(b"x" * 1000)
    (tmp_path / "empty.raw").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "co:lon").write_bytes(bytes(4096))
    yield
    os.chdir(before)


def our_error(name: str | None, options: dict[str, object] | None = None) -> str:
    flags = Open.NO_BACKING | Open.NO_IO
    with pytest.raises(BlockError) as caught, BlockGraph().open_root(name, options, flags):
        pass
    return f"{caught.value.message}\n{caught.value.qemu_hint}"


NAMES = [
    "nope", "folder", "foo:bar", "json:", "json:{", "json:[]", "json:{'a'", "json:{'a':1,}",
    "json:{'a':1}{'b':2}", "json:'abc", "json:{a:1}", "json:{'a':F}", "json:[01]",
    "json:{'a':1 'b':2}", "json:]", "json:{1:2}", "json:{'a':1,'a':2}", "json:{'a':'\\x'}",
    "json:{'a':'\\ud800'}", "json:{'a':tru}", "json:{'a':}", "json:{,}", "json:{'a' 1}",
    "json:{'driver':'nope'}", "json:{'driver':'raw'}", "json:{'file':'a.raw'}",
    "json:{'driver':'raw','file':{'driver':'file'}}",
    "json:{'driver':'raw','file':{'driver':'file','filename':''}}",
    "json:{'driver':'raw','file.filename':'a.raw','size':1}",
    "json:{'driver':'raw','file.filename':'a.raw','size':'2M'}",
    "json:{'driver':'raw','file.filename':'a.raw','offset':'2M'}",
    "json:{'driver':'raw','file.filename':'a.raw','offset':'x'}",
    "json:{'driver':'raw','file.filename':'a.raw','x':1}",
    "json:{'driver':'raw','file.filename':'a.raw','file.x':1}",
    "json:{'driver':'raw','file.filename':'nope'}",
    "json:{'driver':'raw','file.filename':'folder'}",
    "json:{'driver':'raw','file.filename':'a.raw','discard':'x'}",
    "json:{'driver':'raw','file.filename':'a.raw','detect-zeroes':'x'}",
    "json:{'driver':'raw','file.filename':'a.raw','detect-zeroes':'unmap'}",
    "json:{'driver':'raw','file.filename':'a.raw','read-only':'x'}",
    "json:{'driver':'raw','file.filename':'a.raw','read-only':'off','force-share':'on'}",
    "json:{'driver':'raw','file.filename':'a.raw','node-name':'1'}",
    "json:{'driver':'raw','file.filename':'a.raw','node-name':'d','file.node-name':'d'}",
    "json:{'driver':'raw','file.filename':'a.raw','backing':'nope'}",
    "json:{'driver':'file','filename':'a.raw','locking':'x'}",
    "json:{'driver':'file','filename':'a.raw','aio':'x'}",
    "json:{'driver':'file','filename':'a.raw','aio':'native'}",
    "json:{'driver':'file','filename':'a.raw','x':'x'}",
    "json:{'driver':'host_device','filename':'a.raw'}",
    "json:{'driver':'raw','file.filename':'json:{\\'driver\\':\\'file\\'}'}",
    "null-co://x", "null-aio:", "file:nope", "co:lon",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_qemus(qemu: Qemu, name: str) -> None:
    theirs = qemu.img_error("info", name)
    assert theirs.rstrip("\n") == f"qemu-img: Could not open '{name}': {our_error(name)}".rstrip()


OPTIONS = [
    "driver=raw", "a.raw", "driver=nope,file.filename=a.raw", "driver=raw,file=x",
    "driver=raw,file=x,file.filename=y", "driver=raw,file.driver=nope,file.filename=a.raw",
    "driver=raw,file.filename=a.raw,file.driver=raw", "file.filename=nope,driver=raw",
    "driver=raw,file.filename=a.raw,size=,", "driver=file,filename=nope",
    "driver=null-co,x=1", "driver=raw,file.driver=null-co,file.x=1",
]  # fmt: skip


@pytest.mark.parametrize("text", OPTIONS)
def test_errors_of_options_are_qemus(qemu: Qemu, text: str) -> None:
    theirs = qemu.img_error("info", "--image-opts", text)
    ours = our_error(None, parse_image_opts(text))
    assert theirs.rstrip("\n") == f"qemu-img: Could not open '{text}': {ours}".rstrip()


@pytest.mark.parametrize(
    "name",
    [
        "a.raw", "odd.raw", "empty.raw", "file:a.raw", "./co:lon", "file:co:lon", "null-co://",
        "json:{'driver':'raw','file.filename':'a.raw'}",
        "json:{'driver':'raw','offset':512,'file.filename':'a.raw'}",
        "json:{'driver':'raw','size':'1k','offset':'1k','file':{'driver':'file','filename':'a.raw'}}",
        "json:{'driver':'null-co','size':'1M'}",
        "json:{'driver':'null-co','latency-ns':5}",
        "json:{'driver':'null-co','read-zeroes':true,'size':4096}",
        "json:{'driver':'raw','file':{'driver':'raw','file':{'driver':'file','filename':'a.raw'}}}",
        "json:{'driver':'raw','file':{'driver':'null-co'}}",
        "json:{'driver':'raw','file.filename':'a.raw','cache.direct':'on','node-name':'n'}",
        "json:{'driver':'raw','file':{'driver':'file','filename':'a.raw','locking':'off'}}",
    ],
)  # fmt: skip
def test_names_and_sizes_are_qemus(qemu: Qemu, name: str) -> None:
    theirs = json.loads(qemu.img("info", "--output=json", name))
    with BlockGraph().open_root(name, None, Open.NO_IO | Open.NO_BACKING) as image:
        from thinvirt.image.block.names import refresh_filename

        refresh_filename(image.node)
        assert image.node.filename == theirs["filename"]
        assert image.size == theirs["virtual-size"]
        assert image.node.driver == theirs["format"]
        assert image.node.allocated_size() == theirs["actual-size"]


def test_a_guessed_raw_image_warns_and_guards_its_first_sector(qemu: Qemu, tmp_path: Path) -> None:
    qemu.img("create", "-q", "-f", "qcow2", "other.qcow2", "1M")
    head = (tmp_path / "other.qcow2").read_bytes()[:512]
    said: list[str] = []
    with BlockGraph(warn=said.append).open_root("a.raw", None, Open.RDWR) as image:
        image.write(3, b"harmless")
        with pytest.raises(BlockError) as caught:
            image.write(0, head)
        assert caught.value.reason == "Operation not permitted"
        image.write(512, head)
    written = qemu.run("qemu-io", "-c", "write 1k 512", "a.raw")
    assert said[0] in written.stderr
    assert (tmp_path / "a.raw").read_bytes()[:16] == b"\0\0\0harmless\0\0\0\0\0"
