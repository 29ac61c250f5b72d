"""The published schema takes and refuses what the reader does, as far as types go."""

from typing import Any

import jsonschema
import pytest

from thinvirt.vm.file.document import Document, Finding
from thinvirt.vm.file.entries import read_entries
from thinvirt.vm.file.schema import file_schema

EXAMPLES: list[tuple[Any, bool]] = [
    ({"name": "a", "template": "tiny"}, True),
    ({"vms": [{"name": "a", "template": "tiny", "count": 3, "memory": "512M"}]}, True),
    ({"name": "a", "template": "tiny", "disks": [{"bus": "sata", "size": "2G"}]}, True),
    ({"name": "a", "template": "tiny", "seed": None, "networks": []}, True),
    ({"name": "a", "template": "tiny", "vcpus": "two"}, False),
    ({"name": "a", "template": "tiny", "vcpus": True}, False),
    ({"name": "a", "template": "tiny", "disks": [{"cashe": "none"}]}, False),
    ({"name": "a", "template": "tiny", "disks": [{"bus": "floppy"}]}, False),
    ({"name": "a", "template": "tiny", "forwards": [{"host_port": 80}]}, False),
    ({"template": "tiny"}, False),
    ({"vms": {}}, False),
    ({"vms": [], "more": 1}, False),
    ([], False),
]


@pytest.mark.parametrize(("value", "good"), EXAMPLES)
def test_the_schema_judges_as_the_reader(value: Any, good: bool) -> None:
    findings: list[Finding] = []
    read_entries(Document(value), "x", findings)
    validator = jsonschema.Draft202012Validator(file_schema())
    assert (not findings, validator.is_valid(value)) == (good, good)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(file_schema())
