"""Writing files and folders so that a crash, a kill or a full disk never leaves half of one behind."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noumena.core.errors import ArtifactError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; on success it is flushed to disk and renamed over ``path``.

    Raises:
        ArtifactError: the folder cannot be written or the disk is full; what was at ``path`` is untouched.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # its folder may be gone
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path``; on success it is flushed and renamed to ``path``.

    Args:
        path: the folder to appear whole or not at all.
        overwrite: replace an existing folder instead of refusing.

    Raises:
        ArtifactError: ``path`` exists and ``overwrite`` is false, or it cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ArtifactError(f"{path} exists already. Choose another path or pass overwrite=True to replace it.")
    mark = uuid.uuid4().hex[:8]
    beside = path.with_name(f".{path.name}.{mark}.part")
    old = path.with_name(f".{path.name}.{mark}.old")
    try:
        beside.mkdir(parents=True)
        yield beside
        for file in beside.iterdir():
            _flush(file)
        _flush(beside)
        if path.exists():
            path.replace(old)
        try:
            beside.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def clear_leftovers(*folders: Path) -> None:
    """Delete the temporary files and folders that a killed process left in ``folders``.

    A folder that was moved aside to be replaced, and whose replacement never came, is put back.
    """
    for folder in folders:
        for old in folder.glob(".*.????????.old"):
            original = folder / old.name[1 : -len(".????????.old")]
            if original.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.replace(original)
        for part in folder.glob(".*.????????.part"):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def cannot_write(path: str | Path, error: OSError) -> ArtifactError:
    """The error for a failed write, naming the path and the remedy."""
    return ArtifactError(
        f"cannot write {path}: {error.strerror or error}. "
        "Free space or choose a folder you may write to; what was there before is untouched."
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
