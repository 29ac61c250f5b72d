"""``python -m thinvirt``: the same as the ``thinvirt`` command."""

import sys

from thinvirt.cli.entry import main

sys.exit(main())
