"""The catalogue's tables. `SCHEMA_VERSION` stands in the file as SQLite's ``user_version``."""

SCHEMA_VERSION = 2
APPLICATION_ID = 0x7468766D  # "thvm": what file(1) and we know the catalogue by

_BATCHES = """
CREATE TABLE {name} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    template_id INTEGER REFERENCES templates (id),
    state TEXT NOT NULL CHECK (state IN ('pending', 'committed')),
    maker TEXT,
    first_vm INTEGER,
    last_vm INTEGER,
    virtual_size INTEGER NOT NULL,
    extended_l2 INTEGER NOT NULL,
    spec TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;
"""
_BATCHES_INDEX = "CREATE INDEX made_batches ON batches (maker) WHERE maker IS NOT NULL;"
BATCHES = _BATCHES.format(name="batches") + _BATCHES_INDEX

# What brings a catalogue from one version to the next; each runs in one transaction.
# SQLite cannot drop NOT NULL from a column: the table is written anew (its "Making Other Kinds Of
# Table Schema Changes"). Its numbers, and the one that counts them, stay.
MIGRATIONS = {
    1: f"""{_BATCHES.format(name="batches_2")}
INSERT INTO batches_2 SELECT * FROM batches;
DELETE FROM sqlite_sequence WHERE name = 'batches_2';
INSERT INTO sqlite_sequence SELECT 'batches_2', seq FROM sqlite_sequence WHERE name = 'batches';
DROP TABLE batches;
ALTER TABLE batches_2 RENAME TO batches;
{_BATCHES_INDEX}
"""  # noqa: S608 (constants)
}

# AUTOINCREMENT: an id, and with it a folder's name and a VM's identity, is never used again;
# template_names does the same for versions: tiny@2 never means another image later.
# The VMs of a batch are inserted by one statement run, so their ids are the range from first_vm to
# last_vm: no index on vms.batch_id is needed, and none is there. A foreign key on that column
# would need one (SQLite looks for children of every deleted batch), so there is no such key either.
# `pending`, `removals` and `unlinks` are empty but for what commands are doing this moment, or were
# doing when they were killed; `maker` names the lock its maker holds as long as it lives.
# A committed batch with a maker is disposable: it goes with its maker (`thinvirt run`).
# A batch without a template holds a VM that was installed or imported: its disks are its own.
SCHEMA = f"""
CREATE TABLE store (
    uuid TEXT NOT NULL,
    mac_base INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE templates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    format TEXT NOT NULL,
    virtual_size INTEGER NOT NULL,
    file_size INTEGER NOT NULL,
    source TEXT NOT NULL,
    facts TEXT NOT NULL,
    created INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    device INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;

CREATE TABLE template_names (
    name TEXT PRIMARY KEY,
    last_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

{BATCHES}
CREATE TABLE vms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    batch_id INTEGER NOT NULL,
    overrides TEXT
) STRICT;

CREATE TABLE removals (
    vm_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    batch_id INTEGER NOT NULL,
    maker TEXT NOT NULL
) STRICT;

CREATE TABLE unlinks (
    file_name TEXT PRIMARY KEY,
    maker TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
