import json

import pytest

from thinvirt.vm.seed import SeedInterface, further_meta_data, network_config, seed_files
from thinvirt.vm.spec import SeedSpec, VmSpec
from thinvirt.vm.spec.validate import problems_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here"


def files(user_data: str = "", meta_data: str = "", own_network: str = "") -> dict[str, str]:
    return dict(
        seed_files(
            instance_id="6ba7b811-9dad-11d1-80b4-00c04fd430c8",
            hostname="web-001",
            ssh_keys=[KEY],
            interfaces=[SeedInterface("52:54:00:AA:00:01")],
            user_data=user_data,
            meta_data=meta_data,
            own_network=own_network,
        )
    )


def test_meta_data_is_json_with_all_that_small_guests_read() -> None:
    assert json.loads(files()["meta-data"]) == {
        "instance-id": "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "local-hostname": "web-001",
        "hostname": "web-001",
        "public-keys": [KEY],
    }


def test_user_data_is_passed_on_unchanged() -> None:
    script = "#!/bin/sh\r\necho 'ä'\n"
    assert files(script)["user-data"] == script
    assert files()["user-data"].startswith("#cloud-config\n")


def test_further_meta_data_is_merged_and_never_says_who_the_guest_is() -> None:
    told = json.loads(files(meta_data='{"role": "db", "instance-id": "x"}')["meta-data"])
    assert told["role"] == "db"
    assert told["instance-id"].startswith("6ba7b811")


@pytest.mark.parametrize("text", ["role: db", "[1]", '{"role": '])
def test_meta_data_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="meta-data is"):
        further_meta_data(text)
    (problem,) = problems_of(VmSpec(seed=SeedSpec(meta_data=text)))
    assert problem.place == "seed.meta_data"


def test_network_config_of_ones_own_is_passed_on() -> None:
    text = "version: 2\nethernets: {}\n"
    assert files(own_network=text)["network-config"] == text


def test_cards_are_matched_by_address() -> None:
    config = network_config(
        [SeedInterface("52:54:00:AA:00:01"), SeedInterface("52:54:01:AA:00:01", "10.128.0.7")]
    )
    assert config == {
        "version": 2,
        "ethernets": {
            "nic0": {"match": {"macaddress": "52:54:00:aa:00:01"}, "dhcp4": True},
            "nic1": {
                "match": {"macaddress": "52:54:01:aa:00:01"},
                "addresses": ["10.128.0.7/9"],
                "optional": True,
            },
        },
    }
