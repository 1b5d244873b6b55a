"""Opening images: an Opener turns OpenOptions into a chain of nodes, open_disk into a Disk.

Every file that an image names (its backing file above all) comes through `open_implicit`, where the policy
is asked and loops are found; a file that the user names comes through `open`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from e2kdisk.aio.engine import AutoEngine, Engine, ThreadEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.file import FileNode
from e2kdisk.block.formats import PROBE_SIZE, load_format, probe_format
from e2kdisk.block.node import Node
from e2kdisk.block.options import OpenOptions, cache_mode
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import ImageError, UnsupportedFeature, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENGINES: Mapping[str, type[ThreadEngine]] = {"auto": AutoEngine, "threads": ThreadEngine}


class Opener:
    """Opens images with one engine under one policy."""

    def __init__(self, engine: Engine, policy: OpenPolicy | None = None) -> None:
        self.engine = engine
        self.scheduler: Scheduler = engine.scheduler
        self.policy = policy if policy is not None else OpenPolicy()

    async def open(self, options: OpenOptions) -> Node:
        """Open a file and the format in it. Raises ImageError, OSError, UsageError; leaves nothing open then."""
        options = options.with_(filename=host_path(options.filename))
        file = await FileNode.open(
            options.filename,
            self.engine,
            read_only=options.read_only,
            cache=options.cache,
            force_share=options.force_share,
        )
        return await self.open_format(file, options.with_(identity=file.identity))

    async def open_format(self, file: Node, options: OpenOptions) -> Node:
        """Open the format in a file that is open already; the result owns the file, an error closes it."""
        try:
            name = options.format
            if name is None:
                head = bytearray(PROBE_SIZE)
                await file.read(0, [memoryview(head)])
                name = probe_format(bytes(head), options.filename)
            return await load_format(name).open(file, options, self)
        except BaseException:
            await file.close()
            raise

    async def open_backing(self, options: OpenOptions, stored_name: str, stored_format: str | None) -> Node | None:
        """Open the backing file of an image opened with options: the one its user wants, else the one it names.

        stored_name is "" when the image names none. Returns None for an image that shall have none.
        """
        if options.no_backing:
            return None
        if options.backing is not None:
            filename = host_path(options.backing.filename)
            chosen = options.backing.with_(filename=filename, read_only=True, parent=options)
            return await self._open_child("backing", chosen)
        if not stored_name:
            return None
        return await self.open_implicit("backing", stored_name, stored_format, options)

    async def open_implicit(
        self, role: str, stored_name: str, stored_format: str | None, parent: OpenOptions, *, read_only: bool = True
    ) -> Node:
        """Open a file that the image `parent` names: relative to the image's directory, if the policy allows it.

        Raises ImageError for a refused or missing file, a loop, a chain that is too long, a name that is no
        plain file name.
        """
        try:
            path = host_path(stored_name)
        except ImageError as error:
            raise ImageError(parent.filename, f"{role} file", f"{error.file}: {error.what}") from None
        path = os.path.join(os.path.dirname(parent.filename), path)
        self.policy.check(role, path, parent.filename)
        child = OpenOptions(
            path,
            stored_format,
            read_only=read_only,
            cache=parent.cache,
            force_share=parent.force_share and read_only,
            parent=parent,
        )
        return await self._open_child(role, child)

    async def _open_child(self, role: str, child: OpenOptions) -> Node:
        assert child.parent is not None
        chain = child.parent.chain()
        names = [image.filename for image in (*chain[1:], child)]
        if len(names) > 5:
            names[2:-2] = ["..."]
        where = f"{role} file {' -> '.join(names)}"
        if len(chain) >= self.policy.max_depth:
            raise ImageError(chain[0].filename, where, f"more than {self.policy.max_depth} images in the chain")
        try:
            info = os.stat(child.filename)
        except (OSError, ValueError):
            pass  # opening it will say what is wrong
        else:
            # Before it is opened: a loop to an image that is open for writing would only say that it is locked.
            for image in chain:
                if image.identity == (info.st_dev, info.st_ino):
                    raise ImageError(chain[0].filename, where, f"a loop: this is {image.filename} again")
        try:
            # Apart, because a chain of images may be deeper than the interpreter's stack.
            return await self.scheduler.apart(self.open(child))
        except ImageError as error:
            if error.file != child.filename:
                raise  # says already where in the chain
            kind = UnsupportedFeature if isinstance(error, UnsupportedFeature) else ImageError
            what = f"{error.where}: {error.what}" if error.where else error.what
            raise kind(chain[0].filename, where, what) from error


def host_path(filename: str) -> str:
    """Return the path in a file name: "file:" is taken off, other protocols are refused by name (ImageError)."""
    if filename.startswith("file:"):
        filename = filename.removeprefix("file:")
    elif ":" in filename.partition("/")[0]:
        protocol = filename.partition(":")[0]
        hint = f"a file of this name is ./{filename}" if protocol != "json" else "only plain file names are"
        raise ImageError(filename, "", f"protocol {protocol!r} is not supported; {hint}")
    if not filename:
        raise ImageError("file name", "", "is empty")
    return filename


def make_engine(engine: str | Engine, scheduler: Scheduler | None = None) -> Engine:
    """Return an engine by name ("auto", "threads"), or the given one. Raises UsageError."""
    if isinstance(engine, str):
        if engine not in ENGINES:
            raise UsageError(f"unknown I/O engine {engine!r}; known are {', '.join(ENGINES)}")
        return ENGINES[engine](scheduler if scheduler is not None else Scheduler())
    if scheduler is not None and engine.scheduler is not scheduler:
        raise UsageError("the I/O engine belongs to another scheduler")
    return engine


def open_disk(
    filename: str | os.PathLike[str],
    *,
    format: str | None = None,
    read_only: bool = False,
    cache: str = "writeback",
    engine: str | Engine = "auto",
    scheduler: Scheduler | None = None,
    policy: OpenPolicy | None = None,
    backing: str | os.PathLike[str] | OpenOptions | None = None,
    no_backing: bool = False,
    force_share: bool = False,
    serial: str = "",
    **extras: Any,
) -> Disk:
    """Open an image as a Disk, which closes everything opened here.

    format is guessed when not given: for images from strangers, give it. cache is a key of options.CACHE_MODES;
    engine "auto", "threads" or an Engine; backing replaces the backing file that the image names, with
    no_backing there is none. force_share (read-only) ignores image locks. extras are options of the format.
    Raises ImageError, UsageError or OSError, with nothing left open.

    >>> with open_disk("disk.qcow2", format="qcow2") as disk:
    ...     disk.pwrite(0, bytes(512))
    """
    if backing is not None and not isinstance(backing, OpenOptions):
        backing = OpenOptions(_given_path(backing), read_only=True, cache=cache, force_share=force_share)
    options = OpenOptions(
        _given_path(filename),
        format,
        read_only=read_only,
        cache=cache,
        force_share=force_share,
        no_backing=no_backing,
        backing=backing,
        extras=extras,
    )
    used_engine = make_engine(engine, scheduler)
    own_engine = used_engine if isinstance(engine, str) else None
    try:
        node = used_engine.scheduler.run(Opener(used_engine, policy).open(options))
    except BaseException:
        if own_engine is not None:
            own_engine.close()
        raise
    return Disk(node, writethrough=cache_mode(cache).writethrough, serial=serial, engine=own_engine)


def _given_path(filename: str | os.PathLike[str]) -> str:
    """Return a file name; a path object is a path, whatever colons it has."""
    if isinstance(filename, str):
        return filename
    path = os.fspath(filename)
    return path if os.path.isabs(path) else os.path.join(".", path)
