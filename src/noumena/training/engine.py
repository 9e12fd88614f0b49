"""``fit``: prepare the model, train it with Lightning, keep the best weights, save."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.profilers import PassThroughProfiler

from noumena.core.data import Dataset
from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.core.model import LatentModel
from noumena.core.seeding import seeded
from noumena.files import clear_leftovers
from noumena.registry import model_name
from noumena.training.callbacks import Checkpointer, OnEpoch, ProgressBar, Recorder, restore_best
from noumena.training.checkpoint_io import SafeCheckpointIO
from noumena.training.data import DataModule
from noumena.training.history import History
from noumena.training.module import TrainingModule
from noumena.training.processes import (
    can_run_again,
    is_main_process,
    is_started_by_srun,
    launched_processes,
)
from noumena.training.settings import FitSettings
from noumena.training.solving import solve

log = logging.getLogger("noumena")

CHECKPOINT = Path("checkpoints") / "last.safetensors"


def fit(
    model: LatentModel,
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> History:
    """Train ``model`` and leave it with its best weights (or its last, see ``keep``), in evaluation mode.

    Args:
        model: any Noumena model. Sizes it leaves open are inferred from ``train``.
        train, val, test: arrays, paths or the family's dataset. The lowest loss on ``val`` chooses the weights that
            are kept; ``test`` is only recorded.
        run_dir: folder for ``metrics.csv``, ``log.txt``, ``checkpoints/`` and ``model/``; nothing is written when
            missing.
        resume: continue from the checkpoint in ``run_dir`` to the very weights an uninterrupted run would reach.
        on_epoch: called after each epoch with its number (from 0) and its row of the history, by every process. It may
            raise :class:`~noumena.core.errors.StopTraining`, which leaves the model with its best weights so far.
            Models that are solved at once have no epochs and never call it.
        options: see :class:`~noumena.training.FitSettings`: ``max_epochs``, ``batch_size``, ``lr``, ``seed``, ...

    Returns:
        The history: ``{split}_loss`` and ``{split}_{term}`` for each epoch.

    Raises:
        ConfigError: an unknown or impossible option.
        DataError: data that do not fit each other or the model.
        TrainingDiverged: the loss became NaN or infinite.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved when there is a ``run_dir``.
        ArtifactError: the run folder cannot be written, holds no checkpoint to resume from, or another training.
    """
    settings = FitSettings.from_options(options)
    folder = None if run_dir is None else Path(run_dir)
    check_processes(settings, type(model))
    if not model.trains_by_gradient:
        # A killed one has nothing to go on from and is solved again, to the same result.
        with _log_file(folder):
            return solve(model, *_datasets(model, train, val, test), settings, folder)
    if resume and (folder is None or not (folder / CHECKPOINT).is_file()):
        raise ArtifactError(f"nothing to resume: {folder or 'no run_dir'} holds no {CHECKPOINT}. Start a new run.")
    if folder is not None and not resume and is_main_process() and (folder / CHECKPOINT).is_file():
        raise ArtifactError(
            f"{folder} holds a training already. Continue it with resume=True, or choose another run_dir."
        )
    if folder is not None:
        model_name(type(model))  # refuses a model that could not be saved in the end
        if is_main_process():
            clear_leftovers(folder, (folder / CHECKPOINT).parent)
    datasets = _datasets(model, train, val, test)
    stopping, calibration = (None, None) if datasets[1] is None else model.divide_validation(datasets[1])
    model.prepare(datasets[0], seed=settings.seed)
    module = TrainingModule(model.train(), settings)
    prepared = (None if part is None else model.for_training(part) for part in (stopping, datasets[2]))
    data = DataModule(
        model.for_training(datasets[0]),
        *prepared,
        batch_size=settings.batch_size,
        seed=settings.seed,
        least=model.least_batch,
    )
    recorder = Recorder(settings, None if folder is None else folder / "metrics.csv", on_epoch)
    callbacks: list[pl.Callback] = [recorder]
    if folder is not None:
        callbacks.append(Checkpointer(folder / CHECKPOINT, _identity(model, datasets, settings), settings))
    if settings.progress and sys.stderr.isatty():
        callbacks.append(ProgressBar(settings.max_epochs, recorder))
    with _log_file(folder), _quiet_lightning(), seeded(settings.seed):
        trainer = _trainer(settings, folder, callbacks, has_val=datasets[1] is not None)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(folder / CHECKPOINT) if resume and folder else None)
        finally:
            # Also after a divergence or an interruption the model is left usable.
            restore_best(model, recorder)
            model.eval()
        model.after_fit(datasets[0], calibration)
        recorder.history.is_main = trainer.is_global_zero
        if folder is not None and trainer.is_global_zero:
            model.save(folder / "model", overwrite=True)
    return recorder.history


def check_processes(settings: FitSettings, model: type[LatentModel]) -> None:
    """Refuse to train the same in several processes, and to start further ones where nothing can be started again.

    Args:
        settings: of the training.
        model: its class.

    Raises:
        ConfigError: it names the settings that fit the processes.
    """
    started = launched_processes()
    wanted = settings.devices * settings.num_nodes if model.trains_by_gradient else 1
    if started is None and model.trains_by_gradient and settings.devices > 1 and not can_run_again():
        raise ConfigError(
            f"fit.devices={settings.devices}: each further device takes a process that runs this program again, and "
            "there is none in a notebook, an interactive session or a program from standard input or `python -c`. Use "
            "`noumena fit`, or put the lines into a file and run that; here, fit.devices=1."
        )
    if started is None or started == wanted:
        return
    if not model.trains_by_gradient:
        raise ConfigError(
            f"{model.__name__} is solved at once, by one process; {started} were started. Start it without torchrun or "
            "srun."
        )
    nodes = settings.num_nodes if started % settings.num_nodes == 0 else 1
    raise ConfigError(
        f"{started} processes were started by torchrun or srun, but fit.devices={settings.devices} times "
        f"fit.num_nodes={settings.num_nodes} is {wanted}. Set fit.num_nodes={nodes} fit.devices={started // nodes} "
        "(processes of each node), or start as many processes."
    )


def _datasets(model: LatentModel, *parts: Any) -> tuple[Dataset, Dataset | None, Dataset | None]:
    train, val, test = (None if part is None else model.as_dataset(part) for part in parts)
    if train is None:
        raise DataError("fit needs training data: an array, a path or a dataset, got None.")
    if val is None and test is not None:
        raise DataError("fit got test data without validation data; pass val as well, it chooses the weights.")
    for name, part in (("val", val), ("test", test)):
        for entry in ("columns", "modalities"):
            found, expected = (list(data.schema.get(entry, [])) for data in (part or train, train))
            if found != expected:
                raise DataError(
                    f"{name} has the {entry} {found}, train has {expected}. Give the same {entry} in the same order."
                )
    return train, val, test


# What may change when a run is resumed: how long and where it trains, and what it tells.
_CHANGEABLE = {
    *("max_epochs", "patience", "accelerator", "devices", "num_nodes", "strategy", "logger", "progress"),
    *("checkpoint_seconds", "checkpoint_every_n_steps"),
}


def _identity(
    model: LatentModel, datasets: tuple[Dataset, Dataset | None, Dataset | None], settings: FitSettings
) -> dict[str, Any]:
    """Everything that decides which weights the training reaches."""
    train, val, _ = datasets
    fixed = {name: value for name, value in vars(settings).items() if name not in _CHANGEABLE}
    # The cosine schedule is stretched over all epochs, so that another number of them is another training.
    return {
        "model": type(model).__qualname__,
        "hyperparameters": model.hyperparameters(),
        "data": train.fingerprint(),
        "validation data": None if val is None else val.fingerprint(),
        **fixed,
        **({"max_epochs": settings.max_epochs} if _stretched(settings) else {}),
    }


def _stretched(settings: FitSettings) -> bool:
    return settings.lr_schedule == "cosine" and settings.schedule_epochs is None


def _trainer(settings: FitSettings, folder: Path | None, callbacks: list[pl.Callback], *, has_val: bool) -> pl.Trainer:
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.gradient_clip,
            callbacks=callbacks,
            plugins=[SafeCheckpointIO(), *_environment()],
            logger=_logger(settings, folder),
            profiler=_NoProfiler(),
            default_root_dir=folder,
            limit_val_batches=None if has_val else 0,
            # A resumed epoch is shorter than the others, so its loader cannot serve them.
            reload_dataloaders_every_n_epochs=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (ValueError, RuntimeError, ModuleNotFoundError, MisconfigurationException) as error:
        raise ConfigError(
            f"fit.accelerator={settings.accelerator} devices={settings.devices} strategy={settings.strategy} "
            f"precision={settings.precision} cannot be had here: {error}"
        ) from error


def _environment() -> list[ClusterEnvironment]:
    """Who started the processes, where Lightning would guess wrong inside a job of SLURM."""
    if is_started_by_srun():
        # No second way to resume: Lightning's own requeueing would go back to an older checkpoint.
        return [SLURMEnvironment(auto_requeue=False)]
    if "SLURM_NTASKS" in os.environ and launched_processes() is None:
        # Without srun nobody else comes; Lightning would wait for as many processes as the job has tasks.
        return [LightningEnvironment()]
    return []


class _NoProfiler(PassThroughProfiler):
    """Lightning enters a profiling context some fifty times per step; this one costs nothing."""

    _context = nullcontext()

    def profile(self, action_name: str) -> Any:
        """A context that does nothing."""
        return self._context


def _logger(settings: FitSettings, folder: Path | None) -> Any:
    if settings.logger == "none":
        return False
    where = folder or Path.cwd()
    try:
        if settings.logger == "tensorboard":
            from pytorch_lightning.loggers import TensorBoardLogger

            return TensorBoardLogger(where, name="tensorboard", version="")
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(project="noumena", save_dir=where)
    except ModuleNotFoundError as error:
        raise ConfigError(f"fit.logger={settings.logger} needs: pip install 'noumena[tracking]' ({error}).") from error


@contextmanager
def _log_file(folder: Path | None) -> Iterator[None]:
    """Copy this package's log to ``log.txt`` of the run."""
    if folder is None or not is_main_process():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror}. Choose another folder.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    except BaseException as error:
        # To the file alone: on the terminal the caller shows the error.
        handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, f"{type(error).__name__}: {error}", (), None))
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice on loaders and devices does not apply to loaders without workers."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
