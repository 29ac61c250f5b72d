"""Reading of compressed clusters in several threads, ahead of what needs them.

A thread reads and unpacks a whole piece, and looks for zeroes in it. Threads meet once a piece and
not once a cluster: winning the interpreter lock costs as much as unpacking.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.ops.convert_reading import ConvertFailed, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thinvirt.image.block.workers import Job, Workers
    from thinvirt.image.ops.convert_reading import Piece, Reader

_MAX_WAITING = 32 << 20  # bytes


def load_ahead(
    reader: Reader, workers: Workers, scan: Callable[[Piece], None] | None
) -> Iterator[Piece]:
    """Yield what `Reader.pieces` yields, in the same order.

    Args:
        reader: used by nobody else meanwhile.
        workers: the threads.
        scan: called in them with a piece that was read.

    Raises:
        ConvertFailed: an image could not be read; what comes before it has been yielded.
    """
    depth = max(min(2 * workers.count, _MAX_WAITING // reader.limit), 1)
    waiting: list[tuple[Piece, Job | None]] = []
    try:
        for piece in reader.unread():
            waiting.append((piece, _submit(reader, piece, workers, scan)))
            # What nobody can read ahead waits for nothing but its turn.
            while waiting and (len(waiting) > depth or waiting[0][1] is None):
                yield from _loaded(reader, *waiting.pop(0))
    except ConvertFailed:
        while waiting:
            yield from _loaded(reader, *waiting.pop(0))
        raise
    while waiting:
        yield from _loaded(reader, *waiting.pop(0))


def _submit(
    reader: Reader, piece: Piece, workers: Workers, scan: Callable[[Piece], None] | None
) -> Job | None:
    """Let a thread read a piece, if it can."""
    fill = reader.plan(piece) if piece.kind == Kind.DATA else None
    if fill is None:
        return None
    reader.give_memory(piece)

    def work() -> BlockError | None:
        """Return why the piece could not be read."""
        try:
            fill(piece.view)
        except BlockError as error:
            return error
        if scan is not None:
            scan(piece)
        return None

    return workers.submit(work)


def _loaded(reader: Reader, piece: Piece, job: Job | None) -> Iterator[Piece]:
    """Yield a piece with its bytes; before an error, in parts, what could be read."""
    if piece.kind != Kind.DATA:
        yield piece
        return
    if job is not None and job.result() is None:
        yield piece
        return
    reader.give_back(piece)
    yield from reader.load(piece)
