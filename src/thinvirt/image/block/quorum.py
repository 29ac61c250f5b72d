"""A node that keeps the same bytes in several children and lets them vote on what is read."""

from __future__ import annotations

import errno

from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError, VerifyFailed, failed
from thinvirt.image.block.flags import Permission, Role, Status, WriteFlags
from thinvirt.image.block.node import BlockNode, Extent
from thinvirt.image.block.options import qemu_order
from thinvirt.image.block.schema import Option, OptionList, OptionType
from thinvirt.image.block.status import status_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import Buffer, Child
    from thinvirt.image.block.options import Options

RUNTIME_OPTIONS = OptionList(
    "quorum",
    (
        Option("vote-threshold", OptionType.NUMBER, "children that must agree"),
        Option("blkverify", OptionType.BOOL, "stop at the first difference of two children"),
        Option("rewrite-corrupted", OptionType.BOOL, "mend those that were outvoted"),
        Option("read-pattern", OptionType.STRING, "quorum: ask all; fifo: the first that answers"),
    ),
)
_PREFIX = "children."
_READ, _UNCHANGED = Permission.CONSISTENT_READ, Permission.WRITE_UNCHANGED


class QuorumNode(BaseNode):
    """Writes go to all children; a read must have `vote-threshold` children that agree on it."""

    driver = "quorum"
    strong_options = ("vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern")
    can_write_zeroes = True
    can_report_status = True

    _voters: list[BlockNode]
    _threshold: int
    _fifo = False
    _verify = False
    _rewrite = False

    def _open(self, options: Options) -> None:
        count = _count_children(options)
        values = RUNTIME_OPTIONS.absorb(options)
        self._threshold = _c_int(values.size("vote-threshold"))
        if self._threshold < 1:
            raise _out_of_range("Parameter 'vote-threshold' expects a value >= 1")
        if self._threshold > count:
            raise _out_of_range("threshold may not exceed children count")
        pattern = values.text("read-pattern")
        if pattern not in (None, "quorum", "fifo"):
            raise BlockError("Please set read-pattern as fifo or quorum")
        self._fifo = pattern == "fifo"
        if not self._fifo:
            self._verify = values.flag("blkverify")
            self._rewrite = values.flag("rewrite-corrupted")
        if self._verify and (count, self._threshold) != (2, 2):
            raise BlockError(
                "blkverify=on can only be set if there are exactly two files and vote-threshold "
                "is 2"
            )
        if self._rewrite and self._verify:
            raise BlockError("rewrite-corrupted=on cannot be used with blkverify=on")
        self._open_voters(options, count)

    def _open_voters(self, options: Options, count: int) -> None:
        self._voters = []
        common = WriteFlags.FUA | WriteFlags.MAY_UNMAP | WriteFlags.NO_FALLBACK
        for index in range(count):
            voter = self.graph.open_child(self, options, f"{_PREFIX}{index}", Role.DATA)
            assert voter is not None
            self._voters.append(voter)
            common &= voter.zero_flags
        self.write_flags = WriteFlags.UNCHANGED
        self.zero_flags = WriteFlags.UNCHANGED | common

    def _length(self) -> int:
        sizes = {voter.size for voter in self._voters}
        if len(sizes) > 1:
            raise failed(errno.EIO)
        return sizes.pop()

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        # Who else wrote to one child would make it differ from the others.
        if self._rewrite:
            perm |= Permission.WRITE
        return perm, shared & (_READ | _UNCHANGED)

    def _gather_child_options(self, target: Options, *, backing_overridden: bool) -> bool:
        target["children"] = [voter.full_open_options for voter in self._voters]
        return True

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        if self._fifo:
            return self._read_first(offset, length)
        answers: dict[int, bytes] = {}
        errors: list[int] = []
        for index, voter in enumerate(self._voters):
            try:
                answers[index] = voter.read(offset, length)
            except BlockError as error:
                errors.append(error.errno)
        if len(answers) < self._threshold:
            raise failed(_most_frequent(errors), offset=offset)
        votes: dict[bytes, list[int]] = {}
        for index, data in answers.items():
            votes.setdefault(data, []).append(index)
        if len(votes) > 1:
            return self._settle(offset, votes)
        return next(iter(votes))

    def _read_first(self, offset: int, length: int) -> bytes:
        trouble: BlockError | None = None
        for voter in self._voters:
            try:
                return voter.read(offset, length)
            except BlockError as error:
                trouble = error
        assert trouble is not None
        raise trouble

    def _settle(self, offset: int, votes: dict[bytes, list[int]]) -> bytes:
        """Return what most children say; on a tie, what was said last."""
        if self._verify:
            one, other = votes
            at = offset + next(i for i in range(len(one)) if one[i] != other[i])
            raise VerifyFailed(
                f"quorum: offset={offset} bytes={len(one)} contents mismatch at offset {at}"
            )
        winner = max(reversed(votes), key=lambda data: len(votes[data]))
        if len(votes[winner]) < self._threshold:
            raise failed(errno.EIO, offset=offset)
        if self._rewrite:
            outvoted = [n for data, indices in votes.items() if data is not winner for n in indices]
            for index in outvoted:
                try:
                    self._voters[index].write(offset, winner)
                except BlockError:
                    continue  # an attempt only: the answer is known
        return winner

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self._ask_all(lambda voter: voter.write(offset, data, flags))

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        self._ask_all(lambda voter: voter.write_zeroes(offset, length, flags))

    def flush(self) -> None:
        """Make durable in all children; enough of them must succeed."""
        if not self.read_only:
            self._ask_all(lambda voter: voter.flush())

    def _ask_all(self, request: Callable[[BlockNode], None]) -> None:
        """Send a request to all children.

        Raises:
            BlockError: fewer than `vote-threshold` succeeded; the failure that most had.
        """
        errors: list[int] = []
        for voter in self._voters:
            try:
                request(voter)
            except BlockError as error:
                errors.append(error.errno)
        if len(self._voters) - len(errors) < self._threshold:
            raise failed(_most_frequent(errors))

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        """Zeroes are what all children call so, as far as all do; all else is data."""
        zeroes, data = length, 0
        for voter in self._voters:
            try:
                extent = status_above(voter, None, offset, length, want_zero=want_zero)
            except BlockError:
                return Extent(length, Status.DATA)
            if extent.is_zero:
                zeroes = min(zeroes, extent.length)
            else:
                data = max(data, extent.length)
        return Extent(data, Status.DATA) if data else Extent(zeroes, Status.ZERO)


def _count_children(options: Options) -> int:
    """Return how many ``children.N`` there are.

    Raises:
        BlockError: none, or they are not numbered from 0 without gaps.
    """
    names = {key.removeprefix(_PREFIX) for key, _ in qemu_order(options) if key.startswith(_PREFIX)}
    trees = {name.partition(".")[0] for name in names if "." in name}
    texts = {name for name in names if "." not in name}
    count = len(trees | texts)
    if trees & texts or trees | texts != {str(index) for index in range(count)}:
        raise BlockError("Option children is not a valid array")
    if not count:
        raise BlockError("Number of provided children must be 1 or more")
    return count


def _most_frequent(errors: list[int]) -> int:
    """Return the errno that most children failed with; on a tie, the one that came last."""
    kinds = list(dict.fromkeys(errors))
    return max(reversed(kinds), key=errors.count)


def _c_int(value: int) -> int:
    """Return what is left of a number in 32 bits with a sign."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _out_of_range(message: str) -> BlockError:
    return BlockError(message, number=errno.ERANGE)
