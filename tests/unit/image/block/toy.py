"""A format with backing files for tests: a text says which, data stays in memory."""

import json

from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.flags import Status
from thinvirt.image.block.node import Extent
from thinvirt.image.block.options import Options
from thinvirt.image.block.registry import register

CLUSTER = 1024
MAGIC = b"TOY"


class ToyNode(BaseNode):
    driver = "toy"
    is_format = True
    supports_backing = True
    can_report_status = True
    cluster_size = CLUSTER

    def _open(self, options: Options) -> None:
        file = self.graph.open_file_child(self, options)
        header = json.loads(file.read(0, file.size).rstrip(b"\0"))
        self.length = int(header["size"])
        self.backing_file = self.auto_backing_file = header.get("backing", "")
        self.backing_format = header.get("format", "")
        self.clusters: dict[int, bytes] = {}

    def _length(self) -> int:
        return self.length

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        for at in range(offset // CLUSTER, -(-(offset + length) // CLUSTER)):
            data = self.clusters.get(at)
            if data is None:
                below = self.backing
                data = below.read(at * CLUSTER, CLUSTER) if below else bytes(CLUSTER)
            parts.append(data)
        skip = offset % CLUSTER
        return b"".join(parts)[skip : skip + length]

    def _write(self, offset: int, data: bytes | bytearray | memoryview, flags: int) -> None:
        first = offset // CLUSTER
        last = -(-(offset + len(data)) // CLUSTER)
        whole = bytearray(self._read(first * CLUSTER, (last - first) * CLUSTER))
        whole[offset - first * CLUSTER : offset - first * CLUSTER + len(data)] = data
        for at in range(first, last):
            start = (at - first) * CLUSTER
            self.clusters[at] = bytes(whole[start : start + CLUSTER])

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        at = offset // CLUSTER
        run = (at + 1) * CLUSTER - offset
        return Extent(run, Status.DATA if at in self.clusters else 0)


register("toy", __name__, "ToyNode")


def toy_file(size: int, backing: str = "", backing_format: str = "") -> bytes:
    header = {"size": size, "backing": backing, "format": backing_format}
    return json.dumps(header).encode()
