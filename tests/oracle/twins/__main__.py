"""Hold the equivalents of generated VMs against virt-install, libvirt and QEMU.

    script/twins [SEED [COUNT]]      default: seed 1, 150 cases

A line for each fault, then a count; the status is 1 if there was a fault. The same seed gives the
same cases.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.oracle.twins.cases import cases, pairs_met
from tests.oracle.twins.private_libvirt import Missing, private_libvirt
from tests.oracle.twins.round_trip import go, make_files, set_out

from thinvirt.service.os_knowledge import OsKnowledge
from thinvirt.vm.twins.differences import DIFFERENCES


def main(words: list[str]) -> int:
    """Run the cases of a seed."""
    if len(words) > 2 or not all(word.isdecimal() for word in words):
        print("usage: script/twins [SEED [COUNT]]", file=sys.stderr)
        return 2
    seed, count = [int(word) for word in (*words, *("1", "150")[len(words) :])]
    os.environ["THINVIRT_ACCEL"] = "tcg"
    made = cases(seed, count)
    with tempfile.TemporaryDirectory(prefix="twins-", dir="/var/tmp") as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        make_files(folder)
        knowledge = OsKnowledge()
        trips = [set_out(case, folder, knowledge) for case in made]
        try:
            with private_libvirt(Path(scratch) / "v") as libvirt:
                go(trips, libvirt, folder)
        except Missing as error:
            print(f"cannot be run here: {error}", file=sys.stderr)
            return 3
    faults = 0
    for trip in trips:
        if trip.faults:
            faults += len(trip.faults)
            print(trip.case, *trip.faults, sep="\n    ")
    met = set().union(*(trip.meant for trip in trips))
    print(
        f"seed {seed}: {count} cases, {pairs_met(made)} pairs of choices, {faults} faults; "
        f"{len(met)} of {len(DIFFERENCES)} declared differences met"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
