"""Where zeroes are left out, held against the definition spelled out sector by sector."""

from hypothesis import given
from hypothesis import strategies as st

from thinvirt.image.ops.sparse import pieces

SECTOR = 512


def plain_run(used: list[bool], start: int, target: int, alignment: int) -> tuple[bool, int]:
    """A run of like sectors, its end moved so that data covers aligned units."""
    is_data = used[start]
    end = start + 1
    while end < len(used) and used[end] == is_data:
        end += 1
    if end == len(used):
        return is_data, end
    past = (target + end) % alignment
    if past and not is_data and end - start <= past:
        is_data = True
    if past:
        end = min(end + alignment - past, len(used)) if is_data else end - past
    return is_data, end


def plain_pieces(
    used: list[bool], target: int, minimum: int, alignment: int
) -> list[tuple[bool, int, int]]:
    result = []
    start = 0
    while start < len(used):
        needed = min(minimum, len(used) - start)
        is_data, end = plain_run(used, start, target, alignment)
        at = end
        while is_data and at < len(used):
            more, stop = plain_run(used, at, target, alignment)
            if more:
                end = stop
            elif stop - at >= needed:
                break
            at = stop
        result.append((is_data, start * SECTOR, end * SECTOR))
        start = end
    return result


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=12),
    st.integers(0, 20),
    st.sampled_from([1, 2, 8, 16, 100]),
    st.sampled_from([1, 2, 8, 16]),
    st.integers(0, SECTOR - 1),
)
def test_pieces(
    runs: list[tuple[bool, int]], target: int, minimum: int, alignment: int, place: int
) -> None:
    used = [is_data for is_data, count in runs for _ in range(count)]
    sector = bytearray(SECTOR)
    sector[place] = 1
    data = b"".join(bytes(sector) if is_data else bytes(SECTOR) for is_data in used)
    found = pieces(
        data + b"\0\1" * SECTOR,
        len(data),
        target * SECTOR,
        minimum=minimum * SECTOR,
        alignment=alignment * SECTOR,
    )
    assert list(found) == plain_pieces(used, target, minimum, alignment)
