"""The bits of a bitmap in memory: only the pieces that hold any.

A bitmap may cover terabytes and be clean nearly everywhere, and a hostile image of a megabyte may
claim many such: memory follows what is marked, not what is claimed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ONES: dict[int, bytes] = {}  # by size: pieces all of whose bits are set are one and the same


def all_ones(size: int) -> bytes:
    """Return a piece of `size` bytes with all bits set; it is shared."""
    return _ONES.setdefault(size, b"\xff" * size)


class Bits:
    """Bit n of byte m is for grain 8m + n.

    Attributes:
        length: bytes.
        piece_size: bytes of a piece; the last one is as long as the others.
    """

    __slots__ = ("_pieces", "length", "piece_size")

    def __init__(self, length: int, piece_size: int) -> None:
        self.length = length
        self.piece_size = piece_size
        self._pieces: dict[int, bytes | bytearray] = {}

    def put(self, index: int, piece: bytes) -> None:
        """Set a whole piece; what lies behind the end is cleared."""
        room = self.length - index * self.piece_size
        if room < self.piece_size:
            piece = piece[:room].ljust(self.piece_size, b"\0")
        self._pieces[index] = piece

    def stored(self) -> Iterator[tuple[int, bytes | bytearray]]:
        """Yield (number, piece) of those that hold any bit, in order."""
        for index in sorted(self._pieces):
            piece = self._pieces[index]
            if piece.strip(b"\0"):
                yield index, piece

    def clear(self) -> None:
        """Set all bits to zero."""
        self._pieces.clear()

    def _own(self, index: int) -> bytearray:
        """Return a piece that may be changed."""
        piece = self._pieces.get(index)
        if not isinstance(piece, bytearray):
            piece = bytearray(self.piece_size if piece is None else piece)
            self._pieces[index] = piece
        return piece

    def record(self, first: int, last: int) -> None:
        """Set the bits of a range of grains, as far as there are any."""
        last = min(last, self.length * 8 - 1)
        grains = self.piece_size * 8
        while first <= last:
            index = first // grains
            end = min(last, (index + 1) * grains - 1)
            if end - first == grains - 1:
                self._pieces[index] = all_ones(self.piece_size)
            elif self._pieces.get(index) is not all_ones(self.piece_size):
                _set(self._own(index), first - index * grains, end - index * grains)
            first = end + 1

    def resize(self, grains: int) -> None:
        """Let there be so many grains; those added are clean."""
        self.length = -(-grains // 8)
        per_piece = self.piece_size * 8
        for index in [index for index in self._pieces if (index + 1) * per_piece > grains]:
            left = grains - index * per_piece
            if left <= 0:
                del self._pieces[index]
                continue
            piece = self._own(index)
            whole, rest = divmod(left, 8)
            if rest:
                piece[whole] &= (1 << rest) - 1
                whole += 1
            piece[whole:] = bytes(len(piece) - whole)

    def merge(self, other: Bits) -> None:
        """Add the bits of another one that covers the same grains."""
        for index, piece in other.stored():
            start = index * other.piece_size
            at = 0
            while at < len(piece) and start + at < self.length:
                number, within = divmod(start + at, self.piece_size)
                count = min(self.piece_size - within, len(piece) - at)
                own = self._own(number)
                both = int.from_bytes(own[within : within + count], "little")
                both |= int.from_bytes(piece[at : at + count], "little")
                own[within : within + count] = both.to_bytes(count, "little")
                at += count

    def grains(self) -> Iterator[int]:
        """Yield the numbers of the grains that are marked, in order."""
        for index, piece in self.stored():
            start = index * self.piece_size * 8
            for at, byte in enumerate(piece):
                for bit in range(8) if byte else ():
                    if byte >> bit & 1:
                        yield start + at * 8 + bit


def _set(piece: bytearray, first: int, last: int) -> None:
    low, high = first >> 3, last >> 3
    head_mask, tail_mask = 0xFF << (first & 7) & 0xFF, (2 << (last & 7)) - 1
    if low == high:
        piece[low] |= head_mask & tail_mask
        return
    piece[low] |= head_mask
    piece[low + 1 : high] = b"\xff" * (high - low - 1)
    piece[high] |= tail_mask
