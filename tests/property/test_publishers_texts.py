"""Whatever a publisher's server or a user's catalogue says, only planned errors come of it."""

from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from thinvirt.errors import ThinvirtError
from thinvirt.store.image_catalogue import OURS
from thinvirt.vm.checksums import SUMS_KINDS, Checksum, digest_for, listed_names, parse_sums
from thinvirt.vm.cloud_images import parse_catalogue

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.text("abcXYZ019._+-", min_size=1, max_size=20).filter(lambda n: n.strip() == n)


@given(st.text(), st.sampled_from(SUMS_KINDS), st.text(max_size=10))
def test_any_sums(text: str, kind: str, name: str) -> None:
    with suppress(ThinvirtError):
        digest_for(parse_sums(text, kind), name, kind, sums_url="U")
    listed_names(text)


@given(st.dictionaries(NAME, HEX, min_size=1, max_size=8), st.booleans())
def test_every_name_gets_its_own_digest(promised: dict[str, str], bsd: bool) -> None:
    form = "SHA256 ({1}) = {0}" if bsd else "{0}  {1}"
    text = "\n".join(form.format(digits, name) for name, digits in promised.items())
    sums = parse_sums(text)
    for name, digits in promised.items():
        assert digest_for(sums, name, "list", sums_url="U") == Checksum("sha256", digits)


LINES = OURS.read_text().splitlines()


@given(st.integers(0, len(LINES) - 1), st.text(max_size=40), st.integers(0, 60))
def test_a_damaged_catalogue(line: int, inserted: str, at: int) -> None:
    damaged = LINES.copy()
    damaged[line] = damaged[line][:at] + inserted + damaged[line][at:]
    with suppress(ThinvirtError):
        images = parse_catalogue("\n".join(damaged), Path("mine.toml"))
        assert all(image.sums_url.startswith("https://") for image in images)
