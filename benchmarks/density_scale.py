"""Memory and speed of ``noumena score`` on a file of many rows.

    python benchmarks/density_scale.py [--rows 10000000] [--formats parquet h5] [--workers 0 2] [--fdr]

Writes files of random rows of 14 columns into a temporary folder (about 60 bytes a row, deleted afterwards), scores
each with a VAE of the usual size (256-128, latent 8, reconstruction scores) by the command line, and prints as Markdown
the peak memory of the scoring processes, all of them together, and the rows per second from start to end, Python's own
start and the loading of libraries included. With --fdr rows are selected as well, which holds all scores in memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from noumena.density.model import VAE

COLUMNS = 14
_CHUNK = 500_000


def write_rows(path: Path, rows: int) -> None:
    """A file of float32 rows, in parts; the names of the columns are those a table without names has."""
    parts = ((start, min(_CHUNK, rows - start)) for start in range(0, rows, _CHUNK))
    draws = (np.random.default_rng(start).standard_normal((size, COLUMNS), dtype=np.float32) for start, size in parts)
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            data = file.create_dataset("X", (rows, COLUMNS), np.float32)
            for number, block in enumerate(draws):
                data[number * _CHUNK : number * _CHUNK + len(block)] = block
        return
    import pyarrow as pa
    from pyarrow import parquet

    names = [f"x_{i}" for i in range(COLUMNS)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with parquet.ParquetWriter(path, schema, compression="none") as writer:
        for block in draws:
            writer.write_table(pa.table({name: block[:, i] for i, name in enumerate(names)}))


def save_model(folder: Path) -> None:
    """A calibrated VAE of the usual size; what it has learnt makes no difference to its speed."""
    model = VAE(input_dim=COLUMNS, hidden_dims=(256, 128), latent_dim=8, scoring="reconstruction").eval()
    model.schema = {"columns": [f"x_{i}" for i in range(COLUMNS)], "kind": "table", "width": COLUMNS}
    model.data_fingerprint = "none"
    model.calibrate(torch.randn(10_000, COLUMNS))
    model.save(folder)


class Watch(threading.Thread):
    """Peak of the memory of a process and those it started, looked at 20 times a second.

    Attributes:
        together: their resident sets at one moment, in bytes; pages that they share count for each.
        alone: the peak of the first process, as the system recorded it.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.together = 0
        self.alone = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(0.05):
            self.together = max(self.together, sum(_kilobytes(pid, "VmRSS") for pid in _family(self.pid)) * 1024)
            self.alone = max(self.alone, _kilobytes(self.pid, "VmHWM") * 1024)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _kilobytes(pid: int, entry: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")), 0)


def score(model: Path, data: Path, workers: int, *, fdr: bool) -> tuple[float, Watch, dict[str, int]]:
    """Seconds, memory and the summary of one call of the command line."""
    command = [str(Path(sys.executable).with_name("noumena")), "score", str(model), str(data), "--json"]
    command += ["-o", str(data.with_name("scores.parquet")), "--workers", str(workers)]
    started = time.perf_counter()
    with subprocess.Popen([*command, *(["--fdr", "0.1"] if fdr else [])], stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid)
        watch.start()
        out, _ = process.communicate()
    watch.done.set()
    if process.returncode:
        raise SystemExit(f"noumena score ended with {process.returncode}")
    return time.perf_counter() - started, watch, json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--formats", nargs="+", choices=["parquet", "h5"], default=["parquet", "h5"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--fdr", action="store_true")
    options = parser.parse_args()
    print("| file | size | workers | peak memory, first process | all processes | rows/s |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model")
        for ending in options.formats:
            data = folder / f"rows.{ending}"
            write_rows(data, options.rows)
            for workers in options.workers:
                seconds, watch, facts = score(folder / "model", data, workers, fdr=options.fdr)
                assert facts["rows"] == options.rows
                print(
                    f"| .{ending} | {data.stat().st_size / 1e6:,.0f} MB | {workers} | {watch.alone / 1e6:,.0f} MB "
                    f"| {watch.together / 1e6:,.0f} MB | {options.rows / seconds:,.0f} |",
                    flush=True,
                )
            data.unlink()


if __name__ == "__main__":
    main()
