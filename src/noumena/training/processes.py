"""Which of the processes of a distributed training this one is, before Lightning has been asked."""

import os


def is_main_process() -> bool:
    """Whether this process is the one that writes files: rank 0, or the only one.

    Read from what torchrun, SLURM and Lightning's own launcher set for the processes they start.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return os.environ.get("NODE_RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
