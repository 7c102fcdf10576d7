"""Who may read a node's files: the user that it runs as, whatever that user's umask.

The folder may be passed through by others and not listed (0711), since nginx serves ``static`` in
it as a user of its own. Whatever else lies there is 0600, or a folder of 0700. What an older
version left open is closed when a node starts.
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

# SQLite gives the files that it makes beside a database the database's own mode.
BESIDE_SQLITE = ("-wal", "-shm", "-journal")


def keep_others_from_writing() -> None:
    """Whatever this process and its children make from now on, only its user can change."""
    os.umask(os.umask(0o077) | OTHERS_WRITE)


def make_folder(folder: Path, mode: int) -> None:
    """Make the folder, with this mode, unless it is there; parents that it lacks can be passed
    through.

    Of a folder that is there only the right of others to write is taken: who may read it was its
    operator's choice, or an older version's, and the files in it are closed one by one. Raises
    OSError where it can't be made.
    """
    if folder.is_dir():
        _limit(folder, ~OTHERS_WRITE)
        return
    missing = [parent for parent in folder.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=DATA_FOLDER, exist_ok=True)
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)  # mkdir takes away what the umask says


def close(path: Path) -> None:
    """Keep everybody else from a file, or from a folder and all that is in it, where it is there.

    What belongs to another user stays as it is, with a line in the log.
    """
    if path.is_symlink() or not path.exists():
        return
    _limit(path, PRIVATE_FOLDER)
    if path.is_dir():
        for inside in path.iterdir():
            close(inside)


def make_database(file: Path) -> None:
    """Have SQLite's file, and those beside it, private before SQLite opens it. Raises OSError."""
    file = file.resolve()  # as SQLite does, for the names of those beside it
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    for ending in ("", *BESIDE_SQLITE):
        close(file.with_name(f"{file.name}{ending}"))


def _limit(path: Path, most: int) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        # Of a folder that many share, such as /tmp, the sticky bit guards what is in it.
        if mode & ~most & 0o777 and not mode & stat.S_ISVTX:
            path.chmod(mode & (most | ~0o777))
    except FileNotFoundError:
        return  # SQLite and the server remove files as they like
    except PermissionError as error:
        logger.warning("%s stays open to other users (%s)", path, error.strerror)
