"""The commands by name, and the options before them."""

from __future__ import annotations

from thinvirt.image.qemu_img.getopt import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

COMMANDS = (
    "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info",
    "map", "measure", "rebase", "resize", "snapshot",
)  # fmt: skip

OPTIONS = (
    Option("help", "-h --help", "", "show the help and exit"),
    Option("version", "-V --version", "", "show the version and exit"),
    Option(
        "trace", "-T --trace", "SPEC", "tracing; accepted, there is nothing to trace", "accepted"
    ),
)


def command_module(name: str) -> ModuleType:
    """Return the module of a command; loads no other."""
    # importlib.import_module does the same, and takes longer to be imported itself.
    module: ModuleType = __import__(f"thinvirt.image.qemu_img.commands.{name}", fromlist=["run"])
    return module
