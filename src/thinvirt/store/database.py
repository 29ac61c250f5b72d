"""The catalogue's SQLite file: made, opened for writing or reading, changed in transactions."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from thinvirt.errors import NoSpace, StoreUnusable, ThinvirtError
from thinvirt.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SCHEMA_VERSION
from thinvirt.store.trouble import explained, full, is_full, read_only

BUSY_TIMEOUT_S = 30.0  # another command's transaction takes milliseconds; a full disk may stall it

_SQLITE_PAGE = 4096  # bytes
Row = Sequence[Any]


class Database:
    """One connection to the catalogue; every error it raises is one of ours."""

    def __init__(
        self,
        home: Path,
        connection: sqlite3.Connection,
        *,
        writable: bool,
        refusal: ThinvirtError | None = None,
    ) -> None:
        self.home = home
        self.writable = writable
        self._refusal = refusal
        self._connection = connection
        self._transaction = RLock()  # a connection has one transaction, its threads take turns

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query."""
        with explained(self.home):
            return self._execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a query, or None."""
        with explained(self.home):
            found: Row | None = self._execute(sql, values).fetchone()
            return found

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one changing statement; return the id of the row it inserted."""
        with explained(self.home):
            return self._execute(sql, values).lastrowid or 0

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one changing statement for each tuple of values."""
        with explained(self.home):
            self._connection.executemany(sql, values)

    def require_writable(self) -> None:
        """Return if changes are possible.

        Raises:
            NoSpace, StoreUnusable: they are not; the message says why.
        """
        if not self.writable:
            raise self._refusal or read_only(self.home)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, durably, or nothing of it if an error leaves the block.

        The write lock is taken at the beginning, so what is read inside still holds at the commit.
        """
        self.require_writable()
        with self._transaction:
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                # A failed COMMIT (full disk) has rolled back by itself already.
                if self._connection.in_transaction:
                    self.run("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _execute(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except UnicodeEncodeError:
            # Bytes that are no UTF-8, from the command line or a file's name: SQLite takes text
            # only. Escapes keep a source readable, and no name has a backslash to be found by.
            return self._connection.execute(sql, [_as_text(value) for value in values])


def _as_text(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def open_database(home: Path, path: Path, *, writable: bool) -> Database:
    """Open the existing catalogue at `path`.

    Where the file system is full to the last byte it is opened for reading, so that people see
    what they may remove; the first change then tells of it.

    Raises:
        StoreUnusable: it is not a catalogue, of a newer version, or cannot be read.
    """
    # Where we may write we take part in the locking, for reading too.
    joins = writable or os.access(home, os.W_OK)
    if joins and _shared_memory_would_have_holes(home):
        refusal = full(home)
        return Database(home, _connect(home, path, joins=False), writable=False, refusal=refusal)
    try:
        connection = _connect(home, path, joins=joins)
        if writable:
            _migrate(home, connection)
    except NoSpace as error:
        connection = _connect(home, path, joins=False)
        return Database(home, connection, writable=False, refusal=error)
    return Database(home, connection, writable=writable)


def _shared_memory_would_have_holes(home: Path) -> bool:
    """Tell whether SQLite would be killed by SIGBUS on this full file system.

    It reserves its shared memory with one byte for each 4 KiB. Where blocks are smaller the rest
    are holes, for which there is no room when they are written to.
    """
    try:
        small_blocks = os.statvfs(home).f_bsize < _SQLITE_PAGE
    except OSError:
        return False
    return small_blocks and is_full(home)


def _connect(home: Path, path: Path, *, joins: bool) -> sqlite3.Connection:
    """Open the file and look whether it is ours."""
    with explained(home):
        connection = _connect_for_writing(path) if joins else _connect_for_reading(home, path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if application != APPLICATION_ID:
                raise StoreUnusable("this SQLite file is not a thinvirt catalogue", path=path)
            if version > SCHEMA_VERSION:
                raise StoreUnusable(
                    f"the store {home} was made by a newer thinvirt "
                    f"(format {version}, this one knows {SCHEMA_VERSION})",
                    hint="use that version, or another store: THINVIRT_HOME",
                )
        except BaseException:
            connection.close()
            raise
    return connection


def _migrate(home: Path, connection: sqlite3.Connection) -> None:
    """Bring a catalogue of an older version up to this one, a version at a time."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    with explained(home):
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            for step in range(version, SCHEMA_VERSION):  # none, if another command was quicker
                for statement in MIGRATIONS[step].split(";\n"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.close()
            raise
        connection.execute("PRAGMA foreign_keys = ON")


def create_database(path: Path, first_row: tuple[str, int, int]) -> None:
    """Write an empty catalogue to `path`, which must not exist.

    Args:
        path: the new file.
        first_row: the store's UUID, its MAC offset, and the time.

    Raises:
        sqlite3.Error: the file system does not bear a catalogue.
        StoreUnusable: the file system gives processes no shared memory, which WAL needs.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnusable("the file system cannot share memory between processes", path=path)
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        connection.execute("INSERT INTO store VALUES (?, ?, ?)", first_row)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _connect_for_writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        _uri(path, "mode=rw"),
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,  # transactions are begun by us
        check_same_thread=False,
    )
    try:
        # FULL: a commit is on the disk when it returns; WAL alone would only keep it consistent.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_for_reading(home: Path, path: Path) -> sqlite3.Connection:
    """Open without writing a byte, on a read-only file system too.

    A reader of a WAL file normally takes part in its shared memory file. Where that cannot be
    made nobody can write either, and the file is read as it stands; commits that are still in
    the WAL beside it are read from a private copy.
    """
    try:
        if not _shared_memory_would_have_holes(home):
            connection = _open_for_reading(_uri(path, "mode=ro"))
            connection.execute("SELECT 1 FROM store").fetchone()
            return connection
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")):
            raise
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return _open_copy(path, wal)
    return _open_for_reading(_uri(path, "mode=ro&immutable=1"))


def _open_for_reading(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _open_copy(path: Path, wal: Path) -> sqlite3.Connection:
    """Read catalogue and WAL through a copy that is held in memory afterwards."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="thinvirt-") as name:
        copy = Path(name) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(wal, copy.with_name(wal.name))
        on_disk = sqlite3.connect(copy)
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            on_disk.backup(connection)
        finally:
            on_disk.close()
    return connection


def _uri(path: Path, options: str) -> str:
    name = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{name}?{options}"
