"""The options of ``fit``, in one place: their names, types, defaults and ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from noumena.core.errors import ConfigError, did_you_mean
from noumena.core.losses import BetaScheduleKind

Optimizer = Literal["adam", "adamw", "lars"]
Keep = Literal["best", "last"]
LRSchedule = Literal["constant", "plateau", "cosine"]
Logger = Literal["none", "tensorboard", "wandb"]
Precision = Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "bf16-true"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train. The ``fit`` section of a recipe and the keywords of every ``fit`` are these.

    Attributes:
        max_epochs: passes over the training data at most.
        batch_size: samples per optimiser step, over all processes together.
        lr: learning rate.
        optimizer: Adam; AdamW with decoupled weight decay; or LARS (momentum 0.9, eta 0.001), whose rate is ``lr`` per
            256 samples of the batch.
        weight_decay: of the optimiser.
        beta2: decay of Adam's second moment.
        lr_schedule: ``constant``; ``plateau`` multiplies the rate by ``lr_factor`` after ``lr_patience`` epochs
            without improvement; ``cosine`` rises linearly for ``warmup_epochs`` and falls to ``lr_floor`` times the
            rate at ``max_epochs``.
        lr_factor, lr_patience: of the plateau schedule; the patience is half of ``patience`` when missing.
        warmup_epochs, lr_floor: of the cosine schedule.
        schedule_epochs: length of the cosine schedule, where training is to stop before its end; ``max_epochs`` when
            missing.
        schedule_start: epochs that the cosine schedule counts as passed before the first step.
        patience: epochs without a lower validation loss after which training stops; ``None`` never stops early.
            Without validation data the last weights are kept.
        keep: the weights with the lowest validation loss, or the last ones, for a loss that says little about how
            good the latents are.
        min_delta: improvement of the validation loss that counts as one.
        gradient_clip: largest norm of the gradient; ``None`` does not clip.
        beta_schedule, beta_period_epochs: see :class:`~noumena.core.losses.BetaSchedule`.
        seed: of the initial weights, the order of the data and every random draw.
        precision: as Lightning names it.
        accelerator, devices, num_nodes, strategy: passed to Lightning's Trainer.
        logger: besides ``metrics.csv``: TensorBoard or Weights & Biases (extra ``tracking``).
        progress: show a progress bar on a terminal.
        checkpoint_seconds: least time between two checkpoints.
        checkpoint_every_n_steps: within an epoch, checkpoints fall on multiples of this step.
    """

    max_epochs: int = 100
    batch_size: int = 256
    lr: float = 1e-3
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    beta2: float = 0.999
    lr_schedule: LRSchedule = "plateau"
    lr_factor: float = 0.5
    lr_patience: int | None = None
    warmup_epochs: float = 0.0
    lr_floor: float = 0.0
    schedule_epochs: int | None = None
    schedule_start: float = 0.0
    keep: Keep = "best"
    patience: int | None = 15
    min_delta: float = 0.0
    gradient_clip: float | None = None
    beta_schedule: BetaScheduleKind = "constant"
    beta_period_epochs: float = 10.0
    seed: int = 0
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    logger: Logger = "none"
    progress: bool = True
    checkpoint_seconds: float = 30.0
    checkpoint_every_n_steps: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_number(field.name, field.type, getattr(self, field.name))
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise ConfigError(f"fit.{name}: expected a finite number of at least {least}, got {value}.")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"fit.{name}: unknown '{value}'. {did_you_mean(str(value), choices)}")
        for name in ("lr", "gradient_clip", "beta_period_epochs"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ConfigError(f"fit.{name}: expected a finite number above 0, got {value}.")
        if not 0.0 < self.lr_factor < 1.0:
            raise ConfigError(f"fit.lr_factor: expected a number between 0 and 1, got {self.lr_factor}.")
        for name in ("beta2", "lr_floor"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"fit.{name}: expected a number from 0 to below 1, got {getattr(self, name)}.")
        if "spawn" in self.strategy or "notebook" in self.strategy or "fork" in self.strategy:
            raise ConfigError(
                f"fit.strategy: '{self.strategy}' trains in copies whose history and best weights would be lost. "
                "Use 'ddp' or 'fsdp' from a script or the command line."
            )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "FitSettings":
        """Settings from keywords.

        Raises:
            ConfigError: an unknown keyword, with the nearest known one, or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"fit has no option '{name}'. {did_you_mean(name, known)}")
        return cls(**options)


_CHOICES = {
    "optimizer": get_args(Optimizer),
    "keep": get_args(Keep),
    "lr_schedule": get_args(LRSchedule),
    "beta_schedule": get_args(BetaScheduleKind),
    "precision": get_args(Precision),
    "logger": get_args(Logger),
}
_AT_LEAST = {
    "max_epochs": 1,
    "batch_size": 1,
    "weight_decay": 0.0,
    "lr_patience": 0,
    "warmup_epochs": 0.0,
    "lr_floor": 0.0,
    "schedule_epochs": 1,
    "schedule_start": 0.0,
    "patience": 1,
    "min_delta": 0.0,
    "devices": 1,
    "num_nodes": 1,
    "checkpoint_seconds": 0.0,
    "checkpoint_every_n_steps": 1,
}


def _check_number(name: str, kind: Any, value: Any) -> None:
    """Refuse what the comparisons of ranges would make no sense of."""
    if kind not in (int, int | None, float, float | None) or (value is None and kind in (int | None, float | None)):
        return
    whole = kind in (int, int | None)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ConfigError(f"fit.{name}: expected {'an integer' if whole else 'a number'}, got {value!r}.")
