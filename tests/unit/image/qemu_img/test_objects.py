"""``--object``: what is read, and what is refused in QEMU's words."""

from typing import Any

import pytest

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.qemu_img.objects import make_object


@pytest.mark.parametrize(
    "text",
    [
        "secret,id=k,data=x",
        "qom-type=secret,id=k,data=x",
        "secret,id=k,data=eA==,format=base64",
        '{"qom-type": "secret", "id": "k", "data": "x"}',
    ],
)
def test_secrets(text: str) -> None:
    objects: dict[tuple[str, str], Any] = {}
    make_object(objects, text)
    assert objects == {("secret", "k"): b"x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id=k,data=x", "Parameter 'qom-type' is missing"),
        ("nope,id=k", "Parameter 'qom-type' does not accept value 'nope'"),
        ("secret,data=x", "Parameter 'id' is missing"),
        ("secret,id=1k,data=x", "Parameter 'id' expects an identifier"),
        ("secret,id=k/,data=x", "Parameter 'id' expects an identifier"),
        ("secret,id=k,data=x,nope=1", "Parameter 'nope' is unexpected"),
        ("secret,id=k,data", "Expected '=' after parameter 'data'"),
        ("iothread,id=k", "invalid object type: iothread"),
        ('{"qom-type": "secret", "id": 1}', "Invalid parameter type for 'id', expected: string"),
        (
            '{"qom-type": "secret", "id": "k", "data": 1}',
            "Invalid parameter type for 'data', expected: string",
        ),
        ("throttle-group,id=t,x-bps-total=x", "Parameter 'x-bps-total' expects integer"),
        ("throttle-group,id=t,limits.nope=1", "Parameter 'limits.nope' is unexpected"),
        ("throttle-group,id=t,limits=1", "Invalid parameter type for 'limits', expected: object"),
        (
            '{"qom-type": "throttle-group", "id": "t", "limits": {"bps-total": "1"}}',
            "Invalid parameter type for 'limits.bps-total', expected: integer",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    objects: dict[tuple[str, str], Any] = {}
    with pytest.raises(BlockError) as caught:
        make_object(objects, text)
    assert caught.value.message == message
    assert not objects


@pytest.mark.parametrize("kind", ["tls-creds-x509", "secret_keyring", "authz-simple"])
def test_handed_on(kind: str) -> None:
    with pytest.raises(ForeignDriver):
        make_object({}, f"{kind},id=o")
