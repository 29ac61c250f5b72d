"""Imports point down only (docs/design/architecture.md): read from the source, nothing is run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "thinvirt"

# What each package may import of thinvirt, besides itself. The order is the order of the layers.
MAY_IMPORT = {
    "errors": set[str](),
    "units": {"errors"},
    "progress": set[str](),
    "image": {"errors", "units", "progress"},
    "vm": {"errors", "units"},
    "store": {"errors", "units", "progress", "image", "vm"},
    "run": {"errors", "units", "progress", "image", "vm"},
    "build": {"errors", "units", "progress", "image", "vm"},
    "service": {"errors", "units", "progress", "image", "vm", "store", "run", "build"},
    "cli": {"errors", "units", "progress", "image", "vm", "store", "run", "service", ""},
    "": {"cli"},  # thinvirt/__init__.py and __main__.py
}

# A specification in, text out: no file, clock, process or randomness. `image/formats` likewise.
PURE = ("vm", "image/formats")
IMPURE_MODULES = {
    "asyncio", "fcntl", "io", "mmap", "os", "random", "secrets", "select", "shutil", "signal",
    "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip


# Packages of others that the engine can make use of, all of them optional extras; what stands below
# it or is pure needs none. `pip install thinvirt` brings nothing along.
OTHERS = {
    "errors": set[str](),
    "image": {"cryptography", "deflate", "isal", "numpy", "zlib_ng", "zstandard"},
    "progress": set[str](),
    "units": set[str](),
    "vm": {"yaml"},  # text in, values out
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def pure_modules() -> list[Path]:
    return [p for p in modules() if any(p.is_relative_to(PACKAGE / pure) for pure in PURE)]


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts[0].startswith("__") else parts[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module imported anywhere in the file, delayed imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for line, name in imports(path):
        first, _, rest = name.partition(".")
        if first != "thinvirt" or not rest:  # the package itself has only its version to give
            continue
        there = rest.partition(".")[0]
        assert there == here or there in MAY_IMPORT[here], f"{path}:{line}: {here} imports {name}"


@pytest.mark.parametrize("path", pure_modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pure_packages_touch_nothing(path: Path) -> None:
    for line, name in imports(path):
        assert name.partition(".")[0] not in IMPURE_MODULES, f"{path}:{line}: {name} is not pure"


@pytest.mark.parametrize("path", [p for p in modules() if room(p) in OTHERS], ids=lambda p: p.stem)
def test_the_engine_needs_only_python(path: Path) -> None:
    for line, name in imports(path):
        root = name.partition(".")[0]
        known = root in sys.stdlib_module_names or root in (
            "_signal",
            "thinvirt",
            "typing_extensions",
        )
        assert known or root in OTHERS[room(path)], f"{path}:{line}: {name}"


def test_no_cycles_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    names = {
        ".".join(("thinvirt", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in modules()
    }
    for name, path in names.items():
        graph[name] = {other for _, other in imports(path) if other in names and other != name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
