"""Folders that can be written, and files that are written whole or not at all."""

import contextlib
import os
import socket
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from envs.errors import BadInputError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """An empty file to write, which takes the place of `path` once the block is left without an error.

    Raises:
        BadInputError: if it cannot be written; what was at `path` stays.
    """
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


def write_text(path: Path, text: str) -> None:
    r"""Write `text` as UTF-8, whole or not at all; bytes of a file name that are no text as \udcff.

    Raises:
        BadInputError: if it cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def prepare_folder(folder: Path) -> None:
    """Make a folder for output, and see that it can be written.

    Raises:
        BadInputError: if it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have probed too
    except OSError as error:
        raise BadInputError(f"output folder {folder} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process, and every other call, out of an output folder while the block runs.

    The lock is the kernel's own on the file `.lock`, which ends with the process however that ends; the file
    stays, and says nothing by being there. Without such locks (no POSIX system, or a network file system that
    refuses them) nobody is kept out.

    Raises:
        BadInputError: if somebody else is in there, or the folder cannot be written.
    """
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
        raise BadInputError(f"{folder} is in use by {owner}: wait for its end, or choose another") from error
    except OSError:
        return  # this file system has no locks
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its owner's name
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
