"""What happened in training, epoch by epoch."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from noumena.core.errors import ArtifactError
from noumena.files import write_text


@dataclass
class History(Mapping[str, list[float]]):
    """Columns of numbers, one entry per epoch: ``train_loss``, ``val_kl``, ``lr``, ``seconds``, ...

    Attributes:
        columns: the numbers; ``history["val_loss"]`` is the same as ``history.columns["val_loss"]``.
        best_epoch: epoch (from 0) whose weights were kept; ``None`` before the first one ended.
        stopped_early: whether patience ran out.
        is_main: whether this process is the one that writes files (always true without distributed training).
    """

    columns: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    stopped_early: bool = False
    is_main: bool = True

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(next(iter(self.columns.values()), []))

    def append(self, row: Mapping[str, float]) -> None:
        """Add one epoch."""
        for name, value in row.items():
            self.columns.setdefault(name, []).append(float(value))

    def write_csv(self, path: Path) -> None:
        """Write as CSV with a column ``epoch`` in front, whole or not at all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *self.columns])
        writer.writerows([epoch, *map(repr, row)] for epoch, row in enumerate(zip(*self.columns.values(), strict=True)))
        write_text(path, text.getvalue())

    @classmethod
    def read_csv(cls, path: Path) -> "History":
        """Read what :meth:`write_csv` wrote.

        Raises:
            ArtifactError: the file is missing or is no such table.
        """
        try:
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file))
            columns = {name: [float(row[i]) for row in rows] for i, name in enumerate(header)}
        except (OSError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path} is not a metrics file of a run: {error}.") from error
        columns.pop("epoch", None)
        return cls(columns=columns)
