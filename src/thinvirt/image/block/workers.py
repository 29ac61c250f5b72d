"""Threads for work that gives the interpreter lock back: codecs, and big reads and writes.

They belong to one operation and end with it. Made from what the interpreter is built on:
`concurrent.futures` and what it imports take longer to load than a small image takes to copy.
"""

from __future__ import annotations

import _thread
import os
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar

    T = TypeVar("T")
    R = TypeVar("R")

MAX_THREADS = 16
_SLICES = 2  # for each thread, so that one that is held up does not hold up the others


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Job:
    """A call made by a worker; `result` waits for it."""

    __slots__ = ("_call", "_done", "_error", "_result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def run(self) -> None:
        """Make the call; whatever it raises is raised again where the result is asked for."""
        call, self._call = self._call, None
        assert call is not None
        try:
            self._result = call()
        except BaseException as error:  # noqa: BLE001 - handed on to whoever waits
            self._error = error
        self._done.release()

    def result(self) -> Any:
        """Return what the call returned, once."""
        self._done.acquire()
        result, self._result = self._result, None
        if self._error is not None:
            raise self._error
        return result


class Workers:
    """A few threads, started when there is first something to do; a context manager ends them.

    Attributes:
        count: how many at most.
    """

    def __init__(self, count: int) -> None:
        self.count = min(count, MAX_THREADS)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._ended: list[_thread.LockType] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(self, call: Callable[[], Any]) -> Job:
        """Let a thread make a call.

        Args:
            call: something that touches nothing others may change meanwhile.
        """
        if not self._ended:
            self._start()
        job = Job(call)
        self._jobs.put(job)
        return job

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Return what `function` makes of each item, in order; several threads share the work."""
        size = -(-len(items) // (self.count * _SLICES))
        parts = [items[at : at + size] for at in range(0, len(items), size or 1)]

        def call(part: Sequence[T]) -> Callable[[], list[R]]:
            return lambda: [function(item) for item in part]

        jobs = [self.submit(call(part)) for part in parts]
        found: list[R] = []
        for job in jobs:
            found += job.result()
        return found

    def close(self) -> None:
        """End the threads; what was submitted and not asked for is still done."""
        for _ in self._ended:
            self._jobs.put(None)
        while self._ended:
            self._ended.pop().acquire()

    def _start(self) -> None:
        for _ in range(self.count):
            ended = _thread.allocate_lock()
            ended.acquire()
            _thread.start_new_thread(self._work, (ended,))
            self._ended.append(ended)

    def _work(self, ended: _thread.LockType) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                job.run()
        finally:
            ended.release()


def read_ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """Yield what `items` yields, which a thread makes up to `depth` items ahead.

    An exception is raised in its place, after the items before it. Closing the iterator ends the
    thread; nothing of `items` runs after that.

    Args:
        items: run in another thread, and only there.
        depth: how many may wait.
    """
    room: SimpleQueue[None] = SimpleQueue()  # something for each item that may be made
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    is_over = False
    for _ in range(depth):
        room.put(None)
    ended = _thread.allocate_lock()
    ended.acquire()

    def work() -> None:
        try:
            while room.get() is None and not is_over:
                made.put((next(items), None))
        except BaseException as error:  # noqa: BLE001 - raised where the items are used
            made.put((None, error))
        finally:
            ended.release()

    _thread.start_new_thread(work, ())
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
            room.put(None)
    finally:
        is_over = True
        room.put(None)
        ended.acquire()
