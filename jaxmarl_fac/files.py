"""Folders that can be written, and files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from envs.errors import BadInputError


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
        probe.unlink()
    except OSError as error:
        raise BadInputError(f"output folder {folder} cannot be written: {error.strerror}") from error
