import shutil
import subprocess
from pathlib import Path

import pytest

from thinvirt.run.seed_disc import write_seed_disc

FILES = {"meta-data": '{"a": "ä"}\n', "user-data": "#!/bin/sh\n" * 500, "network-config": "{}\n"}


def test_disc_is_private_and_replaced(tmp_path: Path) -> None:
    disc = tmp_path / "seed.iso"
    disc.write_text("old")
    disc.chmod(0o644)
    write_seed_disc(disc, FILES)
    assert disc.stat().st_mode & 0o777 == 0o600
    assert disc.read_bytes()[32768 + 40 : 32768 + 46] == b"cidata"  # ECMA-119, 8.4: volume id


@pytest.mark.parametrize("names", ["-R", "-J"])
def test_other_readers_find_the_files(tmp_path: Path, names: str) -> None:
    if shutil.which("isoinfo") is None:
        pytest.skip("isoinfo is not installed")
    disc = tmp_path / "seed.iso"
    write_seed_disc(disc, FILES)
    for name, text in FILES.items():
        read = subprocess.run(
            ["isoinfo", names, "-i", disc, "-x", f"/{name}"], capture_output=True, check=True
        )
        assert read.stdout.decode() == text
