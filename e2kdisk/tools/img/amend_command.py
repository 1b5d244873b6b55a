"""amend: change what an existing image is."""

from __future__ import annotations

import os

from e2kdisk.errors import E2kDiskError, UsageError
from e2kdisk.tools.img.create_options import AMEND, QCOW2, help_text, join, parse, wants_help
from e2kdisk.tools.img.creation import VERSIONS
from e2kdisk.tools.img.errors import Failure, usage
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.keyval import pairs

NOT_YET = ("data_file", "data_file_raw", *(name for name in AMEND if name.startswith("encrypt.")))


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:t:o:pq", {"force": False})
    if not given.values("o"):
        raise usage("Must specify options (-o)")
    text = join(given.values("o"))
    format = given.value("f")
    if format is not None and wants_help(given.values("o")):
        _need_amendable(format)
        print(help_text("Amend options for 'qcow2':", AMEND), end="")
        return 0
    if not given.names:
        raise Failure("Expecting one image file name")
    name = given.one_name()
    cache = given.cache("t", "writeback", "cache")

    from e2kdisk.qcow2.amend import AmendOptions, amend
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.img.opening import Session
    from e2kdisk.tools.img.progress import Progress

    session = Session(given)
    image = session.open_given(name, given, writable=True, cache=cache)
    try:
        _need_amendable(image.format)
        assert isinstance(image.node, Qcow2Image)
        if wants_help(given.values("o")):
            print(help_text("Amend options for 'qcow2':", AMEND), end="")
            return 0
        for key, _ in pairs(text):
            if key in QCOW2 and key not in AMEND:
                raise Failure(f"Invalid parameter '{key}'\nThis option is only supported for image creation")
        values = parse(text, AMEND)
        progress = Progress(given.has("p") and not given.quiet)
        options = AmendOptions(
            version=_version(values.get("compat")),
            lazy_refcounts=values.get("lazy_refcounts"),
            refcount_bits=values.get("refcount_bits"),
            size=values.get("size"),
        )
        _need_sense(image.node, options, values)
        session.run(amend(image.node, options))
        progress.end()
    except (OSError, E2kDiskError) as error:
        what = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise Failure(what) from None
    finally:
        session.close(image)
    return 0


def _need_amendable(format: str) -> None:
    if format != "qcow2":
        raise Failure(f"Format driver '{format}' does not support option amendment")


def _version(compat: str | None) -> int | None:
    if compat is None:
        return None
    if compat not in VERSIONS:
        raise Failure(f"Unknown compatibility level {compat}")
    return VERSIONS[compat]


def _need_sense(image: object, options: object, values: dict[str, object]) -> None:
    from e2kdisk.qcow2.amend import AmendOptions
    from e2kdisk.qcow2.image import Qcow2Image

    assert isinstance(image, Qcow2Image)
    assert isinstance(options, AmendOptions)
    if "backing_file" in values and values["backing_file"] != (image.header.backing_file or ""):
        raise Failure("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.")
    for name in NOT_YET:
        if name in values:
            raise Failure(f"amending {name} is not supported yet")
    bits = options.refcount_bits
    if bits is not None and bits not in (1, 2, 4, 8, 16, 32, 64):
        raise Failure("Refcount width must be a power of two and may not exceed 64 bits")
    version = options.version or image.header.version
    if version == 2:
        if bits is None and image.geometry.refcount_bits != 16:
            raise Failure("compat=0.10 requires refcount_bits=16")
        if bits not in (None, 16):
            raise Failure(
                "Refcount widths other than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)"
            )
        if options.lazy_refcounts:
            raise Failure(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)"
            )
    if version == 2 and image.header.version == 3:
        from e2kdisk.qcow2.downgrade import need_downgradable_snapshots

        try:
            need_downgradable_snapshots(image, image.size if options.size is None else options.size)
        except UsageError:
            raise Failure("Internal snapshots prevent downgrade of image") from None
