"""Reading run folders as they lie on disk: whole, interrupted or broken, without loading a weight or a family."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from noumena.artifact.manifest import Manifest, read_manifest, read_small
from noumena.artifact.store import model_folder
from noumena.config.recipes import parse_yaml
from noumena.core.errors import ArtifactError, NoumenaError
from noumena.files import is_busy
from noumena.training.history import History

FINISHED, TRAINING, INTERRUPTED, BROKEN = "finished", "training", "interrupted", "broken"
# Where `noumena.training.engine` puts it; imported from there it would cost the seconds that Lightning takes.
_CHECKPOINT = Path("checkpoints") / "last.safetensors"
_MARKS = (Path("config.yaml"), Path("metrics.csv"), _CHECKPOINT)
_LEVELS = 3  # runs/RUN, runs/SWEEP/RUN, runs/SWEEP/trials/RUN


@dataclass(frozen=True)
class Run:
    """What a run folder, or a model folder without a run, tells about itself.

    Attributes:
        path: the folder.
        state: ``finished``, ``training`` (a process is at it now), ``interrupted`` (`noumena fit --resume` goes on with
            it) or ``broken``.
        reason: of the state, in a few words; empty where there is nothing to say.
        recipe: where the configuration began; empty for a model folder.
        model: registered name, as in ``density/vae``; empty where nothing tells it.
        config: sections of the configuration. ``model`` holds every hyperparameter where the model was saved, and
            those of ``config.yaml`` where it was not.
        history: of the training; empty where none was recorded.
        metrics: of ``evaluation.json``; ``None`` for a number that was not finite.
        when: time of saving, or of the last sign of life; ``None`` where nothing tells it.
        data: fingerprint of the training data; ``None`` where the model does not tell it.
    """

    path: Path
    state: str
    reason: str = ""
    recipe: str = ""
    model: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    history: History = field(default_factory=History)
    metrics: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    when: datetime | None = None
    data: str | None = None

    @property
    def family(self) -> str:
        """The family of the model."""
        return self.model.partition("/")[0]

    @property
    def training_seconds(self) -> float | None:
        """Seconds the recorded epochs took together."""
        seconds = self.history.columns.get("seconds")
        return sum(seconds) if seconds else None

    def all_metrics(self) -> dict[str, float | None]:
        """Those of the evaluation, and the losses at the best epoch as ``best_epoch/val_loss``, ..."""
        return {**self.metrics, **best_losses(self.history)}


class _Damage(Exception):
    """Why a folder is broken, in a few words."""


def find_runs(folder: str | Path) -> list[Run]:
    """The runs in ``folder`` and in the folders of its folders, as sweeps make them, by path.

    A folder that is a run is not searched further; hidden ones are left out.

    Raises:
        ArtifactError: there is no such folder, or it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder. Give the one that holds runs; `noumena fit` makes them in runs/.")
    try:
        return _search(folder, _LEVELS) if not _is_run(folder) else [read_run(folder)]
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror or error}.") from error


def _search(folder: Path, levels: int) -> list[Run]:
    found: list[Run] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            if _is_run(path):
                found.append(read_run(path))
            elif levels > 1:
                found += _search(path, levels - 1)
        except OSError as error:
            found.append(Run(path, BROKEN, f"cannot be read: {error.strerror or error}"))
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def read_run(folder: str | Path) -> Run:
    """The run in ``folder``, or the model there without a run; a broken one is told by its state.

    Raises:
        ArtifactError: the folder is neither.
    """
    folder = Path(folder)
    try:
        if not _is_run(folder) and not (model_folder(folder) / "manifest.json").is_file():
            what = "it holds none of their files" if folder.is_dir() else "it is no folder"
            raise ArtifactError(
                f"{folder} is neither a run nor a model folder: {what}. Give what `noumena fit` or `save` made; "
                "`noumena runs` lists runs."
            )
        return _read(folder)
    except OSError as error:
        return Run(folder, BROKEN, f"cannot be read: {error.strerror or error}")


def _read(folder: Path) -> Run:
    """Every part that can be read, whatever is the matter with the others; the first damage is the reason."""
    damages: list[str] = []

    def attempt(part: Any, otherwise: Any) -> Any:
        try:
            return part(folder)
        except _Damage as damage:
            damages.append(str(damage))
            return otherwise

    recipe, config = attempt(_read_config, ("", {}))
    manifest: Manifest | None = attempt(_read_manifest, None)
    hyperparameters = {} if manifest is None else attempt(_read_hyperparameters, {})
    history: History = attempt(_read_history, History())
    metrics = attempt(read_metrics, {})
    section = config.get("model", {})
    name = manifest.model if manifest is not None else str(section.get("name", ""))
    if hyperparameters:
        section = {"name": name, **hyperparameters}
    state, reason = _state(folder, config, manifest, history, attempt)
    if state == INTERRUPTED and is_busy(folder):
        state = TRAINING
    return Run(
        folder,
        BROKEN if damages else state,
        damages[0] if damages else reason,
        recipe,
        name,
        {**config, **({"model": section} if section else {})},
        history,
        metrics,
        _when(folder, manifest),
        None if manifest is None else manifest.data,
    )


