"""``thinvirt ssh``: log in to a VM, or run a command in it."""

import argparse

_EPILOG = """
The user is the one the template says, else root; the key is the store's own, which every guest is
given, and those of your ssh-agent. The guest's host key is remembered at the first time.

  thinvirt ssh web-001
  thinvirt ssh web-001 -- df -h /

exit status: that of the command in the guest, 255 if SSH fails, 3 no such VM, 4 it does not run
"""
DEFAULT_USER = "root"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the VM")
    parser.add_argument("--user", "-l", metavar="USER", help="who to log in as")
    parser.add_argument(
        "--option",
        "-o",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of ssh_config(5), passed on; may be repeated",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run there, after --"
    )
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Become ssh; returns only by an error."""
    from thinvirt.cli.stores import store_of
    from thinvirt.errors import Conflict
    from thinvirt.run import ssh
    from thinvirt.service.launching import folder_of, require_running, store_key

    store = store_of(args)
    vm = store.catalog.find_vm(args.name)
    state = require_running(store, vm)
    if state.ssh_port is None:
        raise Conflict(
            f"VM '{vm.name}' has no user network that leads to its SSH port",
            hint=f"thinvirt console {vm.name}",
        )
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    argv = ssh.ssh_command(
        port=state.ssh_port,
        user=args.user or (vm.template and vm.template.facts.get("login_user")) or DEFAULT_USER,
        key=store_key(store),
        known_hosts=folder_of(store, vm).known_hosts,
        host_alias=store.identity(vm).uuid,
        options=args.option,
        command=command,
    )
    store.close()
    ssh.execute(argv)
    return 1
