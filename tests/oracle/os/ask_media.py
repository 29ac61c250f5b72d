"""Print which systems libosinfo takes discs for, as JSON. Run by the system's Python.

The first argument is a folder; every file in it is a disc.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Libosinfo", "1.0")
from gi.repository import Libosinfo  # type: ignore[import-not-found]  # noqa: E402


def each(listed: Any) -> list[Any]:
    return [listed.get_nth(i) for i in range(listed.get_length())]


def main() -> None:
    loader = Libosinfo.Loader()
    loader.process_default_path()
    database = loader.get_db()
    known = [
        (system.get_id(), media)
        for system in each(database.get_os_list())
        for media in each(system.get_media_list())
    ]
    found: dict[str, Any] = {}
    for file in sorted(Path(sys.argv[1]).iterdir()):
        disc = Libosinfo.Media.create_from_location_with_flags(str(file), None, 0)
        fitting = sorted({os_id for os_id, media in known if disc.matches(media)})
        # Its identify_media() is not asked: 1.10 falls over languages that volume ids do not have.
        found[file.name] = {"systems": fitting, "volume_id": disc.get_volume_id()}
    json.dump(found, sys.stdout)


main()
