"""Output folders, their locks, and atomic file writes; of several processes only the main one writes."""

import contextlib
import os
import socket
from collections.abc import Iterator
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from envs.errors import BadInputError
from jaxmarl_fac.job import is_main

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` atomically if the block ends without an error.

    Raises:
        BadInputError: if it cannot be written; `path` then keeps its old content.
    """
    if not is_main():
        yield BytesIO()
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def as_path(value: Any, name: str) -> Path:
    """A path from text or a path.

    Raises:
        BadInputError: for anything else; `name` says what it is.
    """
    if not isinstance(value, str | os.PathLike):
        raise BadInputError(f"{name} must be the path of a folder, not {type(value).__name__}")
    return Path(value)


def write_text(path: Path, text: str) -> None:
    r"""Write `text` atomically as UTF-8; surrogates (undecodable bytes of file names) become `\udcff`.

    Raises:
        BadInputError: if it cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def prepare_folder(folder: Path) -> None:
    """Create an output folder and check that it is writable.

    Raises:
        BadInputError: if it is not.
    """
    if not is_main():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have removed it already
    except OSError as error:
        raise BadInputError(f"output folder {folder} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on an output folder while the block runs.

    This is a kernel lock (`flock`) on the file `.lock`: it is released however the process ends. The file
    itself is left behind, and its existence means nothing. Where such locks are missing (no POSIX system, or
    a network file system without them) the folder is not locked.

    Raises:
        BadInputError: if another process or call holds the lock, or the folder cannot be written.
    """
    if not is_main():
        yield
        return
    prepare_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((folder / ".lock").open("a+b", buffering=0))
        except OSError as error:
            raise BadInputError(f"output folder {folder} cannot be written: {error.strerror}") from error
        if fcntl:
            _lock(file, folder)
        yield


def _lock(file: FileIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        owner = file.read().decode(errors="replace") or "another process"
        raise BadInputError(
            f"{folder} is in use by {owner}: wait until it ends, or choose another folder"
        ) from error
    except OSError:
        return  # this file system has no locks
    with contextlib.suppress(OSError):  # disk full: the lock holds even without its owner's name
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
