"""Writing files and folders so that a crash, a kill or a full disk never leaves half of one behind."""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noumena.core.errors import ArtifactError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: nothing is marked there
    fcntl = None

log = logging.getLogger("noumena")

_BUSY = ".busy"


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


@contextmanager
def busy(folder: str | Path) -> Iterator[None]:
    """Others see while the block is entered that this process works in ``folder``; the end of the process ends it too.

    A mark for people and for :func:`is_busy`, not a barrier: a second process that enters is not stopped. File systems
    without locks keep no mark.

    Raises:
        ArtifactError: ``folder`` cannot be written.
    """
    path = Path(folder) / _BUSY
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH)  # waits for an `is_busy` at most
            except OSError as error:
                log.debug("%s cannot be marked: %s", path, error)
        yield
    finally:
        os.close(handle)


def is_busy(folder: str | Path) -> bool:
    """Whether a process of this machine, or of another one on a file system that shares locks, works in ``folder``."""
    if fcntl is None:
        return False
    try:
        handle = os.open(Path(folder) / _BUSY, os.O_RDWR)
    except OSError:  # nobody ever did, or the folder may only be read
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


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
