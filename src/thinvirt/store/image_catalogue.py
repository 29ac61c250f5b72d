"""Where the catalogue of public cloud images is read from: ours, the machine's, the user's."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from thinvirt.errors import UsageError
from thinvirt.vm.cloud_images import CloudImage, merge, parse_catalogue

OURS: Final = Path(__file__).parents[1] / "data" / "cloud-images.toml"
SYSTEM: Final = Path("/etc/thinvirt/cloud-images.toml")


def catalogue_files(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Return the catalogue files, those that may be missing too; a later one wins over an earlier.

    Args:
        environment: None: the process's own; XDG_CONFIG_HOME is read from it.
    """
    env = os.environ if environment is None else environment
    config = env.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config.startswith("/") else Path("~/.config").expanduser()
    return [OURS, SYSTEM, base / "thinvirt" / "cloud-images.toml"]


def load_catalogue(files: list[Path] | None = None) -> list[CloudImage]:
    """Return every image known, sorted by name.

    Args:
        files: None: `catalogue_files()`; missing ones are passed over.

    Raises:
        UsageError: a file cannot be read or says something wrong; with file, entry and key.
    """
    found = []
    for file in catalogue_files() if files is None else files:
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the catalogue cannot be read: {error}", path=file) from error
        found.append(parse_catalogue(text, file))
    return merge(found)
