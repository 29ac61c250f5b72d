"""Print every operating system as libosinfo sees it, as JSON. Run by the system's Python."""

import json
import sys
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Libosinfo", "1.0")
from gi.repository import Libosinfo  # type: ignore[import-not-found]  # noqa: E402


def each(listed: Any) -> list[Any]:
    return [listed.get_nth(i) for i in range(listed.get_length())] if listed else []


def date(value: Any) -> str:
    if value is None:
        return ""
    return f"{value.get_year():04d}-{int(value.get_month()):02d}-{value.get_day():02d}"


def resources(listed: Any) -> list[list[Any]]:
    return sorted(
        [r.get_architecture(), r.get_n_cpus(), r.get_cpu(), r.get_ram(), r.get_storage()]
        for r in each(listed)
    )


def facts(system: Any) -> dict[str, Any]:
    return {
        "short_ids": list(dict.fromkeys(system.get_short_id_list())),
        "name": system.get_name(),
        "vendor": system.get_vendor() or "",
        "version": system.get_version() or "",
        "family": system.get_family() or "",
        "distro": system.get_distro() or "",
        "codename": system.get_codename() or "",
        "release_date": date(system.get_release_date()),
        "eol_date": date(system.get_eol_date()),
        "status": system.get_release_status().value_nick,
        "devices": sorted(device.get_id() for device in each(system.get_all_devices())),
        "minimum": resources(system.get_minimum_resources()),
        "recommended": resources(system.get_recommended_resources()),
        "maximum": resources(system.get_maximum_resources()),
        "network-install": resources(system.get_network_install_resources()),
        "firmware": sorted(
            [f.get_architecture(), f.get_firmware_type(), f.is_supported()]
            for f in each(system.get_complete_firmware_list())
        ),
        "images": sorted(
            [i.get_architecture(), i.get_format() or "", i.get_url() or "", i.get_cloud_init()]
            for i in each(system.get_image_list())
        ),
        "kernel_url_argument": system.get_kernel_url_argument() or "",
        "cloud_image_username": system.get_cloud_image_username() or "",
        "media": len(each(system.get_media_list())),
    }


def main() -> None:
    loader = Libosinfo.Loader()
    loader.process_default_path()
    systems = each(loader.get_db().get_os_list())
    json.dump({system.get_id(): facts(system) for system in systems}, sys.stdout)


main()
