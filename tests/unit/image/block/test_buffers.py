"""Memory that files are read into."""

from thinvirt.image.block.buffers import ReadBuffer


def test_parts_of_two_buffers_are_compared() -> None:
    one, other = ReadBuffer(4096), ReadBuffer(4096)
    assert len(one.view) == 4096
    one.view[:] = other.view[:] = bytes(range(256)) * 16
    other.view[1000] ^= 1
    assert one.is_same(other, 0, 1000)
    assert one.is_same(other, 1001, 4096)
    assert not one.is_same(other, 0, 1001)
    assert not one.is_same(other, 1000, 4096)
