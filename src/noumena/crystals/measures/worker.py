"""A worker process that compares pairs: ``python -m noumena.crystals.measures.worker``, tasks in, answers out."""

import os
import sys
import warnings

READY = b"ready\n"
"""What a worker says when its libraries are loaded."""


def main() -> None:
    """Answer tasks until there are no more."""
    warnings.simplefilter("ignore")
    # The pipe is kept for answers: what a library prints goes to standard error.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        # Now, so that the time limit of the first comparison holds no import; and here, so that a failure is told.
        from noumena.crystals.libraries import pymatgen
        from noumena.crystals.measures.pairs import answers, read_task, write_answer

        pymatgen("core")
        pymatgen("util.coord_cython")
    except Exception as error:  # told to the process that waits for READY, which raises it
        out.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n".encode())
        out.flush()
        sys.exit(1)
    out.write(READY)
    out.flush()
    while (task := read_task(sys.stdin.buffer)) is not None:
        for answer in answers(task):
            write_answer(out, answer)


if __name__ == "__main__":
    main()
