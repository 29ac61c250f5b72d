"""``thinvirt run``: one VM in the foreground, under any supervisor (docs/reference/run.md)."""

import argparse
import os
from typing import TYPE_CHECKING

from thinvirt.cli.main import Parser
from thinvirt.cli.output import note
from thinvirt.cli.stores import home_of
from thinvirt.cli.values import seconds
from thinvirt.cli.vm_options import add_vm_options, wishes_from_args
from thinvirt.errors import (
    NotFound,
    QemuFailed,
    RequestWrong,
    TemporaryFailure,
    ThinvirtError,
    UsageError,
)

if TYPE_CHECKING:
    from thinvirt.service.foreground import RunRequest

_STOP_TIMEOUT_S = 25.0
_READY = ("login", "qmp", "ssh", "agent")
_EPILOG = """
Without --name the VM is disposable: nothing of it is left when it ends, however it ends. With a
name it persists, and the next run of that name goes on with its disk.

SIGTERM, SIGINT or SIGHUP powers the guest off, then ends QEMU, within --stop-timeout; a second
one, a second or more later, ends it at once. When the VM is up one line of JSON is printed, and
$NOTIFY_SOCKET and --ready-fd are told.

exit status: 0 the guest powered off (or was ended on request), 1 QEMU failed,
  75 not on this host: try another, 78 the request itself is wrong
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    if isinstance(parser, Parser):
        parser.complaint = RequestWrong
    parser.add_argument("template", metavar="TEMPLATE", help="NAME, NAME@VERSION or a digest")
    parser.add_argument("--name", metavar="NAME", help="a VM that persists between runs")
    parser.add_argument(
        "--ready", choices=_READY, default="login", help="what counts as ready (login)"
    )
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="N",
        help="write a line to this descriptor when ready, and close it",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="end the VM, with status 1, if it is not ready after so many seconds",
    )
    parser.add_argument(
        "--stop-timeout",
        type=seconds,
        default=_STOP_TIMEOUT_S,
        metavar="S",
        help="seconds from the request to stop until everything is gone (%(default)g)",
    )
    parser.add_argument(
        "--require-kvm", action="store_true", help="do not run on emulation: exit with 75"
    )
    add_vm_options(parser)
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Run the VM and return the exit status; every error has a status of the contract."""
    from thinvirt.service import foreground

    try:
        request = _request(args)
        return foreground.run(home_of(args), request, say=note)
    except ThinvirtError as error:
        raise in_contract(error) from error


def in_contract(error: ThinvirtError) -> ThinvirtError:
    """Return the error as one with a status that the contract of run knows."""
    if isinstance(error, TemporaryFailure | RequestWrong | QemuFailed):
        return error
    if isinstance(error, UsageError):
        return RequestWrong(str(error), hint=error.hint)
    return TemporaryFailure(str(error), hint=error.hint)


def _request(args: argparse.Namespace) -> "RunRequest":
    from thinvirt.service.foreground import RunRequest
    from thinvirt.vm.names import check_template_name, check_vm_name

    try:
        wishes = wishes_from_args(args)
    except NotFound as error:  # a file named by an option
        raise RequestWrong(str(error), hint=error.hint) from error
    check_template_name(args.template.partition("@")[0].removeprefix("sha256:"))
    if args.name is not None:
        check_vm_name(args.name)
    return RunRequest(
        template=args.template,
        name=args.name,
        size=wishes.size,
        spec=wishes.spec,
        os=wishes.os,
        firmware_asked=wishes.firmware_asked,
        ready=args.ready,
        ready_timeout_s=args.timeout,
        stop_timeout_s=args.stop_timeout,
        require_kvm=args.require_kvm,
        notify_socket=os.environ.pop("NOTIFY_SOCKET", ""),  # ours to use, not QEMU's
        ready_fd=_descriptor(args.ready_fd),
    )


def _descriptor(number: int | None) -> int | None:
    """Return the descriptor if it is one that can be written to and given away."""
    if number is None:
        return None
    try:
        if number < 3:
            raise RequestWrong(f"--ready-fd {number} is not possible", hint="3 or above")
        os.write(number, b"")
        os.set_inheritable(number, False)
    except OSError:
        raise RequestWrong(
            f"--ready-fd {number}: that descriptor is not open for writing"
        ) from None
    return number
