"""``thinvirt image``: the drop-in for qemu-img, its command line untouched."""

import argparse

from thinvirt.image.qemu_img.table import COMMANDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare that everything belongs to the drop-in (for help and completion)."""
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
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
