"""A real shell whose commands of some names are answered by this process."""

import errno
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# Stands for every such command: passes on its name, folder and words, prints the answer, has its exit code. It says
# where it is, because a page may change the folder.
_STAND_IN = """#!/usr/bin/env bash
mkfifo {place}/$$
printf '%s\\0' "$(($# + 3))" "$$" "$PWD" "${{0##*/}}" "$@" > {place}/asked
read -r code < {place}/$$
cat {place}/$$.output
exit "$code"
"""

Answer = Callable[[str, list[str]], tuple[int, str]]


def shell(script: str, folder: Path, names: Iterable[str], answer: Answer) -> tuple[int, str]:
    """Run a script.

    Args:
        script: for bash; it ends at the first command that fails.
        folder: where it begins.
        names: commands that are answered.
        answer: from the folder and the words of a command to its exit code and output.

    Returns:
        The exit code of the script and its error output.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.mkfifo(place / "asked")
        (place / "bin").mkdir()
        for command in names:
            stand_in = place / "bin" / command
            stand_in.write_text(_STAND_IN.format(place=shlex.quote(str(place))))
            stand_in.chmod(0o755)
        errors = place / "errors"
        with errors.open("w") as sink:
            running = subprocess.Popen(
                ["bash", "-c", f"set -eo pipefail\n{script}"],
                **{"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": sink},
                env={**os.environ, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"},
                start_new_session=True,
            )
            try:
                _serve(running, place, answer)
            finally:
                running.kill()
                running.wait()
        return running.returncode, errors.read_text()


def _serve(running: subprocess.Popen, place: Path, answer: Answer) -> None:
    # Opened for writing too, so that it does not end when one command has said all it has to say.
    asked = os.open(place / "asked", os.O_RDWR | os.O_NONBLOCK)
    heard = b""
    try:
        while running.poll() is None:
            if not select.select([asked], [], [], 0.02)[0]:
                continue
            heard += os.read(asked, 1 << 16)
            while (words := _whole(heard)) is not None:
                heard = b"\0".join(heard.split(b"\0")[len(words) + 1 :])
                who, where, *command = words
                code, output = answer(where, command)
                (place / f"{who}.output").write_text(output)
                _reply(running, place / who, code)
    finally:
        os.close(asked)


def _reply(running: subprocess.Popen, fifo: Path, code: int) -> None:
    while running.poll() is None:
        try:
            place = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.005)  # nobody listens yet
            continue
        os.write(place, f"{code}\n".encode())
        os.close(place)
        return


def _whole(heard: bytes) -> list[str] | None:
    """The words of the first command, once all have come."""
    count, *words = heard.split(b"\0")
    if not count or len(words) <= int(count):
        return None
    return [word.decode() for word in words[: int(count)]]
