"""blkdebug and blkverify: the same rules fail the same requests here and in qemu-io."""

import contextlib
import json
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError, VerifyFailed
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.options import Options
from thinvirt.image.block.root import Root

pytestmark = pytest.mark.oracle

COMMANDS = [
    "read 0 512", "read 1k 512", "write 0 512", "write 1k 512", "write -z 0 4k", "discard 0 4k",
    "flush", "read 0 512", "write 512 100", "read 0 2k",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.raw").write_bytes(bytes(1 << 20))


def do(image: Root, command: str) -> str:
    """Do what qemu-io does for a command; return why it failed, or nothing."""
    verb, *numbers = command.replace("-z ", "").replace("k", "*1024").split()
    values = [int(n.removesuffix("*1024")) * (1024 if "*" in n else 1) for n in numbers]
    offset, length = ([*values, 0, 0])[:2]
    try:
        match verb:
            case "read":
                image.read(offset, length)
            case "write" if "-z" in command:
                image.write_zeroes(offset, length)
            case "write":
                image.write(offset, b"\xcd" * length)
            case "discard":
                image.discard(offset, length)
            case _:
                image.flush()
    except BlockError as error:
        return error.reason
    return ""


def theirs(qemu: Qemu, name: str) -> list[str]:
    """Return why each of the commands fails in one qemu-io, or nothing."""
    arguments = [part for command in COMMANDS for part in ("-c", command)]
    done = qemu.run("qemu-io", "-d", "unmap", *arguments, name)
    lines = (done.stdout + done.stderr).splitlines()
    starts = ("read ", "wrote ", "discard ")
    kept = [line for line in lines if "failed" in line or line.startswith(starts)]
    return [line.partition("failed: ")[2] for line in kept]


RULES: list[Options] = [
    {"inject-error": [{"event": "read_aio", "errno": 5}]},
    {"inject-error": [{"event": "write_aio", "errno": 28, "once": True}]},
    {"inject-error": [{"event": "none", "iotype": "write", "sector": 2, "errno": 1}]},
    {"inject-error": [{"event": "none", "iotype": "write-zeroes", "errno": 28}]},
    {"inject-error": [{"event": "none", "iotype": "discard"}]},
    {
        "set-state": [{"event": "write_aio", "state": 1, "new_state": 2}],
        "inject-error": [{"event": "read_aio", "state": 2, "errno": 5, "immediately": True}],
    },
    {"inject-error": [{"event": "pwritev", "errno": 5}, {"event": "read_aio", "errno": 0}]},
    {"align": 4096},
    {"max-transfer": 512, "inject-error": [{"event": "none", "sector": 3, "iotype": "read"}]},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: json.dumps(rules)[:60])
def test_the_same_requests_fail(qemu: Qemu, rules: Options) -> None:
    below = {"driver": "file", "filename": "a.raw"}
    tree = {"driver": "raw", "file": {"driver": "blkdebug", "image": below, **rules}}
    name = "json:" + json.dumps(tree)
    expected = theirs(qemu, name)
    Path("a.raw").write_bytes(bytes(1 << 20))
    ours = []
    image = BlockGraph().open_root(name, None, Open.RDWR | Open.UNMAP)
    for command in COMMANDS:
        result = do(image, command)
        if command != "flush":  # qemu-io keeps its failure to itself
            ours.append(result)
    assert ours == expected
    refresh_filename(image.node)
    with contextlib.suppress(BlockError):  # the flush may be told to fail
        image.close()
    said = json.loads(qemu.img("info", "--output=json", name))
    assert image.node.filename == said["filename"]


def test_a_configuration_file_and_a_name(qemu: Qemu) -> None:
    Path("conf").write_text(
        '# why\n[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "5"\n\n'
        '[inject-error "x"]\nevent = "read_aio"\nerrno = "28"\nstate = "5"\n'
    )
    name = "blkdebug:conf:a.raw"
    flags = Open.RDWR | Open.NO_FLUSH
    with BlockGraph().open_root(name, {"driver": "raw"}, flags) as image:
        assert image.node.filename == name
        assert do(image, "read 0 512") == ""
        assert do(image, "write 0 512") == ""
        assert do(image, "read 0 512") == "No space left on device"
    assert json.loads(qemu.img("info", "-f", "raw", "--output=json", name))["filename"] == name


@pytest.mark.parametrize(
    "name",
    [
        "blkdebug:a.raw", "blkdebug:gone:a.raw", "blkdebug::gone", "blkverify:a",
        'json:{"driver":"blkdebug","image.driver":"file","image.filename":"a.raw","align":3}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","align":512,"max-transfer":100}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","max-discard":100,"opt-discard":512}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error":[{"errno":1}]}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error":[{"event":"x"}]}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error":[{"event":"none","x":1}]}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error.event":"none","inject-error.x":1}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error.1.event":"none"}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","inject-error":["x"]}',
        'json:{"driver":"blkdebug","image.filename":"a.raw","x":1}',
        'json:{"driver":"blkdebug"}',
        'json:{"driver":"copy-on-read"}', 'json:{"driver":"throttle"}',
        'json:{"driver":"throttle","file.filename":"a.raw"}',
        'json:{"driver":"throttle","file.filename":"a.raw","throttle-group":"x"}',
        'json:{"driver":"copy-on-read","file.filename":"a.raw","bottom":"x"}',
    ],
)  # fmt: skip
def test_errors_are_qemus(qemu: Qemu, name: str) -> None:
    said = qemu.img_error("info", name)
    with pytest.raises(BlockError) as caught:
        BlockGraph().open_root(name, None, Open.NO_IO)
    assert said.rstrip() == f"qemu-img: Could not open '{name}': {caught.value.message}"


def test_blkverify_finds_the_difference(qemu: Qemu) -> None:
    Path("b.raw").write_bytes(bytes(1 << 20))
    name = "blkverify:a.raw:b.raw"
    options = {"driver": "raw"}
    with BlockGraph().open_root(name, options, Open.RDWR) as image:
        image.write(1000, b"same")
        assert image.read(1000, 4) == b"same"
        with open("b.raw", "r+b") as file:
            file.seek(2048)
            file.write(b"x")
        with pytest.raises(VerifyFailed, match="contents mismatch at offset 2048"):
            image.read(0, 4096)
    assert Path("a.raw").read_bytes()[1000:1004] == b"same"
