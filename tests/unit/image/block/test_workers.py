"""Threads of one operation: order, errors, and that none is left."""

import os
import time
from collections.abc import Iterator

import pytest

from thinvirt.image.block.workers import Workers, read_ahead


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(autouse=True)
def _leaves_no_threads() -> Iterator[None]:
    before = threads()
    yield
    for _ in range(200):  # a thread has ended for us a moment before it has for the kernel
        if threads() <= before:
            return
        time.sleep(0.01)
    raise AssertionError("a thread is left")


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 3, 100])
def test_map_keeps_the_order(count: int, length: int) -> None:
    with Workers(count) as workers:
        assert workers.map(str, range(length)) == [str(number) for number in range(length)]


def test_an_error_reaches_whoever_asks_for_the_result() -> None:
    with Workers(2) as workers:
        fine, bad = workers.submit(lambda: 1), workers.submit(lambda: 1 // 0)
        assert fine.result() == 1
        with pytest.raises(ZeroDivisionError):
            bad.result()
        with pytest.raises(ValueError, match="invalid literal"):
            workers.map(int, ["1", "x", "3"])


def test_what_was_submitted_is_done_before_the_end() -> None:
    done: list[int] = []
    with Workers(2) as workers:
        for number in range(20):
            workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert sorted(done) == list(range(20))


def test_no_thread_starts_before_there_is_something_to_do() -> None:
    before = threads()
    with Workers(4):
        assert threads() == before


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_reading_ahead_keeps_the_order_and_its_distance(depth: int) -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in read_ahead(numbers(), depth):
        assert len(made) <= number + 1 + depth
    assert made == list(range(20))


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    ahead = read_ahead(numbers(), 8)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="three"):
        next(ahead)


def test_who_stops_early_stops_the_reader_too() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    ahead = read_ahead(numbers(), 4)
    assert next(ahead) == 0
    ahead.close()
    count = len(made)
    assert count <= 6
    time.sleep(0.02)
    assert len(made) == count
