import json

from thinvirt.vm.seed import SeedInterface, network_config, seed_files

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here"


def files(user_data: str = "") -> dict[str, str]:
    return dict(
        seed_files(
            instance_id="6ba7b811-9dad-11d1-80b4-00c04fd430c8",
            hostname="web-001",
            ssh_keys=[KEY],
            interfaces=[SeedInterface("52:54:00:AA:00:01")],
            user_data=user_data,
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