def _state(
    folder: Path, config: Mapping[str, Any], manifest: Manifest | None, history: History, attempt: Any
) -> tuple[str, str]:
    if not config:
        if manifest is None:
            return INTERRUPTED, "made in Python: no config.yaml; go on there with resume=True"
        return FINISHED, "a model without a run" if not _is_run(folder) else "made in Python: not evaluated"
    if manifest is not None and (folder / "evaluation.json").is_file():
        return FINISHED, ""
    if manifest is not None:
        return INTERRUPTED, "trained, not evaluated"
    if not (folder / _CHECKPOINT).is_file():
        return INTERRUPTED, "before its first checkpoint"
    attempt(_check_checkpoint, None)
    planned = config.get("fit", {}).get("max_epochs")
    return INTERRUPTED, f"{history.epochs} of {planned} epochs" if planned else f"after {history.epochs} epochs"


def _read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """The recipe's name and the sections; nothing for a model folder or a training that began in Python."""
    path = folder / "config.yaml"
    if not path.is_file():
        return "", {}
    try:
        text = read_small(path).decode("utf-8")
        config = parse_yaml(text, str(path))
    except (NoumenaError, UnicodeDecodeError, RecursionError) as error:
        raise _Damage("config.yaml is no configuration") from error
    sections = {name: value for name, value in config.items() if isinstance(value, dict)}
    if not isinstance(sections.get("model", {}).get("name"), str):
        raise _Damage("config.yaml names no model")
    first = text.partition("\n")[0]
    return (first.removeprefix("# recipe: ") if first.startswith("# recipe: ") else folder.name), sections


def _read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a saved model whose files are there at full length; their hashes are for `noumena verify`."""
    place = model_folder(folder)
    if place == folder and not (folder / "manifest.json").exists():
        return None
    try:
        manifest = read_manifest(place)
    except ArtifactError as error:
        raise _Damage("model/manifest.json is missing or damaged") from error
    for name, entry in manifest.files.items():
        path = place / name
        if not path.is_file():
            raise _Damage(f"model/{name} is missing")
        if path.stat().st_size != entry.bytes:
            raise _Damage(f"model/{name} has {path.stat().st_size} bytes instead of {entry.bytes}")
    return manifest


def _read_hyperparameters(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_small(model_folder(folder) / "config.json"))["hyperparameters"]
    except (ArtifactError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Damage("model/config.json is damaged") from error
    if not isinstance(found, dict):
        raise _Damage("model/config.json is damaged")
    return found


def _read_history(folder: Path) -> History:
    if not (folder / "metrics.csv").is_file():
        return History()
    try:
        return History.read_csv(folder / "metrics.csv")
    except ArtifactError as error:
        raise _Damage("metrics.csv is damaged") from error


def read_metrics(folder: Path) -> dict[str, float | None]:
    """``evaluation.json``; nothing where there is none."""
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_small(path))
        if not isinstance(found, dict):
            raise TypeError
        return {name: _number(value) for name, value in found.items()}
    except (ArtifactError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _Damage("evaluation.json is damaged") from error


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value if math.isfinite(value) else None


def _check_checkpoint(folder: Path) -> None:
    """Read the header, which tells a truncated file; the content has a hash that resuming checks."""
    try:
        with safe_open(folder / _CHECKPOINT, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise _Damage("the checkpoint is damaged") from error


def _when(folder: Path, manifest: Manifest | None) -> datetime | None:
    if manifest is not None:
        try:
            return datetime.fromisoformat(manifest.created)
        except ValueError:
            return None
    times = [(folder / mark).stat().st_mtime for mark in _MARKS if (folder / mark).is_file()]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def best_losses(history: History) -> dict[str, float | None]:
    """The loss of each split at the epoch of the lowest validation loss, or at the last epoch without a validation."""
    losses = history.columns.get("val_loss", [])
    finite = [epoch for epoch, value in enumerate(losses) if math.isfinite(value)]
    best = min(finite, key=losses.__getitem__) if finite else -1
    columns = ((split, history.columns.get(f"{split}_loss")) for split in ("train", "val", "test"))
    return {f"best_epoch/{split}_loss": _number(values[best]) for split, values in columns if values}
