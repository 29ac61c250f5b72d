"""What people should know about how a VM's screen is shown."""

from collections.abc import Iterator

from thinvirt.vm.spec import GraphicsSpec

_EVERYWHERE = frozenset({"", "0.0.0.0", "::", "[::]", "*"})  # noqa: S104 - compared, not bound


def is_open_to_all(graphics: GraphicsSpec) -> bool:
    """Tell whether a screen is shown at every address of the host."""
    return graphics.kind != "none" and graphics.listen in _EVERYWHERE


def screen_remarks(graphics: GraphicsSpec) -> Iterator[str]:
    """Yield what is dangerous about a screen, with what to do instead."""
    if not is_open_to_all(graphics):
        return
    name, where = graphics.kind.upper(), graphics.listen or "every address"
    tunnel = "listen on 127.0.0.1 and reach it through ssh -L"
    if not graphics.password:
        yield (
            f"{name} at {where} without a password: whoever reaches this host sees the VM's "
            f"screen and types at its keyboard; {tunnel}, or give password="
        )
    elif graphics.kind == "vnc":
        yield (
            f"{name} at {where}: its password has at most 8 characters, and nothing that is shown "
            f"or typed is encrypted; {tunnel}"
        )
    else:
        yield (
            f"{name} at {where}: nothing that is shown or typed is encrypted, only the password; "
            f"{tunnel}"
        )
