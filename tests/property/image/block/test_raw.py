"""Random requests on raw images, by way of filters and parts, against a plain bytearray."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.options import Options
from thinvirt.image.block.status import extents

SIZE = 40 * 1024
PLACES = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9000))
REQUESTS = st.lists(
    st.tuples(st.sampled_from(["read", "write", "zero", "unmap", "discard"]), PLACES), max_size=12
)
LAYERS: list[Options] = [
    {"driver": "raw"},
    {"driver": "raw", "detect-zeroes": "unmap"},
    {"driver": "raw", "offset": 1536, "size": SIZE},
    {"driver": "raw", "file.driver": "blkdebug", "file.align": 4096, "file.max-transfer": 8192},
    {"driver": "blkdebug", "align": 512, "opt-write-zero": 4096, "max-write-zero": 8192,
     "opt-discard": 4096, "max-discard": 4096},
    {"driver": "raw", "cache.direct": True},
]  # fmt: skip


@settings(max_examples=60)
@given(st.sampled_from(LAYERS), REQUESTS, st.integers(0, 255))
def test_what_is_written_is_read(layer: Options, requests: list, fill: int) -> None:
    offset = layer.get("offset", 0)
    expected = bytearray(bytes([fill]) * SIZE)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = os.path.join(folder, "a.raw")
        Path(path).write_bytes(b"\xaa" * offset + expected + b"\xbb" * (512 if offset else 0))
        child = (
            "image.filename"
            if layer["driver"] == "blkdebug"
            else ("file.image.filename" if "file.driver" in layer else "file.filename")
        )
        options = {**layer, child: path}
        with BlockGraph().open_root(None, options, Open.RDWR | Open.UNMAP) as image:
            for kind, (at, wanted) in requests:
                length = min(wanted, SIZE - at)
                match kind:
                    case "read":
                        assert image.read(at, length) == expected[at : at + length]
                    case "write":
                        data = os.urandom(length)
                        image.write(at, data)
                        expected[at : at + length] = data
                    case "discard":
                        image.discard(at, length)
                        now = image.read(at, length)  # old bytes or zeroes: both are right
                        assert all(
                            b in (0, old) for b, old in zip(now, expected[at:], strict=False)
                        )
                        expected[at : at + length] = now
                    case _:
                        flags = WriteFlags.MAY_UNMAP if kind == "unmap" else WriteFlags.NONE
                        image.write_zeroes(at, length, flags)
                        expected[at : at + length] = bytes(length)
            assert image.read(0, SIZE) == expected
            end = 0
            for at, extent in extents(image.node):
                assert at == end
                end += extent.length
                if extent.is_zero:
                    assert not any(expected[at:end])
            assert end == SIZE
        whole = Path(path).read_bytes()
        assert whole[offset : offset + SIZE] == expected
        assert whole[:offset] == b"\xaa" * offset
