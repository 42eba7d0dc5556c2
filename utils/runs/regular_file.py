"""Files to read: regular ones alone, since a pipe or a device may never end, nor even begin."""

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: str | os.PathLike, what: str, expected: str) -> int:
    """Return the size in bytes of the regular file at `path`, or at the end of a link's way.

    `what` names it in the error message ("checkpoint"), `expected` says what it should be.

    Raises:
        ValueError: there is none, or something else, or it cannot be looked at.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        state = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise ValueError(f"{what} {path} {state}: expected {expected}") from None
    except OSError as error:
        raise ValueError(
            f"{what} {path} cannot be read ({error.strerror}): expected {expected}"
        ) from error
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is not None:
        raise ValueError(f"{what} {path} is {kind}: expected {expected}")
    return found.st_size


def is_there(path: str | os.PathLike) -> bool:
    """Return whether anything lies at `path`, a link to nothing included.

    Raises:
        ValueError: the system cannot look there, for another reason than that there is nothing.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ValueError(
            f"cannot look for {path} ({error.strerror}): expected the path of a file"
        ) from error
    return True


def read_text(path: str | os.PathLike, what: str, expected: str, *, most_bytes: int) -> str:
    """Return a regular file's UTF-8 text.

    Raises:
        ValueError: it is none, it cannot be read, or it has more than `most_bytes`.
    """
    size = check_regular(path, what, expected)
    if size > most_bytes:
        raise ValueError(
            f"{what} {path} has {size} bytes: expected {expected}, of at most {most_bytes}"
        )
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{what} {path} cannot be read ({error.strerror}): expected {expected}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{what} {path} is no UTF-8 text (byte {error.start}): expected {expected}"
        ) from None
