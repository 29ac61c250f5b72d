"""A tiny process that waits for the end of one QEMU and then has something done about it.

Executed as a file, in a bare interpreter, for as long as an installation runs: so it imports
nothing of weight before the end. It holds no lock and no connection; if it is killed, the next
command does what it would have done.
"""

import os
import select
import sys


def main(words: list[str]) -> int:
    """Wait, then call what is named.

    Args:
        words: the module path of thinvirt, the descriptor of QEMU's pidfd, "module:function", and
            text for that function; its result is the exit status.
    """
    path, pidfd, finish, *arguments = words
    poll = select.poll()
    poll.register(int(pidfd), select.POLLIN)
    poll.poll()
    os.close(int(pidfd))
    sys.path[:] = path.split(os.pathsep)
    from importlib import import_module

    module, _, function = finish.partition(":")
    try:
        last_step = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:  # upgraded or removed meanwhile
        sys.stderr.write(f"thinvirt: {error}; the next command does it\n")
        return 1
    status: int = last_step(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
