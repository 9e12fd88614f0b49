"""What happens at the end of batches and epochs: history, best weights, early stopping, checkpoints, progress."""

import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from noumena.core.errors import ArtifactError, TrainingInterrupted
from noumena.training.diagnosis import warn_of
from noumena.training.history import History
from noumena.training.module import TrainingModule
from noumena.training.settings import FitSettings

log = logging.getLogger("noumena")

_SETTLED_EPOCHS = 10

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called with the epoch (from 0) and its row of the history; may raise :class:`~noumena.core.errors.StopTraining`."""


class Recorder(pl.Callback):
    """Keeps the history, the best weights and the early-stopping count, and writes ``metrics.csv``."""

    def __init__(self, settings: FitSettings, metrics_path: Path | None, on_epoch: OnEpoch | None = None) -> None:
        self.settings = settings
        self.metrics_path = metrics_path
        self.on_epoch = on_epoch
        self.history = History()
        self.best_loss = float("inf")
        self.best_weights: dict[str, Tensor] = {}
        self.epochs_without_improvement = 0
        self._started = time.perf_counter()
        self._warned: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a resumed training that had run out of patience from going on."""
        trainer.should_stop = self.history.stopped_early

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch, keep its weights if they are the best, stop if patience ran out."""
        assert isinstance(pl_module, TrainingModule)
        metrics = pl_module.finish_train_epoch()
        loss = metrics.get("val_loss")
        if loss is not None:
            self._judge(loss, trainer, pl_module)
        row = {"step": float(trainer.global_step), "lr": trainer.optimizers[0].param_groups[0]["lr"], **metrics}
        if pl_module.active_units is not None and loss is not None:
            row["active_units"] = float(pl_module.active_units)
        self.history.append({**row, "seconds": time.perf_counter() - self._started})
        if trainer.is_global_zero:
            self._report(trainer.current_epoch, row, pl_module)
        if self.on_epoch is not None:
            self.on_epoch(trainer.current_epoch, row)

    def _judge(self, loss: float, trainer: pl.Trainer, module: TrainingModule) -> None:
        if loss < self.best_loss - self.settings.min_delta:
            self.best_loss = loss
            self.history.best_epoch = trainer.current_epoch
            self.epochs_without_improvement = 0
            if self.settings.keep == "best":
                _copy(module.model.state_dict(), self.best_weights)
            return
        self.epochs_without_improvement += 1
        if self.settings.patience is not None and self.epochs_without_improvement >= self.settings.patience:
            self.history.stopped_early = True
            trainer.should_stop = True

    def _report(self, epoch: int, row: Mapping[str, float], module: TrainingModule) -> None:
        if self.metrics_path is not None:
            self.history.write_csv(self.metrics_path)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "lr"))
        log.info("epoch %d/%d  %s", epoch + 1, self.settings.max_epochs, losses)
        latents = module.model.prior_size
        if latents is None:
            return
        settled = epoch + 1 >= min(_SETTLED_EPOCHS, self.settings.max_epochs)
        can_free = hasattr(module.model, "free_bits")
        for warning in warn_of(row, latents, module.active_units, settled=settled, free_bits=can_free):
            name = warning.partition(":")[0]
            if name not in self._warned:
                self._warned.add(name)
                log.warning("%s", warning)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming epochs depend on."""
        return {
            "columns": {name: list(values) for name, values in self.history.columns.items()},
            "best_epoch": self.history.best_epoch,
            "stopped_early": self.history.stopped_early,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "epochs_without_improvement": self.epochs_without_improvement,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.history.columns = state_dict["columns"]
        self.history.best_epoch = state_dict["best_epoch"]
        self.history.stopped_early = state_dict["stopped_early"]
        self.best_loss = state_dict["best_loss"]
        self.best_weights = state_dict["best_weights"]
        self.epochs_without_improvement = state_dict["epochs_without_improvement"]


def _copy(source: Mapping[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in source.items():
        if name in target:
            target[name].copy_(tensor)
        else:
            target[name] = tensor.detach().clone()


class Checkpointer(pl.Callback):
    """Saves the whole state of the training at batch boundaries, and continues from it.

    Lightning's own loop counters are left out of the file and set from ``(epoch, position)`` instead: restored as
    they stand, they would lose the plateau schedule's last step, which Lightning takes after its epoch-end callbacks.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], settings: FitSettings) -> None:
        """
        Args:
            path: the checkpoint file.
            identity: JSON-able facts (model, hyperparameters, data) that must be the same when resuming.
            settings: of the training.
        """
        self.path = path
        self.identity = dict(identity)
        self.settings = settings
        self._offset = 0
        self._position = 0
        self._epoch = 0
        self._last = time.monotonic()
        self._stop_signal: int | None = None
        self._previous: dict[int, Any] = {}

    # Saving

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save between epochs: the one before is finished to its last schedule step."""
        self._epoch = trainer.current_epoch
        self._position = self._offset
        if self._offset == 0 and trainer.current_epoch > 0:
            self._save_if_due(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch, and stop here when asked to."""
        self._position = self._offset + batch_idx + 1
        assert trainer.num_training_batches < float("inf")
        if batch_idx + 1 >= trainer.num_training_batches:
            self._offset = 0
            return
        if self._stop_signal is not None:
            self._save(trainer)
            raise self._interrupted()
        if self._position % self.settings.checkpoint_every_n_steps == 0:
            self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the finished training."""
        self._epoch, self._position = trainer.current_epoch, 0
        self._save(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        stop = self._stop_signal is not None
        due = stop or time.monotonic() - self._last >= self.settings.checkpoint_seconds
        # One clock decides for all processes, because saving is a joint act.
        if trainer.strategy.broadcast(due) if trainer.world_size > 1 else due:
            self._save(trainer)
        if stop:
            raise self._interrupted()

    def _interrupted(self) -> TrainingInterrupted:
        run = self.path.parent.parent
        return TrainingInterrupted(
            f"stopped in epoch {self._epoch + 1} after {self._position} batches; all of it is saved. "
            f"Continue with `noumena fit --resume {run}`, or in Python with resume=True."
        )

    def _save(self, trainer: pl.Trainer) -> None:
        module = trainer.lightning_module
        assert isinstance(module, TrainingModule)
        module.train_meter.flush()
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the position in place of the loop counters."""
        assert isinstance(pl_module, TrainingModule)
        checkpoint.pop("loops", None)
        checkpoint["noumena"] = {
            "identity": self.identity,
            "epoch": self._epoch,
            "position": self._position,
            "global_step": trainer.global_step,
            "meter": pl_module.train_meter.state(pl_module.sum_over_processes),
        }

    # Resuming

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have a foreign checkpoint refused before its weights are loaded, which might not fit."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.check_checkpoint = self._check_identity

    def _check_identity(self, checkpoint: Mapping[str, Any]) -> None:
        identity = checkpoint["noumena"]["identity"]
        for name, value in self.identity.items():
            if identity.get(name) != value:
                raise ArtifactError(
                    f"{self.path} was trained with another {name} ({identity.get(name)} instead of {value}). "
                    "Resume with what the run began with, or start a new run."
                )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set Lightning's counters and the data to the saved position."""
        assert isinstance(pl_module, TrainingModule)
        state = checkpoint["noumena"]
        engine: Any = trainer
        loop = engine.fit_loop
        loop.epoch_progress.current.processed = loop.epoch_progress.current.completed = state["epoch"]
        loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = state["global_step"]
        loop.epoch_loop._batches_that_stepped = state["global_step"]
        engine.datamodule.start = self._offset = state["position"]
        pl_module.train_meter.restore(state["meter"], is_main=trainer.is_global_zero)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for Ctrl-C and SIGTERM, so that the first one saves before it stops."""
        if trainer.world_size > 1:  # processes would stop at different batches and wait for each other
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not in the main thread: signals are somebody else's
                return

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop_signal is not None:
            raise KeyboardInterrupt
        self._stop_signal = number
        log.warning("stopping after this batch; a second signal stops at once")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class ProgressBar(pl.Callback):
    """One line on the terminal: epoch, batches, loss terms."""

    def __init__(self, max_epochs: int, recorder: Recorder) -> None:
        self.max_epochs = max_epochs
        self.recorder = recorder
        self._shown = 0.0
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            transient=True,
        )
        self._task = self._progress.add_task("fit", total=max_epochs, terms="")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, once for all processes."""
        if trainer.is_global_zero:
            self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh four times a second at most, from numbers that are on the host already."""
        now = time.monotonic()
        if now - self._shown < 0.25:
            return
        self._shown = now
        assert isinstance(pl_module, TrainingModule)
        share = (batch_idx + 1) / trainer.num_training_batches
        val = {"val": self.recorder.history["val_loss"][-1]} if "val_loss" in self.recorder.history else {}
        terms = {**val, **pl_module.train_meter.latest}
        text = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self._progress.update(self._task, completed=trainer.current_epoch + share, terms=text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away before the error is shown."""
        self._progress.stop()


def restore_best(model: torch.nn.Module, recorder: Recorder) -> None:
    """Load the weights of the epoch with the lowest validation loss, if there was one."""
    if recorder.best_weights:
        model.load_state_dict(recorder.best_weights)
