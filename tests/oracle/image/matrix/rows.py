"""Which kinds of images there are, and few of them that hold every pair of properties."""

import random
from dataclasses import dataclass
from itertools import combinations, product

FACTORS: dict[str, tuple[object, ...]] = {
    "cluster_size": (512, 4096, 65536, 2 << 20),
    "refcount_bits": (1, 2, 4, 8, 16, 32, 64),
    "compat": ("1.1", "0.10"),
    "extended_l2": (False, True),
    "compression_type": ("zlib", "zstd"),
    "compressed": (False, True),
    "data_file": ("", "plain", "raw"),
    "encryption": ("", "aes", "luks"),
    "chain": ("", "raw", "qcow2", "qcow2>raw", "qcow2>qcow2>raw"),
    "writers": ("ours", "theirs", "both"),
}
_NAMES = tuple(FACTORS)


@dataclass(frozen=True)
class Row:
    """One kind of image, and who writes it. `chain` is the formats below it, nearest first."""

    cluster_size: int
    refcount_bits: int
    compat: str
    extended_l2: bool
    compression_type: str
    compressed: bool
    data_file: str
    encryption: str
    chain: str
    writers: str

    def __str__(self) -> str:
        parts = [f"{self.cluster_size}", f"r{self.refcount_bits}", f"v{self.compat}"]
        parts += ["ext"] if self.extended_l2 else []
        parts += [self.compression_type] + (["compressed"] if self.compressed else [])
        parts += [f"data-{self.data_file}"] if self.data_file else []
        parts += [part for part in (self.encryption, self.chain, self.writers) if part]
        return "-".join(parts)

    @property
    def is_possible(self) -> bool:
        """Whether there are such images."""
        old = self.compat == "0.10"
        return not (
            (old and (self.refcount_bits != 16 or self.extended_l2 or self.data_file))
            or (old and self.compression_type != "zlib")
            or (self.extended_l2 and self.cluster_size < 16384)
            or (self.compressed and (self.data_file or self.encryption))
            or (self.data_file == "raw" and self.chain)
            or (self.data_file and self.encryption)
        )

    @property
    def options(self) -> str:
        """What to give to ``-o``."""
        given = [f"cluster_size={self.cluster_size}", f"compat={self.compat}"]
        given += [f"refcount_bits={self.refcount_bits}"] if self.compat != "0.10" else []
        given += ["extended_l2=on"] if self.extended_l2 else []
        given += ["compression_type=zstd"] if self.compression_type == "zstd" else []
        given += ["data_file=image.data"] if self.data_file else []
        given += ["data_file_raw=on"] if self.data_file == "raw" else []
        if self.encryption:
            given += [f"encrypt.format={self.encryption}", "encrypt.key-secret=k"]
        given += ["encrypt.iter-time=20"] if self.encryption == "luks" else []
        return ",".join(given)


def _pairs(values: tuple[object, ...]) -> set[tuple[object, ...]]:
    named = list(zip(_NAMES, values, strict=True))
    return {(*one, *other) for one, other in combinations(named, 2)}


def every_row() -> list[Row]:
    """Return all there are: thousands."""
    rows = (Row(*values) for values in product(*FACTORS.values()))  # type: ignore[arg-type]
    return [row for row in rows if row.is_possible]


def pairwise(seed: int) -> list[Row]:
    """Return rows that together hold every possible pair of values; other ones for each seed."""
    source = random.Random(seed)
    rows = every_row()
    source.shuffle(rows)
    rows = rows[:400]  # enough for nearly all pairs, and quick to look through
    pairs = {row: _pairs(tuple(getattr(row, name) for name in _NAMES)) for row in rows}
    missing = set().union(*pairs.values())
    chosen: list[Row] = []
    while missing:
        best = max(rows, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[best]
        chosen.append(best)
    return chosen
