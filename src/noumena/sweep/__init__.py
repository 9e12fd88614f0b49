"""Sweeps: many runs of one recipe with other values, chosen by optuna, by any number of processes on one study."""

from noumena.sweep.plan import Plan
from noumena.sweep.space import Choices, Range, Space, read_space

__all__ = ["Choices", "Plan", "Range", "Space", "read_space"]
