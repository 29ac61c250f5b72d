"""Every VM in other tools' words, before it is made and after."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from thinvirt.errors import Conflict, NotFound
from thinvirt.service.drives import chain, disk_layers
from thinvirt.service.firmware import firmware_build, firmware_files
from thinvirt.service.launch_facts import (
    acceleration,
    folder_of,
    mac_addresses,
    memory_mib,
    qemu_program,
    with_kernel_in,
    with_own_kernel,
)
from thinvirt.service.twin_needs import (
    copied_disks,
    copy_commands,
    create_commands,
    file_commands,
    files_to_be_there,
    helpers,
    new_name,
    own_disk_commands,
    seed_words,
)
from thinvirt.store import Store, Vm
from thinvirt.vm.qemu import (
    BridgePort,
    DiskLayer,
    FirmwareFiles,
    LanPort,
    Launch,
    qemu_argv,
)
from thinvirt.vm.spec import DiskSpec, NetworkSpec, VmSpec
from thinvirt.vm.twins.thinvirt_command import OwnCommand, clone_command, install_command

if TYPE_CHECKING:
    from thinvirt.service.clones import ClonePlan
    from thinvirt.service.installing import InstallPlan
    from thinvirt.service.new_disks import NewDisk

Form = Literal["thinvirt", "virt-install", "xml", "qemu", "qemu-img"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Twin:
    """One equivalent of a VM.

    Attributes:
        form: in whose words.
        words: a command, the program first; () for a document.
        text: the document, or the commands, quoted for a shell and one option a line.
        needs: what has to be there before it is run, in words; a command each where there is one.
    """

    form: Form
    words: tuple[str, ...]
    text: str
    needs: tuple[str, ...] = ()


def twin_of(store: Store, vm: Vm, form: Form, *, one_line: bool = False) -> Twin:
    """Return a VM's equivalent in the words of another tool.

    Args:
        store: the VM's.
        vm: which.
        form: in whose words.
        one_line: give a command on one line.

    Raises:
        NotFound: a file of the VM is not there.
        Conflict: there is no such form of this VM.
    """
    if form == "qemu-img" and vm.template is not None:
        from thinvirt.service.clones import qemu_img_twin

        text = qemu_img_twin(store, vm)
        return Twin(form, (), f"{text}\n")
    if form == "qemu-img":
        return Twin(form, (), "".join(f"{command}\n" for command in own_disk_commands(store, vm)))
    if form == "thinvirt":
        own = _own_command(vm)
        return _own_twin(own, (*file_commands(vm, own), *copied_disks(vm)), one_line=one_line)
    launch = vm_launch(store, vm)
    needs = (f"thinvirt show {vm.name} --seed {launch.seed}",) if launch.seed else ()
    return _twin(launch, form, (*needs, *helpers(launch, form)), one_line=one_line)


def twins_of_plan(
    store: Store, planned: "ClonePlan", form: Form, *, one_line: bool = False
) -> list[Twin]:
    """Return the equivalents of VMs that would be made, one for each, in order.

    Their disks are thought to be in the current folder, where `qemu-img` makes them; UUID and
    hardware addresses are left to the tool.
    """
    if form == "thinvirt":
        own = clone_command(
            planned.template.ref,
            _common_name(planned.names),
            planned.spec,
            count=None if len(planned.names) == 1 else len(planned.names),
            size=planned.virtual_size,
            extended_l2=planned.extended_l2,
        )
        return [_own_twin(own, tuple(files_to_be_there(own)), one_line=one_line)]
    from thinvirt.service.clones import qemu_img_commands

    here, found = Path.cwd(), []
    for name, overlay in zip(planned.names, qemu_img_commands(store, planned), strict=True):
        commands = (overlay, *create_commands(planned.new_disks, name, here))
        if form == "qemu-img":
            found.append(Twin(form, (), "".join(f"{command}\n" for command in commands)))
            continue
        launch = plan_launch(store, planned, name)
        needs = (*commands, *helpers(launch, form), *seed_words(launch))
        found.append(_twin(launch, form, needs, one_line=one_line))
    return found


def twin_of_install(planned: "InstallPlan", form: Form, *, one_line: bool = False) -> Twin:
    """Return the equivalent of a VM that would be installed or imported.

    New disks of the store are thought to be in the current folder.
    """
    here = Path.cwd()
    if form == "thinvirt":
        own = install_command(planned.name, planned.spec)
        return _own_twin(own, tuple(files_to_be_there(own)), one_line=one_line)
    commands = tuple(create_commands(planned.new_disks, planned.name, here))
    if form == "qemu-img":
        return Twin(form, (), "".join(f"{command}\n" for command in commands))
    disks: list[tuple[DiskLayer, ...]] = []
    new = {disk.number: disk for disk in planned.new_disks}
    for number, disk in enumerate(planned.spec.disks):
        path = here / new_name(planned.name, number)
        disks.append(_planned_layers(disk, new.get(number), path))
    firmware = None
    if planned.spec.firmware == "efi":
        code = firmware_build(planned.spec).code
        firmware = FirmwareFiles(code, str(here / f"{planned.name}.vars.fd"))
    launch = _launch(
        planned.name,
        with_kernel_in(planned.spec, here),
        uuid="",
        memory=memory_mib(planned.spec, None),
        disks=tuple(disks),
        macs=tuple(card.mac for card in planned.spec.cards),
        firmware=firmware,
        lan_ports=_new_ports(planned.name, planned.spec),
        console_log="",
    )
    needs = (*commands, *copy_commands(planned), *helpers(launch, form), *seed_words(launch))
    return _twin(launch, form, needs, one_line=one_line)


def _planned_layers(disk: DiskSpec, made: "NewDisk | None", path: Path) -> tuple[DiskLayer, ...]:
    """Return the backing chain of a drive of a VM that is not made yet.

    Args:
        disk: what was asked for.
        made: the disk that would be made; None: it is there, or a drive is empty.
        path: where one of the store is thought to be.
    """
    if made is None:
        return chain(Path(disk.source), disk) if disk.source else ()
    below = chain(made.backing, DiskSpec(format=disk.backing_format)) if made.backing else ()
    return DiskLayer(str(made.path or path), "raw" if made.format == "raw" else "qcow2"), *below


def _own_command(vm: Vm) -> OwnCommand:
    if vm.template is None:
        return install_command(vm.name, vm.spec)
    batch = vm.batch
    return clone_command(
        vm.template.ref,
        vm.name,
        vm.spec,
        size=batch.virtual_size,
        extended_l2=batch.extended_l2,
    )


def _own_twin(own: OwnCommand, needs: tuple[str, ...], *, one_line: bool) -> Twin:
    from thinvirt.vm.twins import shell

    text = shell.one_line(own.words) if one_line else shell.one_option_a_line(own.words)
    return Twin("thinvirt", own.words, f"{text}\n", needs)


def _common_name(names: Sequence[str]) -> str:
    """Return the beginning of the names of a batch, as it was given."""
    return names[0] if len(names) == 1 else names[0].rpartition("-")[0]


def _new_ports(name: str, spec: VmSpec) -> tuple[LanPort, ...]:
    return tuple(
        LanPort(f"{card.name}/{name}-{n}.sock", f"{card.name}/switch.sock")
        for n, card in enumerate(spec.cards)
        if card.kind == "lan"
    )


def vm_launch(store: Store, vm: Vm) -> Launch:
    """Return the values of a VM's equivalents: those of its next start.

    The seed's disc is in the current folder: while the VM does not run there is none.
    """
    spec = with_own_kernel(store, vm, vm.spec)
    variables = store.layout.own_files(vm.batch.id, vm.name).variables
    folder = folder_of(store, vm)
    ports = [store.layout.network(card.name) for card in spec.cards if card.kind == "lan"]
    return _launch(
        vm.name,
        spec,
        uuid=store.identity(vm).uuid,
        memory=memory_mib(spec, vm.template),
        disks=disk_layers(store, vm, spec),
        macs=mac_addresses(store, vm, spec),
        firmware=firmware_files(spec, variables),
        lan_ports=tuple(
            LanPort(f"{port}/{vm.id}-{n}.sock", f"{port}/switch.sock")
            for n, port in enumerate(ports)
        ),
        console_log=str(folder.console_log),
    )


def plan_launch(store: Store, planned: "ClonePlan", name: str) -> Launch:
    """Return the values of the equivalents of a VM that is not made yet."""
    template, spec, here = planned.template, planned.spec, Path.cwd()
    base = DiskLayer(
        str(store.template_image(template)), "raw" if template.format == "raw" else "qcow2"
    )
    first = (DiskLayer(f"{here}/{name}.qcow2"), base)
    new = {disk.number: disk for disk in planned.new_disks}
    others = tuple(
        _planned_layers(disk, new.get(number), here / new_name(name, number))
        for number, disk in enumerate(spec.disks)
        if number
    )
    firmware = None
    if spec.firmware == "efi":
        code = firmware_build(spec).code
        firmware = FirmwareFiles(code, f"{here}/{name}.vars.fd")
    return _launch(
        name,
        spec,
        uuid="",
        memory=memory_mib(spec, template),
        disks=(first, *others),
        macs=("",) * len(spec.cards),
        firmware=firmware,
        lan_ports=_new_ports(name, spec),
        console_log="",
    )


def _launch(
    name: str,
    spec: VmSpec,
    *,
    uuid: str,
    memory: int,
    disks: tuple[tuple[DiskLayer, ...], ...],
    macs: tuple[str, ...],
    firmware: FirmwareFiles | None,
    lan_ports: tuple[LanPort, ...],
    console_log: str,
) -> Launch:
    install, here = spec.install, Path.cwd()  # libvirt wants whole paths
    return Launch(
        name=name,
        uuid=uuid,
        spec=spec,
        memory_mib=memory,
        accel=acceleration().name,
        disks=disks,
        media=DiskLayer(install.media, "raw") if install is not None and install.media else None,
        seed=f"{here}/{name}-seed.iso" if spec.seed is not None else "",
        macs=macs,
        lan_ports=lan_ports,
        bridge_ports=tuple(
            BridgePort(card.name) for card in spec.cards if card.kind in ("bridge", "network")
        ),
        firmware=firmware,
        tpm=f"{here}/{name}-tpm.sock" if spec.tpm else "",
        secret=f"{here}/{name}-password" if spec.graphics.password else "",
        qmp=f"{here}/{name}-qmp.sock",
        events=f"{here}/{name}-events.sock",
        console=f"{here}/{name}-console.sock",
        agent=f"{here}/{name}-agent.sock",
        console_log=console_log,
        program=qemu_program(),
    )


def _bridge(card: NetworkSpec) -> str:
    """Return the bridge a card is on: that of a libvirt network, or its name if it is not up."""
    if card.kind == "bridge":
        return card.name
    from thinvirt.run.bridge import bridge_of_network

    try:
        return bridge_of_network(card.name)
    except (NotFound, Conflict):
        return card.name


def _twin(launch: Launch, form: Form, needs: Sequence[str], *, one_line: bool) -> Twin:
    from thinvirt.vm.twins import shell

    if form == "xml":
        from thinvirt.vm.twins.libvirt_xml import libvirt_xml

        return Twin(form, (), libvirt_xml(launch, os_id=_os_id(launch.spec)), tuple(needs))
    if form == "qemu":
        ports = tuple(
            BridgePort(_bridge(card))
            for card in launch.spec.cards
            if card.kind in ("bridge", "network")
        )
        words = qemu_argv(replace(launch, bridge_ports=ports))
    else:
        from thinvirt.vm.twins.virt_install import virt_install_words

        words = virt_install_words(launch)
    text = shell.one_line(words) if one_line else shell.one_option_a_line(words)
    return Twin(form, tuple(words), f"{text}\n", tuple(needs))


def _os_id(spec: VmSpec) -> str:
    """Return how osinfo-db identifies the guest's OS, "" if it does not know it."""
    if not spec.os:
        return ""
    from thinvirt.service.os_knowledge import OsKnowledge

    try:
        return OsKnowledge().find(spec.os).id
    except NotFound:
        return ""


def write_seed(store: Store, vm: Vm, path: Path) -> None:
    """Write the disc that a VM is given at its starts, for an equivalent of it.

    Raises:
        Conflict: the VM is given none.
    """
    from thinvirt.run.seed_disc import write_seed_disc
    from thinvirt.service.launching import seed_of

    files = seed_of(store, vm)
    if not files:
        raise Conflict(f"VM '{vm.name}' is given no seed")
    write_seed_disc(path, files)
