"""The JSON reader of the guest `tiny`, run by the guest's own awk and held against Python's."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import thinvirt.build
from thinvirt.build import tiny
from thinvirt.service.builds import package_cache

SCRIPT = Path(thinvirt.build.__path__[0]) / "guest/tiny/root/usr/lib/thinvirt/json.awk"

# Keys come from a closed set: "/" and control characters in them are flattened on purpose.
KEYS = st.sampled_from(["instance-id", "public-keys", "a", "ä", "x y", "0"])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.none(), st.integers(-(10**12), 10**12), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the guest's busybox, from the package that script/bootstrap fetched."""
    folder = tmp_path_factory.mktemp("busybox")
    # As the build asks, so that bootstrap has fetched it.
    debs = {deb.name: deb for deb in tiny.fetch(package_cache())}
    debs["busybox-static"].unpack(folder)
    return folder / "bin/busybox"


def flatten(busybox: Path, text: bytes) -> tuple[int, bytes]:
    done = subprocess.run(
        [busybox, "awk", "-f", SCRIPT],
        input=text, capture_output=True, check=False, timeout=20, env={"LC_ALL": "C"},
    )  # fmt: skip
    assert done.stderr == b""
    return done.returncode, done.stdout


def expected(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from expected(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, str):
        # NUL cannot be in a line of text; other control characters but tab are left out.
        kept = "".join(c for c in value if c >= " " or c in "\t\n")
        yield f"{path}\t" + kept.replace("\\", "\\\\").replace("\n", "\\n") + "\n"
    else:
        yield f"{path}\t{json.dumps(value)}\n"


@pytest.mark.parametrize("ascii_only", [True, False])
@settings(max_examples=60)
@given(value=VALUES)
@example(value={"a": ["\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "ü\\n\n"]})
def test_reads_what_python_writes(busybox: Path, value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    status, lines = flatten(busybox, text.encode())
    assert status == 0
    assert lines.decode() == "".join(expected(value))


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a":1', '{"a" 1}', "[1,]", '"abc', '"\\x"', '"\\u12g4"', "{} {}", "nonsense",
     "instance-id: i-1\n", "[" * 100 + "]" * 100, "\0\1", '{"a": "' + "x" * 300_000 + '"}'],
)  # fmt: skip
def test_what_is_not_json_is_told(busybox: Path, text: str) -> None:
    status, _ = flatten(busybox, text.encode())
    assert status != 0


@settings(max_examples=60)
@given(noise=st.binary(max_size=200))
def test_ends_on_anything(busybox: Path, noise: bytes) -> None:
    flatten(busybox, noise)
