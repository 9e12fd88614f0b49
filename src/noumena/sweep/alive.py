"""Who works on a sweep, and who has died: by process where it can be asked, by a heartbeat everywhere else.

Each worker keeps a small file in the sweep's folder and touches it. On the same machine the system says at once
whether the process that wrote it still runs. From another machine that shares the folder only the age of the touch
tells; it is compared with a touch of one's own, so that clocks of machines that differ do not matter.
"""

import json
import os
import platform
import re
import signal
import threading
import uuid
from pathlib import Path
from typing import Self

from noumena.files import write_text

BEAT_SECONDS = 10.0
SILENT_SECONDS = 90.0  # several beats: a shared file system may show a touch late

_NAME = re.compile(r"[0-9a-f]{32}")


class Heartbeat:
    """A worker's sign of life while the block is entered.

    Attributes:
        name: of the worker, as it stands in the journal.
    """

    def __init__(self, folder: Path, *, parent: int | None = None) -> None:
        """
        Args:
            folder: of the signs of life.
            parent: process that started this one; when it has died, this one is asked to stop.
        """
        self.folder = folder
        self.name = uuid.uuid4().hex
        self._parent = parent
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        write_text(self.folder / self.name, json.dumps(_identity(os.getpid())) + "\n")
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()
        self._thread.join()
        (self.folder / self.name).unlink(missing_ok=True)

    def _beat(self) -> None:
        touched = 0.0
        while not self._stop.wait(1.0):
            touched += 1.0
            if touched >= BEAT_SECONDS:
                self.touch()
                touched = 0.0
            if self._parent is not None and os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def touch(self) -> float:
        """Show life; the time of it by the clock of the file system."""
        path = self.folder / self.name
        path.touch()
        return path.stat().st_mtime

    def is_dead(self, other: object) -> bool:
        """Whether the worker called ``other`` has ended without saying so."""
        # The name comes from a file and becomes part of a path.
        if not isinstance(other, str) or _NAME.fullmatch(other) is None:
            return True
        if other == self.name:
            return False
        path = self.folder / other
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            silent = self.touch() - path.stat().st_mtime
        except (OSError, ValueError):
            return not path.is_file()
        here = _identity(os.getpid())
        same_machine = here["start"] is not None and isinstance(theirs, dict) and theirs["machine"] == here["machine"]
        if same_machine:
            pid = theirs["pid"]
            return not isinstance(pid, int) or _identity(pid) != theirs
        return silent > SILENT_SECONDS


def _identity(pid: int) -> dict[str, str | int | None]:
    """What tells a process from all others, those with the same number before and after it included.

    ``start`` is ``None`` for a process that does not run, and where the system has no ``/proc``.
    """
    return {"machine": _machine(), "pid": pid, "start": _start_of(pid)}


def _machine() -> str:
    """The machine since it was started, and which processes can be seen from here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _start_of(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold blanks. State is the first field after it, the start the twentieth.
    after = stat.rpartition(")")[2].split()
    return None if after[0] in "ZX" else after[19]
