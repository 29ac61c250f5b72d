"""The texts of a NoCloud seed: what a guest is told of itself at its first boot.

``meta-data`` and ``network-config`` are written as JSON, which is valid YAML: cloud-init reads both
alike, and it is the only form CirrOS and small guests understand.
(cloud-init's documentation, "NoCloud" and "Networking config version 2".)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VOLUME_LABEL = "cidata"
LAN_PREFIX_LENGTH = 9  # 10.128.0.0/9: an address for every VM id a store can ever give
EMPTY_USER_DATA = "#cloud-config\n{}\n"


@dataclass(frozen=True, slots=True)
class SeedInterface:
    """One network card as the guest shall set it up.

    Attributes:
        mac: its hardware address, by which the guest finds it whatever it is called there.
        address: a fixed IPv4 address of a private LAN; None: DHCP.
    """

    mac: str
    address: str | None = None


def seed_files(
    *,
    instance_id: str,
    hostname: str,
    ssh_keys: Sequence[str],
    interfaces: Sequence[SeedInterface],
    user_data: str = "",
    meta_data: str = "",
    own_network: str = "",
) -> Mapping[str, str]:
    """Return the files of the seed disc, by name.

    Args:
        instance_id: another one makes the guest take its next boot for its first.
        hostname: the VM's name.
        ssh_keys: public keys for the guest's user; cloud-init gives them to its default user.
        interfaces: the network cards.
        user_data: passed on as it is; cloud-init complains of a seed without one, so an empty
            configuration stands in.
        meta_data: further meta-data, a JSON object (`further_meta_data`), "" for none; where it
            has a key of ours, ours counts: a guest whose instance-id was another's would take its
            first boot for a later one.
        own_network: network configuration that is passed on instead of ours, "" for ours.
    """
    further = further_meta_data(meta_data) if meta_data else {}
    return {
        "meta-data": _json(
            further
            | {
                "instance-id": instance_id,
                "local-hostname": hostname,
                "hostname": hostname,
                "public-keys": list(ssh_keys),
            }
        ),
        "network-config": own_network or _json(network_config(interfaces)),
        "user-data": user_data or EMPTY_USER_DATA,
    }


def further_meta_data(text: str) -> dict[str, object]:
    """Return the keys of meta-data that somebody wrote.

    Raises:
        ValueError: it is no JSON object; the message says so for people.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"meta-data is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError('meta-data is JSON, and no object: {"key": "value", …}')
    return found


def network_config(interfaces: Sequence[SeedInterface]) -> dict[str, object]:
    """Return the network configuration, version 2; cards are matched by hardware address."""
    ethernets: dict[str, object] = {}
    for number, interface in enumerate(interfaces):
        card: dict[str, object] = {"match": {"macaddress": interface.mac.lower()}}
        if interface.address is None:
            card["dhcp4"] = True
        else:
            card["addresses"] = [f"{interface.address}/{LAN_PREFIX_LENGTH}"]
            card["optional"] = True  # the boot need not wait for a LAN where nobody is yet
        ethernets[f"nic{number}"] = card
    return {"version": 2, "ethernets": ethernets}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
