"""Where the command begins: with what a Ctrl-C does while the rest is being loaded."""

import signal
import sys


def main() -> int:
    """Run the command line of this process and return the exit status.

    Loading takes a while on a busy host. An interrupt meanwhile ends the process by that signal,
    silently, instead of raising inside some library's import.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] == ["image"]:  # started by the hundred: without all that verbs need
        from thinvirt.cli.image import run_words

        signal.signal(signal.SIGINT, handler)
        return run_words(sys.argv[2:])
    from thinvirt.cli import main as command

    signal.signal(signal.SIGINT, handler)
    return command.main()
