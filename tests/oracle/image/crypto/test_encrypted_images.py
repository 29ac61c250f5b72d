"""Encrypted images: what QEMU writes we read, what we write QEMU reads."""

import json
import time
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.options import parse_image_opts
from thinvirt.image.ops.create import create_image

pytestmark = pytest.mark.oracle
M = 1 << 20
SECRETS = ("--object", "secret,id=s,data=geheim", "--object", "secret,id=t,data=other")
FAST = "iter-time=5"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def graph() -> BlockGraph:
    return BlockGraph({("secret", "s"): b"geheim", ("secret", "t"): b"other"})


def opts(name: str, image_format: str, secret: str = "s") -> str:
    prefix = "encrypt." if image_format == "qcow2" else ""
    return f"driver={image_format},{prefix}key-secret={secret},file.filename={name}"


def qemu_create(qemu: Qemu, *arguments: str) -> None:
    """Create with QEMU, whose coarse clock fails now and then."""
    for _ in range(40):
        done = qemu.run("qemu-img", "create", "-q", *SECRETS, *arguments)
        if "accurate CPU usage" not in done.stderr:
            assert done.returncode == 0, done.stderr
            return
        time.sleep(0.01)
    pytest.skip("QEMU's clock is too coarse for this machine")


def exchange(qemu: Qemu, graph: BlockGraph, name: str, image_format: str) -> None:
    """Write here and there, read there and here; offsets are within 4 MiB."""
    named = opts(name, image_format)
    done = qemu.io(
        *SECRETS, "--image-opts", named, "-c", "write -P 0x11 512 5k", "-c", "write -P 0x22 1M 200k"
    )
    assert "failed" not in done
    with graph.open_root(None, parse_image_opts(named), Open.RDWR) as image:
        assert image.read(512, 5 * 1024) == b"\x11" * 5 * 1024
        assert image.read(M, 200 * 1024) == b"\x22" * 200 * 1024
        image.write(M + 300, b"\x33" * 1000)  # not whole sectors
        image.write(3 * M - 512, b"\x44" * 200_000)
    said = qemu.io(
        *SECRETS, "--image-opts", named,
        "-c", "read -P 0x11 512 5k", "-c", "read -P 0x22 1M 300", "-c", "read -P 0x33 1048876 1000",
        "-c", "read -P 0x22 1049876 1000", "-c", "read -P 0x44 3145216 200000",
    )  # fmt: skip
    assert "failed" not in said


COMBINATIONS = [
    *(f"cipher-alg=aes-128,cipher-mode={mode}" for mode in ("ecb", "cbc", "xts", "ctr")),
    *(f"cipher-alg=aes-256,cipher-mode={mode}" for mode in ("ecb", "cbc", "xts", "ctr")),
    "cipher-alg=aes-192,cipher-mode=xts",
    "cipher-mode=cbc,ivgen-alg=plain",
    "cipher-mode=cbc,ivgen-alg=plain64,ivgen-hash-alg=sha1",
    "cipher-mode=cbc,ivgen-alg=essiv",
    "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
    "cipher-mode=xts,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    *(f"hash-alg={h}" for h in ("sha1", "sha224", "sha384", "sha512", "ripemd160", "md5")),
]  # fmt: skip


@pytest.mark.parametrize("options", COMBINATIONS)
def test_luks_of_ours(qemu: Qemu, graph: BlockGraph, options: str) -> None:
    create_image(graph, "a", "luks", size=4 * M, options=f"key-secret=s,{FAST},{options}")
    exchange(qemu, graph, "a", "luks")


@pytest.mark.parametrize("options", ["", "cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha1"])
def test_luks_of_qemus(qemu: Qemu, graph: BlockGraph, options: str) -> None:
    words = f"key-secret=s,iter-time=10,{options}".rstrip(",")
    qemu_create(qemu, "-f", "luks", "-o", words, "a", "4M")
    exchange(qemu, graph, "a", "luks")


@pytest.mark.parametrize(
    "options",
    [
        "encrypt.format=aes",
        "encryption=on,compat=0.10",
        "encrypt.format=aes,cluster_size=512",
        "encrypt.format=luks,encrypt.iter-time=5",
        "encrypt.format=luks,encrypt.iter-time=5,compat=0.10",
        "encrypt.format=luks,encrypt.iter-time=5,cluster_size=4k,refcount_bits=1",
        "encrypt.format=luks,encrypt.iter-time=5,cluster_size=2M,extended_l2=on",
        "encrypt.format=luks,encrypt.iter-time=5,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv",
        "encrypt.format=luks,encrypt.iter-time=5,preallocation=metadata",
        "encrypt.format=luks,encrypt.iter-time=5,data_file=d",
    ],
)
def test_qcow2_of_ours(qemu: Qemu, graph: BlockGraph, options: str) -> None:
    create_image(graph, "a", "qcow2", size=4 * M, options=f"encrypt.key-secret=s,{options}")
    exchange(qemu, graph, "a", "qcow2")
    qemu.img("check", *SECRETS, "--image-opts", opts("a", "qcow2"))


