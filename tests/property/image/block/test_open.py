"""Whatever the options: a graph, or an error of ours, and nothing left open."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thinvirt.errors import ThinvirtError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.options import Options

KEYS = st.sampled_from(
    [
        "driver", "filename", "file", "image", "raw", "test", "node-name", "read-only",
        "auto-read-only", "force-share", "discard", "detect-zeroes", "cache.direct",
        "cache.no-flush", "size", "offset", "read-zeroes", "latency-ns", "locking", "aio", "align",
        "max-transfer", "opt-discard", "inject-error", "set-state", "inject-error.0.event",
        "inject-error.event", "take-child-perms.0", "unshare-child-perms.0", "throttle-group",
        "bottom", "backing", "server", "server.type", "server.path", "path", "host", "port",
        "export", "x-image", "config", "pr-manager", "x", "y.z",
    ]
)  # fmt: skip
SCALARS = (
    st.sampled_from(
        [
            "raw", "file", "null-co", "null-aio", "blkdebug", "throttle", "copy-on-read",
            "blkverify", "nbd", "host_device", "a.raw", "/dev/full", "folder", "on", "off", "unmap",
            "auto", "512", "1k", "1M", "x", "1.5G", "-1", "none", "read_aio", "write",
            "consistent-read", "unix", "inet", "g", "json:{}", "json:{'driver':'null-co'}",
            "null-co://", "blkdebug::a.raw", "nbd:unix:x", "file:a.raw",
        ]
    )
    | st.integers(-5, 1 << 65)
    | st.booleans()
    | st.none()
    | st.floats()
    | st.text(max_size=3)
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.none() | SCALARS.filter(lambda value: isinstance(value, str)),
    st.dictionaries(KEYS, TREES, max_size=6),
    st.sampled_from([0, Open.RDWR, Open.RDWR | Open.NOCACHE, Open.NO_IO, Open.COPY_ON_READ]),
)
@example("a\0b", {}, 0)
@example("json:{'driver':'file','filename':'a\\u0000b'}", {}, 0)
@example(None, {"driver": "file", "filename": 5}, 0)
def test_any_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, options: Options, flags: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir(exist_ok=True)
    Path("a.raw").write_bytes(bytes(4096))
    before = len(os.listdir("/proc/self/fd"))
    said: list[str] = []
    graph = BlockGraph(warn=said.append)
    try:
        with graph.open_root(name, options, flags | Open.NO_FLUSH) as image:
            refresh_filename(image.node)
            if not flags & Open.NO_IO and image.size:
                image.read(0, 1)
    except ThinvirtError as error:
        said.append(error.message)
    assert all(said)
    assert not graph.nodes
    assert len(os.listdir("/proc/self/fd")) == before
