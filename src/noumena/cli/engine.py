"""What ``noumena encode`` and ``noumena score`` share: which engine computes, in how many processes, and where to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from noumena.core.errors import ArtifactError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from noumena.cli.data_verbs import Opened
    from noumena.engines.work import Columns, Work

EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="local: this machine. ray: Ray Data, by the cluster that RAY_ADDRESS names or one on this machine.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes that compute, with one thread each. 0: this one; of --engine ray, one per processor or, with "
        "--device cuda, accelerator.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help=".parquet, .csv or .npz; FOLDER.parquet/ for many; CSV on the terminal when missing.",
    ),
]

_ENGINES = ("local", "ray")


class Place(NamedTuple):
    """Where results go: a file or the terminal (``None``), or a new folder of files."""

    path: Path | None
    is_folder: bool = False


def place_of(output: str | None) -> Place:
    """The place that ``-o`` names; a folder ends with a slash.

    Raises:
        ArtifactError: something is there that would not be replaced.
        ConfigError: the folder's name does not say that it holds Parquet files.
    """
    if output is None:
        return Place(None)
    if not output.endswith("/"):
        path = Path(output)
        if path.is_dir():
            raise ArtifactError(f"{output} is a folder. Name a file, or a new folder with a slash at its end.")
        return Place(path)
    folder = Path(output)
    if folder.suffix != ".parquet":
        raise ConfigError(f"{output}: a folder of results holds Parquet files; call it {folder.name}.parquet/")
    if folder.exists():
        raise ArtifactError(f"{output} exists already. Choose another name, or remove it first.")
    return Place(folder, is_folder=True)


@dataclass(frozen=True)
class Engine:
    """What computes.

    Attributes:
        name: ``local`` or ``ray``.
        workers: processes beside this one; 0 is what the engine does by itself.
        device: where each of them computes.
    """

    name: str
    workers: int
    device: str

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: an unknown name, or several processes on one accelerator.
        """
        from noumena.cli.data_scoring import check_workers

        if self.name not in _ENGINES:
            raise ConfigError(f"--engine {self.name} is not known. {did_you_mean(self.name, _ENGINES)}")
        if self.name == "local":
            check_workers(self.workers, self.device)

    def open(self, source: Path) -> "Opened":
        """The model in this process, which of many on a cluster may have no accelerator."""
        from noumena.cli.data_verbs import Opened

        return Opened(source, self.device if self.name == "local" else "cpu")

    def chunks(
        self, opened: "Opened", source: Path, data: str, work: "Work", rows: int, *, strict: bool = False
    ) -> Iterator["Columns"]:
        """Columns of each chunk of rows, in the order of the files and of their rows.

        Args:
            opened: the model here.
            source: where it was saved, for other processes to load it.
            data: one file or many.
            work: what to compute.
            rows: of a chunk, at most.
            strict: refuse structures of crystals that are else skipped.

        Raises:
            ConfigError: options that do not go together.
            NoumenaError: as reading and computing raise.
        """
        compute = work.on(opened)  # what cannot be computed is refused here, not by each worker
        if self.name == "ray":
            from noumena.engines.ray_data import chunks_by_ray

            return chunks_by_ray(
                source,
                opened.files(data),
                work,
                workers=self.workers,
                device=self.device,
                chunk_rows=rows,
                strict=strict,
            )
        if self.workers and work.verb != "scores":
            raise ConfigError("--workers is for `score`, or for --engine ray. Leave it out, or add --engine ray.")
        batches = opened.batches(data, rows, strict=strict)
        if not self.workers:
            return map(compute, batches)
        from noumena.cli.data_scoring import scored_by_workers

        found = scored_by_workers(source, opened.family.name, batches, self.workers)
        return ({"score": scores} for scores in found)
