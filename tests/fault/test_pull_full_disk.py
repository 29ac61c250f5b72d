"""A pull onto a real file system that is too small, in a mount namespace of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.http_faults import serving

MIB = 1 << 20

SCRIPT = """
set -e
mount -t tmpfs -o size=$SIZE tmpfs "$STORE"
set +e
"$@"
status=$?
echo "left:$(cat "$STORE"/incoming/downloads/*.part 2>/dev/null | wc -c)"
exit $status
"""


def pull_into(
    tmp_path: Path, size: int, url: str, checksum: str
) -> "subprocess.CompletedProcess[str]":
    store = tmp_path / "small"
    store.mkdir()
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    outside = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run(
        [
            *(*namespace, "bash", "-c", SCRIPT, "bash", sys.executable, "-m", "thinvirt"),
            *("template", "pull", url, "--checksum", checksum),
        ],
        env=outside | {"SIZE": str(size), "STORE": str(store), "THINVIRT_HOME": str(store)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("length", [True, False])
def test_too_small_a_file_system_is_told_and_never_filled(tmp_path: Path, length: bool) -> None:
    body = os.urandom(12 * MIB)
    with serving() as server:
        server.put("/disk.img", body, length=length)
        result = pull_into(
            tmp_path, 72 * MIB, f"{server.url}/disk.img", hashlib.sha256(body).hexdigest()
        )
    assert result.returncode == 75, result.stderr
    assert "stay free" in result.stderr
    assert "thinvirt df" in result.stderr
    left = int(result.stdout.partition("left:")[2])
    # With a length nothing is begun; without, what fits beside the reserve is kept.
    assert left == 0 if length else 0 < left < 8 * MIB
