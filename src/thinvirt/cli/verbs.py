"""The verbs of ``thinvirt``, declared once: help, completion and docs are made from this table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its name as typed, the module that does it, and what it does."""

    name: str
    module: str
    summary: str


_ALL = (
    Verb("template build", "thinvirt.cli.template.build", "make a template from Debian's packages"),
    Verb("template pull", "thinvirt.cli.template.pull", "fetch a public cloud image, verified"),
    Verb("template import", "thinvirt.cli.template.import_", "take an image file as a template"),
    Verb("template promote", "thinvirt.cli.template.promote", "make a template of a VM's disk"),
    Verb("template ls", "thinvirt.cli.template.ls", "list the templates"),
    Verb("template show", "thinvirt.cli.template.show", "all about one template"),
    Verb("template rm", "thinvirt.cli.template.rm", "remove templates that have no clones"),
    Verb("template verify", "thinvirt.cli.template.verify", "prove templates unchanged"),
    Verb("clone", "thinvirt.cli.clone", "make linked clones of a template, one or many"),
    Verb("advise", "thinvirt.cli.advise", "what suits an operating system: bus, cache, sizes"),
    Verb("install", "thinvirt.cli.install", "make a VM as virt-install does, with its options"),
    Verb("apply", "thinvirt.cli.apply", "make the VMs that YAML or JSON files describe"),
    Verb("run", "thinvirt.cli.run", "run one VM in the foreground, under any supervisor"),
    Verb("start", "thinvirt.cli.start", "start VMs"),
    Verb("stop", "thinvirt.cli.stop", "power VMs off, by ACPI and then by force"),
    Verb("reboot", "thinvirt.cli.reboot", "restart VMs"),
    Verb("migrate", "thinvirt.cli.migrate", "say whether a VM may be migrated live, and why"),
    Verb("rm", "thinvirt.cli.rm", "remove VMs and their disks"),
    Verb("ls", "thinvirt.cli.ls", "list the VMs"),
    Verb("show", "thinvirt.cli.show", "all about one VM"),
    Verb("wait", "thinvirt.cli.wait", "wait until VMs answer at their login, SSH or agent"),
    Verb("console", "thinvirt.cli.console", "attach to a VM's serial console"),
    Verb("ssh", "thinvirt.cli.ssh", "log in to a VM, or run a command in it"),
    Verb("screenshot", "thinvirt.cli.screenshot", "save a VM's screen as PNG"),
    Verb("image", "thinvirt.cli.image", "disk images, with the command line of qemu-img"),
    Verb("df", "thinvirt.cli.df", "what templates and clones occupy, and what sharing saves"),
    Verb("completion", "thinvirt.cli.completion", "print a shell's completion script"),
)

VERBS = {verb.name: verb for verb in _ALL}
