"""A LatentModel as a LightningModule."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from noumena.core.batches import Minibatch
from noumena.core.losses import BetaSchedule
from noumena.core.model import LatentModel
from noumena.core.posterior import active_units
from noumena.core.seeding import Noise, fold, seed_global
from noumena.training.data import DataModule
from noumena.training.diagnosis import explain_divergence
from noumena.training.lars import LARS
from noumena.training.meter import Meter
from noumena.training.settings import FitSettings

_EVALUATION_SPLITS = ("val", "test")
_LARS_BATCH = 256  # samples that the rate of LARS is given for


class TrainingModule(pl.LightningModule):
    """Trains a :class:`~noumena.core.model.LatentModel` under any Lightning Trainer.

    The model must be prepared (sizes known, preprocessing fitted); :func:`noumena.training.fit` and
    :meth:`LatentModel.prepare` do that. Logs ``train_*``, ``val_*`` and ``test_*`` once per epoch.
    """

    def __init__(self, model: LatentModel, settings: FitSettings | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings or FitSettings()
        self.train_meter = self._meter("train")
        self.eval_meters = [self._meter(split) for split in _EVALUATION_SPLITS]
        self.epoch_metrics: dict[str, float] = {}
        self.active_units: int | None = None
        self.check_checkpoint: Callable[[Mapping[str, Any]], None] = lambda checkpoint: None
        self._beta = BetaSchedule()

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this plain string some forty times per step; nn.Module's checks would cost small models 5 %.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _meter(self, split: str) -> Meter:
        meter = Meter(split)
        meter.explain = lambda terms: explain_divergence(split, terms, self.settings)
        return meter

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Look at a checkpoint before its weights are loaded."""
        self.check_checkpoint(checkpoint)

    # Optimisation

    def configure_optimizers(self) -> Any:
        """The optimiser and schedule of the settings; fused kernels where the device has them."""
        settings = self.settings
        optimizer = self._optimizer()
        if settings.lr_schedule == "constant":
            return optimizer
        if settings.lr_schedule == "cosine":
            rate = _cosine(self._steps_per_epoch, settings)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        patience = settings.lr_patience if settings.lr_patience is not None else (settings.patience or 20) // 2
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=settings.lr_factor, patience=patience)
        monitor = "val_loss" if self.trainer.enable_validation else "train_loss"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": monitor}}

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        if settings.optimizer == "lars":
            rate = settings.lr * settings.batch_size / _LARS_BATCH
            return LARS(self.parameters(), rate, weight_decay=settings.weight_decay)
        cls = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        # Under a gradient scaler a fused step unscales inside, where clipping could not see the true norm; Lightning
        # refuses to clip before it in any mixed precision.
        clipped = settings.precision.endswith("-mixed") and settings.gradient_clip is not None
        fused = self.device.type in ("cpu", "cuda") and settings.precision != "16-mixed" and not clipped
        betas = (0.9, settings.beta2)
        return cls(self.parameters(), settings.lr, betas, weight_decay=settings.weight_decay, fused=fused)

    @property
    def _steps_per_epoch(self) -> int:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule):
            return data.steps_per_epoch
        return max(1, int(self.trainer.estimated_stepping_batches) // max(1, self.trainer.max_epochs or 1))

    def on_fit_start(self) -> None:
        """Turn the beta schedule's epochs into steps."""
        if self.settings.beta_schedule != "constant":
            period = max(1, round(self.settings.beta_period_epochs * self._steps_per_epoch))
            self._beta = BetaSchedule(self.settings.beta_schedule, period)

    # Steps

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a minibatch unless it is there already."""
        return batch.to(device) if hasattr(batch, "to") else super().transfer_batch_to_device(batch, device, 0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One loss; draws depend on (seed, epoch, batch) only."""
        minibatch = self._minibatch(batch, batch_idx)
        # For models that draw from the global generator (dropout); each process has its own stream.
        seed_global(fold(minibatch.noise.seed, self.trainer.global_rank), self.trainer.strategy.root_device)
        step = self.trainer.global_step
        terms = self.model.loss(minibatch.data, noise=minibatch.noise, beta_scale=self._beta(step))
        self.train_meter.add(terms, minibatch.size, step)
        return terms.total if minibatch.weight == 1.0 else terms.total * minibatch.weight

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the loss terms of a validation or test batch, at full beta."""
        minibatch = self._minibatch(batch, batch_idx)
        terms = self.model.loss(minibatch.data, noise=minibatch.noise)
        self.eval_meters[dataloader_idx].add(terms, minibatch.size, self.trainer.global_step)
        if batch_idx == 0 and dataloader_idx == 0:
            means = self.model.encode(minibatch.data).mean.flatten(0, -2)
            # Of a single one nothing varies, and that says nothing of the latent.
            self.active_units = active_units(means) if len(means) > 1 else None

    def _minibatch(self, batch: Any, batch_idx: int) -> Minibatch:
        if isinstance(batch, Minibatch):
            return batch
        noise = Noise(fold(self.settings.seed, self.current_epoch, batch_idx, self.global_rank))
        return Minibatch(batch, len(batch), 1.0, noise)

    # Epoch ends

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """``values`` added up over processes, float64 on the CPU."""
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum").cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the means of the validation and test losses."""
        for meter in self.eval_meters:
            means = meter.means(self.sum_over_processes)
            self.epoch_metrics.update(means)
            self._log(means)

    def finish_train_epoch(self) -> dict[str, float]:
        """Means of the epoch's training and validation terms; called once, when the epoch has ended."""
        means = self.train_meter.means(self.sum_over_processes)
        metrics = {**means, **self.epoch_metrics}
        self.epoch_metrics = {}
        self._log(means)
        return metrics

    def on_train_epoch_end(self) -> None:
        """Log the means of the training loss, where no callback has taken them."""
        self._log(self.train_meter.means(self.sum_over_processes))

    def _log(self, means: Mapping[str, float]) -> None:
        for name, value in means.items():
            self.log(name, value, logger=True)


def _cosine(steps_per_epoch: int, settings: FitSettings) -> Callable[[int], float]:
    total = (settings.schedule_epochs or settings.max_epochs) * steps_per_epoch
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    passed = round(settings.schedule_start * steps_per_epoch)

    def rate(step: int) -> float:
        step += passed
        if step < warmup:
            return (step + 1) / warmup
        # Loshchilov & Hutter 2017, eq. 5, one cycle.
        progress = (step - warmup) / max(1, total - warmup)
        falling = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return settings.lr_floor + (1.0 - settings.lr_floor) * falling

    return rate
