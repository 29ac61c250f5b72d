"""``bench``: how long do so many requests take?"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.schema import parse_number
from thinvirt.image.ops.bench import send_requests
from thinvirt.image.qemu_img.commandline import MAX_INT, Words, number_of
from thinvirt.image.qemu_img.getopt import (
    ACCEPTED,
    DIFFERS,
    FORCE_SHARE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    QUIET,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Cache, Images
from thinvirt.image.qemu_img.report import console

COMMAND = Command(
    "bench",
    "Send equal requests to an image and tell how long they take.",
    "FILE",
    (
        HELP,
        Option("count", "-c", "NUMBER", "requests in all (75000)"),
        Option("depth", "-d", "NUMBER", "requests at a time (64); they go one by one", DIFFERS),
        FORMAT,
        Option("flush-interval", "--flush-interval", "NUMBER", "flush after so many writes"),
        Option("aio", "-i", "AIO", "threads, native or io_uring; accepted", ACCEPTED),
        Option("native", "-n", "", "native AIO; accepted", ACCEPTED),
        Option("no-drain", "--no-drain", "", "do not wait before a flush; accepted", ACCEPTED),
        Option("offset", "-o", "OFFSET", "begin there"),
        Option("pattern", "--pattern", "BYTE", "write this byte"),
        QUIET,
        Option("size", "-s", "SIZE", "bytes of a request (4k)"),
        Option("step", "-S", "SIZE", "bytes from one request to the next"),
        Option("cache", "-t", "CACHE", "cache mode of the image"),
        Option("write", "-w", "", "write, instead of reading"),
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)

_INTEGERS = {
    "count": ("Invalid request count specified", MAX_INT),
    "depth": ("Invalid queue depth specified", MAX_INT),
    "pattern": ("Invalid pattern byte specified", 0xFF),
    "flush-interval": ("Invalid flush interval specified", MAX_INT),
}


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    numbers = {"count": 75000, "depth": 64, "size": 4096}
    scan = Words(COMMAND, words)
    cache = Cache("writeback")
    with Images() as images:
        for key, value in scan:
            if key == "cache":
                cache = _cache(value)
            elif key in _INTEGERS:
                numbers[key] = _integer(key, value)
            elif key == "offset":
                numbers[key] = number_of("offset", value)
            elif key == "size":
                numbers[key] = number_of("buffer size", value, 0, MAX_INT)
            elif key == "step":
                numbers[key] = number_of("step_size", value, 0, MAX_INT)
            elif key == "aio" and value not in ("threads", "native", "io_uring"):
                console.fail(f"Invalid aio option: {value}")
            given[key] = value
        filename = scan.one_operand()
        interval = numbers.get("flush-interval", 0)
        if interval and "write" not in given:
            console.fail("--flush-interval is only available in write tests")
        if 0 < interval < numbers["depth"]:
            console.fail("Flush interval can't be smaller than depth")
        return _bench(images, filename, given, numbers, cache)


def _cache(mode: str) -> Cache:
    try:
        return Cache(mode)
    except KeyError:
        console.fail("Invalid cache mode")


def _integer(key: str, text: str) -> int:
    message, highest = _INTEGERS[key]
    try:
        number = parse_number(key, text)
    except BlockError:
        number = highest + 1
    if number > highest:
        console.fail(message)
    return number


def _bench(
    images: Images,
    filename: str,
    given: dict[str, str],
    numbers: dict[str, int],
    cache: Cache,
) -> int:
    import time

    is_write = "write" in given
    image = images.open(
        filename,
        given.get("format"),
        cache.flags | (Open.RDWR if is_write else 0),
        image_opts="image-opts" in given,
        force_share="force-share" in given,
        writethrough=cache.writethrough,
    )
    length, offset = numbers["size"], numbers.get("offset", 0)
    step = numbers.get("step") or length
    console.line(
        f"Sending {numbers['count']} {'write' if is_write else 'read'} requests, {length} bytes "
        f"each, {numbers['depth']} in parallel (starting at offset {offset}, step size {step})"
    )
    interval = numbers.get("flush-interval", 0)
    if interval:
        console.line(f"Sending flush every {interval} requests")
    begun = time.monotonic()
    try:
        send_requests(
            image,
            numbers["count"],
            length=length,
            step=step,
            offset=offset,
            pattern=numbers.get("pattern", 0) if is_write else None,
            flush_interval=interval,
        )
    except BlockError as error:
        console.error(f"Failed request: {error.reason}")
        return 1
    console.line(f"Run completed in {time.monotonic() - begun:3.3f} seconds.")
    return 0