@pytest.mark.parametrize(
    "options", ["encrypt.format=aes", "encrypt.format=luks,encrypt.iter-time=10,extended_l2=on"]
)
def test_qcow2_of_qemus(qemu: Qemu, graph: BlockGraph, options: str) -> None:
    qemu_create(qemu, "-f", "qcow2", "-o", f"encrypt.key-secret=s,{options}", "a", "4M")
    exchange(qemu, graph, "a", "qcow2")
    qemu.img("check", *SECRETS, "--image-opts", opts("a", "qcow2"))


def test_overlay_and_backing_file_have_keys_of_their_own(qemu: Qemu, graph: BlockGraph) -> None:
    options = "encrypt.format=luks,encrypt.iter-time=5"
    create_image(graph, "base", "qcow2", size=4 * M, options=f"{options},encrypt.key-secret=s")
    qemu.io(*SECRETS, "--image-opts", opts("base", "qcow2"), "-c", "write -P 5 0 1M")
    create_image(
        graph, "top", "qcow2", size=4 * M, backing="base", backing_format="qcow2",
        options=f"{options},encrypt.key-secret=t", open_backing=False,
    )  # fmt: skip
    named = opts("top", "qcow2", "t") + ",backing.driver=qcow2,backing.encrypt.key-secret=s"
    named += ",backing.file.filename=base"
    with graph.open_root(None, parse_image_opts(named), Open.RDWR) as image:
        image.write(70_000, b"\6" * 100)
    said = qemu.io(
        *SECRETS, "--image-opts", named,
        "-c", "read -P 5 0 70000", "-c", "read -P 6 70000 100", "-c", "read -P 5 70100 900k",
    )  # fmt: skip
    assert "failed" not in said


def test_facts_are_qemus(qemu: Qemu, graph: BlockGraph) -> None:
    create_image(
        graph, "a", "luks", size=M,
        options=f"key-secret=s,{FAST},cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv",
    )  # fmt: skip
    create_image(
        graph, "b", "qcow2", size=M,
        options=f"encrypt.format=luks,encrypt.key-secret=s,encrypt.{FAST}",
    )  # fmt: skip
    for name in ("a", "b"):
        facts = json.loads(qemu.img("info", "--output=json", name))
        with graph.open_root(name, flags=Open.NO_IO) as image:
            ours = image.node.format_specific()
        assert ours == facts["format-specific"]
        assert facts["encrypted"]


# -------------------------------------------------------------------- key slots


def our_error(graph: BlockGraph, name: str, options: dict[str, object]) -> str:
    with pytest.raises(BlockError) as caught, graph.open_root(name, options):
        pass
    return caught.value.message


@pytest.mark.parametrize("image_format", ["luks", "qcow2"])
def test_wrong_keys_are_told_as_qemu_does(qemu: Qemu, graph: BlockGraph, image_format: str) -> None:
    prefix = "encrypt." if image_format == "qcow2" else ""
    options = f"{prefix}key-secret=s,{prefix}{FAST}"
    if prefix:
        options += ",encrypt.format=luks"
    create_image(graph, "a", image_format, size=M, options=options)
    for given in ({}, {f"{prefix}key-secret": "t"}, {f"{prefix}key-secret": "nobody"}):
        named = ",".join(
            [f"driver={image_format},file.filename=a", *(f"{k}={v}" for k, v in given.items())]
        )
        theirs = qemu.img_error("compare", *SECRETS, "--image-opts", named, named)
        ours = our_error(graph, None, {"driver": image_format, "file.filename": "a", **given})  # type: ignore[arg-type]
        assert ours in theirs


@pytest.mark.parametrize(
    "options",
    [
        "size=1M",
        "key-secret=nobody",
        "key-secret=s,hash-alg=crc32",
        "key-secret=s,cipher-alg=rot13",
        "key-secret=s,cipher-mode=lrw",
        "key-secret=s,ivgen-alg=benbi",
        "key-secret=s,cipher-alg=3des",
        "key-secret=s,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha1",
        "key-secret=s,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=crc32",
        "key-secret=s,iter-time=soon",
        "key-secret=s,preallocation=some",
    ],
)
def test_creation_is_refused_as_by_qemu(qemu: Qemu, graph: BlockGraph, options: str) -> None:
    size = None if options.startswith("size") else M
    words = ("-f", "luks", "-o", options, "a", *([] if size is None else [str(size)]))
    theirs = qemu.img_error("create", "-q", *SECRETS, *words)
    with pytest.raises(BlockError) as caught:
        create_image(graph, "a", "luks", size=size, options=options)
    assert caught.value.message in theirs
    assert not Path("a").exists()


