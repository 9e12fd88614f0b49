"""Which of the processes of a distributed training this one is, before Lightning has been asked."""

import os
import sys
from pathlib import Path


def is_main_process() -> bool:
    """Whether this process is the one that writes files: rank 0, or the only one.

    Read from what torchrun, SLURM and Lightning's own launcher set for the processes they start.
    """
    # A job of SLURM tells its number to the processes that Lightning starts there as well; only srun's differ in it.
    for name in ("RANK", *(["SLURM_PROCID"] if is_started_by_srun() else [])):
        if name in os.environ:
            return os.environ[name] == "0"
    return os.environ.get("NODE_RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"


def launched_processes() -> int | None:
    """How many processes torchrun, or srun inside a SLURM job, has started for this training; ``None`` without them.

    One that srun started may start others itself, as it may without SLURM.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _tasks_of_srun()


def is_started_by_srun() -> bool:
    """Whether srun, and no torchrun inside it, has started this and other processes."""
    return "TORCHELASTIC_RUN_ID" not in os.environ and _tasks_of_srun() is not None


def can_run_again() -> bool:
    """Whether this program can be started again for a further device, as Lightning does where nobody else has.

    It runs ``python -m MODULE`` or ``python FILE`` with the same arguments; notebooks, interactive sessions and
    programs from standard input or ``-c`` are neither.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return False
    return getattr(sys.modules["__main__"], "__spec__", None) is not None or Path(sys.argv[0]).is_file()


def _tasks_of_srun() -> int | None:
    # Set by srun for the processes of one step; SLURM_NTASKS is there in a whole job, also where srun is not used.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return None if tasks == 1 else tasks
