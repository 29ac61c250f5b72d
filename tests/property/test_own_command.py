"""thinvirt's own command, read back, asks for the same VM."""

import argparse
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracle.twins.cases import CHOICES, spec_of

from thinvirt.cli.parsers import whole_parser
from thinvirt.vm.spec import DiskSpec, InstallSpec, SeedSpec, VmSpec
from thinvirt.vm.spec.validate import problems_of
from thinvirt.vm.twins.thinvirt_command import OwnCommand, clone_command, install_command

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG somebody"
TEXTS = st.sampled_from(("", "#cloud-config\nusers: []\n"))
SEEDS = st.one_of(
    st.none(),
    st.builds(
        SeedSpec,
        user_data=TEXTS,
        meta_data=st.sampled_from(("", '{"a": 1}')),
        network_config=TEXTS,
        ssh_keys=st.sampled_from(((), (KEY,), (KEY, f"{KEY}2"))),
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> VmSpec:
    choices = draw(
        st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})
    )
    spec = spec_of(choices)
    assume(spec is not None and not list(problems_of(spec)))
    assert spec is not None
    facts = spec.to_facts()
    for part in (facts.get("install", {}), facts.get("boot", {})):
        for key in ("media", "kernel", "initrd"):
            if key in part:
                part[key] = f"/some where/{part[key]}"
    facts["seed"] = None
    return replace(VmSpec.from_facts(facts), seed=draw(SEEDS))


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return whole_parser()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def read(command: OwnCommand, parser: argparse.ArgumentParser, folder: Path) -> argparse.Namespace:
    for name, text in command.files.items():
        (folder / name).write_text(text)
    return parser.parse_args(command.words[1:])


@settings(max_examples=120)
@given(spec=specs())
def test_install(spec: VmSpec, parser: argparse.ArgumentParser, folder: Path) -> None:
    from thinvirt.cli.install_request import request_from_args

    with chdir(folder):
        args = read(install_command("web", spec), parser, folder)
        request = request_from_args(args)
    assert (request.name, request.spec) == ("web", spec)
    assert request.firmware_asked


@settings(max_examples=120)
@given(spec=specs(), size=st.sampled_from((None, 7 << 20)), count=st.sampled_from((None, 3)))
def test_clone(
    spec: VmSpec,
    size: int | None,
    count: int | None,
    parser: argparse.ArgumentParser,
    folder: Path,
) -> None:
    from thinvirt.cli.vm_options import wishes_from_args

    first = replace(spec.disks[0], source="", backing="", size=None)
    spec = replace(
        spec,
        install=None,
        agent=True,
        rng=True,
        vmgenid=True,
        seed=spec.seed or SeedSpec(),
        disks=(first, *spec.disks[1:]),
    )
    command = clone_command("tiny@2", "web", spec, count=count, size=size, extended_l2=False)
    with chdir(folder):
        args = read(command, parser, folder)
        wishes = wishes_from_args(args)
    assert replace(wishes.spec, os=wishes.os) == spec
    assert (wishes.size, args.count, args.template, args.name) == (size, count, "tiny@2", "web")
    assert args.plain_l2
    assert wishes.firmware_asked


def test_what_an_installer_was_told(parser: argparse.ArgumentParser, folder: Path) -> None:
    from thinvirt.cli.install_request import request_from_args

    for install in (
        InstallSpec(boot="network"),
        InstallSpec(media="/a/b.iso", reboot=False),
        InstallSpec(kernel="/k,ernel", initrd="/i", kernel_args="a=b,c d"),
    ):
        spec = VmSpec(install=install, seed=None, disks=(DiskSpec(size=1 << 20),))
        with chdir(folder):
            args = read(install_command("web", spec), parser, folder)
            assert request_from_args(args).spec.install == install
    found = install_command(
        "web", VmSpec(install=InstallSpec(kernel="k", location="/a,b", kernel_args="x y"))
    )
    assert found.words[6:10] == ("--location", "/a,,b", "--extra-args", "x y")
