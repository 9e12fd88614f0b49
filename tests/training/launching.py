"""Starting the command line as torchrun, SLURM and Lightning do, in processes of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
NOUMENA = [sys.executable, "-m", "noumena"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

# A recipe made small: 2,000 rows, seconds.
FIT = ("fit", "density/synthetic", "model.hidden_dims=[8]", "model.latent_dim=2", "fit.accelerator=cpu")

# What an outer launcher, or an earlier test in this process, may have left.
_FOREIGN = ("LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# What stands in for srun: as many processes as the job has tasks, spread over its nodes, with what srun tells them.
SRUN = """#!/bin/bash
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_PROCID=$task SLURM_LOCALID=$((task % SLURM_NTASKS_PER_NODE)) \\
    SLURM_NODEID=$((task / SLURM_NTASKS_PER_NODE)) "$@" &
  started+=($!)
done
code=0
for process in "${started[@]}"; do wait "$process" || code=$?; done
exit $code
"""


def environment(**more):
    """This one, without a launcher's variables, and with the tests' interpreter first."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN and "SLURM" not in name}
    return {**kept, "PATH": f"{BIN}:{kept['PATH']}", **more}


def start(command, cwd=None, **more):
    """The process of a command, in a group of its own."""
    return subprocess.Popen(
        [*map(str, command)],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """What it printed, once it ended well."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-4000:]
    return out, err


def job(tmp_path, nodes, tasks_per_node):
    """The variables of a SLURM job on this machine, and a folder with its srun on the path."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    return {
        "PATH": f"{srun.parent}:{environment()['PATH']}",
        "SLURM_JOB_ID": "4321",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * tasks_per_node),
        "SLURM_NTASKS_PER_NODE": str(tasks_per_node),
        "SLURM_NODELIST": "localhost",
        "MASTER_PORT": str(free_port()),
    }


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
