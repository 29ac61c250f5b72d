"""How far a boot has come, told from logs as each kind of guest prints them."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.vm.stages import (
    AGENT,
    FIRMWARE,
    KERNEL,
    LOGIN,
    SSH,
    STAGES,
    BootWatch,
    Source,
)

LOGS = Path(__file__).parents[2] / "data" / "console-logs"


def watched(data: bytes, *, size: int = 1 << 20, expected: str | None = None) -> BootWatch:
    watch = BootWatch(expected_hostname=expected)
    for start in range(0, len(data), size):
        watch.feed(data[start : start + size], start / 1000)
    return watch


# The stage a log ends in, the name in its prompt, and the stages it came through in this boot.
EXPECTED = {
    "debian-systemd-grub": ("login", "web-001", "boot-loader kernel init cloud-init network login"),
    "ubuntu-ovmf": (
        "login",
        "web-002",
        "firmware boot-loader kernel init cloud-init network login",
    ),
    "alpine-openrc-syslinux": ("login", "web-003", "boot-loader kernel init network login"),
    "cirros-metadata-wait": ("cloud-init", None, "kernel init network cloud-init"),
    "cirros-login": ("login", "web-004", "kernel init network cloud-init login"),
    "fedora-grub": ("login", "localhost", "boot-loader kernel init network login"),
    "openbsd": ("login", "bsd-001.my.domain", "login"),
    "interleaved-prompt": ("login", "web-005", "kernel init login"),
    "reboot-into-panic": ("kernel", None, "firmware kernel"),
    "debian-quiet": ("login", "deb", "cloud-init login"),
    "tiny": ("login", "web-001", "init cloud-init network login"),
    "not-a-prompt": ("cloud-init", None, "kernel init cloud-init"),
}


@pytest.mark.parametrize("size", [1 << 20, 64, 7, 1])
@pytest.mark.parametrize("name", [path.stem for path in sorted(LOGS.glob("*.log"))])
def test_recorded_boots_are_followed_however_they_are_cut(name: str, size: int) -> None:
    watch = watched((LOGS / f"{name}.log").read_bytes(), size=size)
    stage, hostname, way = EXPECTED[name]
    assert (watch.stage.id, watch.hostname, " ".join(watch.reached)) == (stage, hostname, way)


@given(st.data())
def test_any_cut_gives_the_same_end(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EXPECTED)))
    log = (LOGS / f"{name}.log").read_bytes()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(log)), max_size=12)))
    watch = BootWatch()
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        watch.feed(log[start:end], 1.0)
    whole = watched(log)
    assert (watch.stage, watch.hostname, list(watch.reached), watch.last_lines()) == (
        whole.stage,
        whole.hostname,
        list(whole.reached),
        whole.last_lines(),
    )


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    watch = BootWatch()
    for number, chunk in enumerate(chunks):
        watch.feed(chunk, float(number), list(Source)[number % 2])
    assert watch.bytes_seen == sum(map(len, chunks))
    assert all("\x1b" not in line and "\0" not in line for line in watch.last_lines())


@pytest.mark.parametrize(
    "text",
    [
        "web-001 login: ",
        "web-001 login:",
        "\r\r\nweb-001 login: ",
        "\x1b[0m\x1b[?25hweb-001 login: \x1b[6n",
        "\x00\x00web-001 login: ",
        "[  OK  ] something\r\n\rweb-001 login: ",
        "[ 1.000000] x\nweb-001 login: root (automatic login)\r\n\r\n",
        "web-001 login: [   12.345678] random: crng init done\r\n",
        "web-001 login: [  OK  ] Finished something.\r\n[  OK  ] Reached target x.\r\n",
        "web-001 login: ci-info: no authorized SSH keys\r\nci-info: ++++\r\n",
        "web-001 login: \r\n\r\nweb-001 login: ",
        "web-001 login: root\r\nPassword: ",
        "web-001 login: somebo",
        "web-001 login: root\r\nPassword: \r\nwelcome\r\n# ",
        "we[   12.345678] x\r\nb-001 lo[   13.345678] y\r\ngin: ",
    ],
)
def test_a_prompt_is_one(text: str) -> None:
    watch = watched(text.encode())
    assert (watch.stage, watch.hostname) == (LOGIN, "web-001")


@pytest.mark.parametrize(
    "text",
    [
        "Last login: ",
        "Last login: Mon Nov 23 00:41:00 2026 from 10.0.2.2\r\n",
        "cloud-init[7]: web login: ",
        "the web-001 login: ",
        "web-001 login: is at http://192.0.2.1/\r\n",
        "login: foo bar\r\n",
        "webmaster@web-001 login: ",
        "web-001 logi",
        "Failed login: ",
    ],
)
def test_ordinary_text_is_no_prompt(text: str) -> None:
    assert watched(text.encode()).stage is not LOGIN
    assert watched(text.encode(), size=1).stage is not LOGIN


def test_a_word_after_a_prompt_needs_a_proof_that_the_prompt_stood_there() -> None:
    text = b"web-001 login: foo\r\nanything but a question for the password\r\n"
    assert watched(text).stage is FIRMWARE
    assert watched(text, size=1).stage is LOGIN  # it was seen waiting, before somebody typed


def test_a_prompt_typed_at_is_known_by_the_name_expected() -> None:
    text = b"user login: root\r\n# uptime\r\n up 1 min\r\n# "
    assert watched(text).stage is FIRMWARE
    assert watched(text, expected="user").stage is LOGIN


def test_the_prompt_stays_reached_while_somebody_works_there() -> None:
    watch = watched(b"web-001 login: ")
    watch.feed(
        b"root\r\nPassword: \r\nweb-001:~# cat /proc/version\r\nLinux version 6.1.0\r\n", 5.0
    )
    watch.feed(b"[  OK  ] Started something late.\r\ncloud-init[4]: finished\r\n", 6.0)
    assert watch.at_login
    assert watch.boots == 1


def test_a_nameless_guest_has_no_hostname() -> None:
    assert watched(b"(none) login: ").stage is LOGIN
    assert watched(b"(none) login: ").hostname is None
    assert watched(b"login: ").hostname is None


def test_each_stage_keeps_its_first_time_and_proof() -> None:
    watch = BootWatch()
    watch.feed(b"SeaBIOS (version 1.16)\n", 0.1, Source.FIRMWARE)
    watch.feed(b"Booting from 0000:7c00\n", 0.4, Source.FIRMWARE)
    watch.feed(b"[    0.000000] Linux version 6.1\r\n", 1.0)
    watch.feed(b"[    0.100000] more\r\n", 2.0)
    assert {name: seen.at_s for name, seen in watch.reached.items()} == {
        "firmware": 0.1,
        "boot-loader": 0.4,
        "kernel": 1.0,
    }
    assert watch.reached["kernel"].line == "[    0.000000] Linux version 6.1"
    assert watch.reached["firmware"].source is Source.FIRMWARE


def test_a_reboot_that_only_the_firmware_tells_of() -> None:
    watch = BootWatch()
    watch.feed(b"SeaBIOS (version 1.16)\n", 0.0, Source.FIRMWARE)
    watch.feed(b"web-001 login: ", 5.0)
    assert watch.feed(b"SeaBIOS (version 1.16)\n", 9.0, Source.FIRMWARE)
    assert (watch.stage, watch.boots, watch.hostname) == (FIRMWARE, 2, None)
    watch.feed(b"\r\nweb-001 login: ", 14.0)
    assert (watch.stage, watch.reached["login"].at_s) == (LOGIN, 14.0)


def test_cloud_init_and_network_take_turns() -> None:
    watch = BootWatch()
    watch.feed(b"udhcpc: started\r\n", 1.0)
    assert watch.stage.id == "network"
    watch.feed(b"failed 1/20: up 7.14. request failed\r\n", 2.0)
    assert watch.stage.id == "cloud-init"
    watch.feed(b"[    8.100000] kernel words change nothing\r\n", 3.0)
    assert watch.stage.id == "cloud-init"


def test_memory_is_bounded_and_the_middle_of_a_flood_is_passed_over() -> None:
    watch = BootWatch(keep_lines=5)
    watch.feed(b"x" * 3_000_000, 1.0)
    assert sum(map(len, watch.last_lines())) < 10_000
    watch.feed(b"\nweb-001 login: ", 2.0)
    for _ in range(50):
        watch.feed(b"chatter of an application\n" * 40_000, 3.0)
    assert watch.at_login
    assert len(watch.last_lines()) == 5
    watch.feed(b"chatter\n" * 40_000 + b"\n[    0.000000] Linux version 6\n" + b"[ 1.0] x\n", 4.0)
    assert watch.stage is KERNEL
    assert sys.getsizeof(watch._readers[Source.SERIAL]._raw) < 10_000


def test_overwritten_lines_show_what_a_terminal_would_last_have_shown() -> None:
    watch = watched(b"10%\r50%\r100%\r\nfirst\r\n\r\nsecond\r\npar")
    assert watch.last_lines(3) == ["first", "second", "par"]


def test_the_stages_are_sound_data() -> None:
    ids = [stage.id for stage in (*STAGES, SSH, AGENT)]
    assert len(set(ids)) == len(ids)
    assert [stage.rank for stage in STAGES] == sorted(stage.rank for stage in STAGES)
    for stage in STAGES:
        assert stage.title
        assert stage.waits_for
        for pattern in (*stage.fresh, *stage.evidence, *stage.firmware_fresh):
            re.compile(pattern)
