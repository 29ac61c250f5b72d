"""What QEMU records of its events."""

import os
from pathlib import Path

import pytest

from thinvirt.run import event_record


def test_a_record_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Its last line may be cut off; what is no JSON object is passed over."""
    record = tmp_path / "events"
    assert list(event_record.read(record)) == []
    event_record.prepare(record)
    assert list(event_record.read(record)) == []
    (tmp_path / "events.out").write_bytes(b'{"event": "A"}\r\n[]\n\xff\n{"event": "B')
    assert list(event_record.read(record)) == [{"event": "A"}]
    event_record.prepare(record)
    assert list(event_record.read(record)) == []
    event_record.forget(record)
    event_record.forget(record)
    assert list(tmp_path.iterdir()) == []


def test_it_begins_when_somebody_listens(tmp_path: Path) -> None:
    record = tmp_path / "events"
    event_record.prepare(record)
    with pytest.raises(OSError, match="No such device"):
        event_record.begin(record)
    fd = os.open(tmp_path / "events.in", os.O_RDWR)  # as QEMU does
    event_record.begin(record)
    assert os.read(fd, 100) == event_record.HELLO
    os.close(fd)
    assert not (tmp_path / "events.in").exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"event": "A"}\n')
    (tmp_path / "events.out").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        list(event_record.read(tmp_path / "events"))