@pytest.mark.parametrize(
    "options",
    [
        "encrypt.format=luks",
        "encrypt.key-secret=s",
        "encrypt.format=rot13,encrypt.key-secret=s",
        "encrypt.format=aes,encrypt.key-secret=s,encrypt.hash-alg=sha1",
        "encryption=on",
        "encryption=on,encrypt.format=aes,encrypt.key-secret=s",
        "encryption=off,encrypt.key-secret=s",
    ],
)
def test_encryption_of_qcow2_is_refused_as_by_qemu(
    qemu: Qemu, graph: BlockGraph, options: str
) -> None:
    theirs = qemu.img_error("create", "-q", *SECRETS, "-f", "qcow2", "-o", options, "a", "1M")
    with pytest.raises(BlockError) as caught:
        create_image(graph, "a", "qcow2", size=M, options=options)
    assert caught.value.message in theirs
    assert not Path("a").exists()


def amend(graph: BlockGraph, text: str, *, secret: str = "s", force: bool = False) -> None:
    from thinvirt.image.block.luks import LuksNode

    with graph.open_root(None, parse_image_opts(opts("a", "luks", secret)), Open.RDWR) as image:
        assert isinstance(image.node, LuksNode)
        values = LuksNode.amend_options.parse(text)
        image.node.amend_image(values, force=force, watch=lambda done, total: None)


def opens(qemu: Qemu, secret: str) -> bool:
    done = qemu.run("qemu-io", *SECRETS, "--image-opts", opts("a", "luks", secret), "-c", "length")
    return done.returncode == 0


def test_key_slots_change_for_qemu_too(qemu: Qemu, graph: BlockGraph) -> None:
    create_image(graph, "a", "luks", size=M, options=f"key-secret=s,{FAST}")
    amend(graph, f"state=active,new-secret=t,keyslot=3,{FAST}")
    assert opens(qemu, "s")
    assert opens(qemu, "t")
    amend(graph, "state=inactive,old-secret=s", secret="t")
    assert not opens(qemu, "s")
    assert opens(qemu, "t")
    amend(graph, f"state=active,new-secret=s,{FAST}", secret="t")
    amend(graph, "state=inactive,keyslot=3")
    assert opens(qemu, "s")
    assert not opens(qemu, "t")


@pytest.mark.parametrize(
    "change",
    [
        "state=dead",
        "keyslot=0",
        "state=active",
        "state=active,new-secret=t,old-secret=s",
        "state=active,new-secret=t,keyslot=0",
        "state=active,new-secret=t,keyslot=8",
        "state=active,new-secret=nobody",
        "state=inactive",
        "state=inactive,keyslot=0",
        "state=inactive,keyslot=1",
        "state=inactive,keyslot=9",
        "state=inactive,keyslot=0,old-secret=t",
        "state=inactive,old-secret=s",
        "state=inactive,old-secret=t",
        "state=inactive,keyslot=0,new-secret=t",
        "state=inactive,keyslot=0,iter-time=10",
    ],
)
def test_changes_are_refused_as_by_qemu(qemu: Qemu, graph: BlockGraph, change: str) -> None:
    create_image(graph, "a", "luks", size=M, options=f"key-secret=s,{FAST}")
    before = Path("a").read_bytes()
    with pytest.raises(BlockError) as caught:
        amend(graph, change)
    assert Path("a").read_bytes() == before
    theirs = qemu.img_error("amend", *SECRETS, "--image-opts", "-o", change, opts("a", "luks"))
    assert caught.value.message + caught.value.qemu_hint in theirs.replace("\n", "")


def test_measure_and_sizes(qemu: Qemu, graph: BlockGraph) -> None:
    from thinvirt.image.block.luks import LuksNode

    options = "key-secret=s,cipher-alg=aes-128,iter-time=10"
    values = LuksNode.create_options.parse(f"{options},size={5 * M}")
    measured = LuksNode.measure_image(values, None)
    create_image(graph, "a", "luks", size=5 * M, options=f"{options},preallocation=falloc")
    assert Path("a").stat().st_size == measured.required == measured.fully_allocated
    assert Path("a").stat().st_blocks * 512 >= measured.required
    with graph.open_root(
        None, parse_image_opts(opts("a", "luks")), Open.RDWR | Open.RESIZE
    ) as image:
        image.truncate(6 * M)
        assert image.size == 6 * M
    assert json.loads(qemu.img("info", "--output=json", "a"))["virtual-size"] == 6 * M
