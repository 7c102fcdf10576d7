"""File modes let only the user that a node runs as read its files, whatever that user's umask.

Other users may pass through the data folder but not list it (0711), since nginx serves ``static``
in it as a user of its own. All else there is a file of 0600 or a folder of 0700. Modes that an
older version left open are tightened when a node starts.
"""

import logging
import os
import stat
from pathlib import Path

logger = logging.getLogger(__name__)

DATA_FOLDER = 0o711
STATIC_FOLDER = 0o755
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
OTHERS_WRITE = 0o022

# SQLite gives these files beside a database the mode of the database.
BESIDE_SQLITE = ("-wal", "-shm", "-journal")


def keep_others_from_writing() -> None:
    """Set the umask, so that only this user can change what this process and its children make."""
    os.umask(os.umask(0o077) | OTHERS_WRITE)


def make_folder(folder: Path, mode: int) -> None:
    """Make the folder with this mode unless it is there; missing parents get DATA_FOLDER.

    A folder that is there only loses the right of others to write: who may read it was its
    operator's choice, or an older version's, and the files in it are closed one by one. Raises
    OSError when it can't be made.
    """
    if folder.is_dir():
        _limit(folder, ~OTHERS_WRITE)
        return
    missing = [parent for parent in folder.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=DATA_FOLDER, exist_ok=True)
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)  # mkdir applies the umask


def close(path: Path) -> None:
    """Keep other users from a file, or from a folder and all in it, if it is there.

    A file of another user stays as it is, with a line in the log.
    """
    if path.is_symlink() or not path.exists():
        return
    _limit(path, PRIVATE_FOLDER)
    if path.is_dir():
        for inside in path.iterdir():
            close(inside)


def make_database(file: Path) -> None:
    """Make SQLite's file, and close those beside it, before SQLite opens it. Raises OSError."""
    file = file.resolve()  # SQLite names the files beside it after the resolved path
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    for ending in ("", *BESIDE_SQLITE):
        close(file.with_name(f"{file.name}{ending}"))


def _limit(path: Path, most: int) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        # The sticky bit of a shared folder, such as /tmp, guards what is in it.
        if mode & ~most & 0o777 and not mode & stat.S_ISVTX:
            path.chmod(mode & (most | ~0o777))
    except FileNotFoundError:
        return  # SQLite and the Redis server remove files at any time
    except PermissionError as error:
        logger.warning("%s stays open to other users (%s)", path, error.strerror)
