"""snapshot: list, create, apply and delete internal snapshots."""

from __future__ import annotations

import errno
import os

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure, usage
from e2kdisk.tools.img.given import Given, warn_guessed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.img.opening import Session


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "la:c:d:qU")
    actions = [(key, value) for key, value in given.options if key in "lacd"]
    if len({key for key, _ in actions}) > 1 or len(actions) > 1:
        raise usage("Cannot mix '-l', '-a', '-c', '-d'")
    action, argument = actions[0] if actions else ("l" if given.names else "", "")
    name = given.one_name()
    if not actions:
        action = ""

    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    image = session.open_given(name, given, writable=action != "l")
    with session.closing(image):
        if not isinstance(image.node, Qcow2Image):
            if action == "a":
                warn_guessed(name)
                raise Failure(f"Could not apply snapshot '{argument}': Block driver does not support snapshots")
            if action == "d":
                raise Failure(f"Could not delete snapshot '{argument}': snapshot not found")
            if action == "c":
                raise Failure(f"Could not create snapshot '{argument}': -95 (Operation not supported)")
            return 0
        _obey(session, image.node, action, argument)
    return 0


def _obey(session: Session, image: Qcow2Image, action: str, argument: str) -> None:
    snapshots = image.snapshots
    if action == "l":
        from e2kdisk.tools.img.snapshot_list import print_snapshots

        print_snapshots(snapshots.all())
    elif action == "c":
        _create(session, image, argument)
    elif action == "a":
        if image.bitmaps:
            raise Failure(f"Could not apply snapshot '{argument}': Device has active dirty bitmaps")
        if not _is_there(image, argument):
            what = "Failed to load snapshot: No such file or directory"
            raise Failure(f"Could not apply snapshot '{argument}': {what}")
        session.run(snapshots.apply(argument))
    elif action == "d":
        # By name only, as qemu-img: a snapshot that is named like another one's id must not be taken for it.
        named = next((item for item in snapshots.all() if item.name == argument), None)
        if named is None:
            raise Failure(f"Could not delete snapshot '{argument}': snapshot not found")
        session.run(snapshots.delete(named.id))


def _create(session: Session, image: Qcow2Image, name: str) -> None:
    try:
        session.run(image.snapshots.create(name, icount=0))
    except (OSError, E2kDiskError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        raise Failure(f"Could not create snapshot '{name}': -{number} ({os.strerror(number)})") from None


def _is_there(image: Qcow2Image, name: str) -> bool:
    try:
        image.snapshots.find(name)
    except E2kDiskError:
        return False
    return True
