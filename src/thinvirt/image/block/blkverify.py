"""A filter that compares an image with a raw copy of it, for tests."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, VerifyFailed, failed
from thinvirt.image.block.filter import FilterNode
from thinvirt.image.block.flags import Role, Status
from thinvirt.image.block.node import BlockNode, Extent
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.options import Options

RUNTIME_OPTIONS = OptionList(
    "blkverify",
    (
        Option("x-raw", OptionType.STRING, "file name of the raw copy, from a blkverify: name"),
        Option("x-image", OptionType.STRING, "file name of the image, from a blkverify: name"),
    ),
)


class BlkverifyNode(FilterNode):
    """Everything is done to both: "raw", which is trusted, and "test"."""

    driver = "blkverify"
    is_protocol = True
    parses_filename = True
    makes_filename = True
    can_write_zeroes = False
    can_discard = False
    can_report_status = True

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Take ``blkverify:RAW:IMAGE`` apart."""
        if not filename.startswith("blkverify:"):
            options["x-image"] = filename
            return
        raw, colon, image = filename.removeprefix("blkverify:").partition(":")
        if not colon:
            raise BlockError("blkverify requires raw copy and original image path")
        options["x-raw"] = raw
        options["x-image"] = image

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        self.graph.open_file_child(self, options, name="raw", filename=values.text("x-raw"))
        test = self.graph.open_child(
            self, options, "test", Role.DATA, filename=values.text("x-image"), parse_filename=True
        )
        assert test is not None
        self._test: BlockNode = test

    def _length(self) -> int:
        return self._test.size

    def _read(self, offset: int, length: int) -> bytes:
        data = self._test.read(offset, length)
        expected = self.file.read(offset, length)
        if data != expected:
            at = offset + next(i for i in range(length) if data[i] != expected[i])
            raise VerifyFailed(
                f"blkverify: read offset={offset} bytes={length} contents mismatch at offset {at}"
            )
        return data

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        results = []
        for node in (self._test, self.file):
            try:
                node.write(offset, data)
                results.append(0)
            except BlockError as error:
                results.append(error.errno)
        if results[0] != results[1]:
            raise VerifyFailed(
                f"blkverify: write offset={offset} bytes={len(data)} return value mismatch "
                f"{-results[0]} != {-results[1]}"
            )
        if results[0]:
            raise failed(results[0], offset=offset)

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        return Extent(length, Status.RAW | Status.OFFSET_VALID, offset, self.file)

    def _refresh_filename(self) -> None:
        raw, test = self.file.exact_filename, self._test.exact_filename
        if raw and test:
            self.exact_filename = f"blkverify:{raw}:{test}"
