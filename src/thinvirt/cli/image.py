"""``thinvirt image``: the drop-in for qemu-img, its command line untouched."""

from __future__ import annotations

from thinvirt.image.qemu_img.table import COMMANDS

TYPE_CHECKING = False  # argparse and typing cost more than most commands of the drop-in
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare that everything belongs to the drop-in (for help and completion)."""
    from argparse import REMAINDER

    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument(
        "rest",
        nargs=REMAINDER,
        metavar="…",
        help="as for qemu-img: thinvirt image --help, docs/reference/qemu-img.md",
    )


def run(args: argparse.Namespace) -> int:
    """Run a command that was parsed; `run_words` is what the command line comes to."""
    return run_words([args.command, *args.rest])


def run_words(words: list[str]) -> int:
    """Run the drop-in with this command line and return its exit status."""
    from thinvirt.image.qemu_img.main import main

    return main(["thinvirt image", *words])
