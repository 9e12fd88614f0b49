"""Offline reinforcement learning: penalties and environments that know what the data cover, and data sets to test them.

- :class:`DensityPenalty`: what a transition pays for being unlike the data, see :mod:`noumena.density.penalty`
- ``PenalisedDynamics``: a learned dynamics model whose rewards carry the penalty
- ``DensityPenaltyWrapper``: a gymnasium environment with the penalty in ``info``, and in the reward if wanted
- ``sparse_dataset``: a data set from which a share of the trajectories through a region is gone
- ``ood_levels``: graded out-of-distribution test sets

A penalty needs a calibrated model of the density family, such as the recipe ``density/hopper`` trains::

    import noumena
    from noumena.density.rl import DensityPenalty, PenalisedDynamics

    penalty = DensityPenalty(noumena.load("runs/density-hopper"), kind="tanh", coefficient=0.3)
    penalty(next_observations, actions)  # (batch,), numpy or torch as they are

OfflineRL-Kit. Its dynamics models have the ``step`` that :class:`PenalisedDynamics` wraps, with rewards of shape
(batch, 1), so a model-based policy takes the wrapped one in the place of its own; its own uncertainty penalty is best
switched off::

    dynamics = EnsembleDynamics(model, optimizer, scaler, termination_fn, penalty_coef=0.0)
    dynamics.train(real_buffer.sample_all(), logger)
    policy = MOPOPolicy(PenalisedDynamics(dynamics, penalty), actor, critic1, ...)

d3rlpy. It learns from data sets: penalise the transitions that a dynamics model made before they are mixed with the
real ones, and leave the real rewards as they are::

    rows = penalty(made["next_observations"], made["actions"])
    dataset = d3rlpy.dataset.MDPDataset(
        made["observations"], made["actions"], made["rewards"] - rows, made["terminals"], timeouts=made["timeouts"]
    )

Any other dynamics model. A class with one method is enough::

    class Mine:
        def step(self, obs, action):
            next_obs, reward = network(obs, action)  # (batch, observation), (batch,)
            return next_obs, reward, torch.zeros_like(reward, dtype=torch.bool), {}

    dynamics = PenalisedDynamics(Mine(), penalty, termination=lambda obs, action, next_obs: next_obs[:, 0] < 0.7)
"""

from typing import TYPE_CHECKING, Any

from noumena.core.errors import did_you_mean

if TYPE_CHECKING:
    from noumena.density.penalty import DensityPenalty
    from noumena.density.rl.dynamics import PenalisedDynamics
    from noumena.density.rl.levels import ood_levels
    from noumena.density.rl.sparse import sparse_dataset
    from noumena.density.rl.wrappers import DensityPenaltyWrapper

__all__ = ["DensityPenalty", "DensityPenaltyWrapper", "PenalisedDynamics", "ood_levels", "sparse_dataset"]

# Imported when first asked for: the wrapper needs gymnasium, the others torch.
_PLACES = {
    "DensityPenalty": "noumena.density.penalty",
    "DensityPenaltyWrapper": "noumena.density.rl.wrappers",
    "PenalisedDynamics": "noumena.density.rl.dynamics",
    "ood_levels": "noumena.density.rl.levels",
    "sparse_dataset": "noumena.density.rl.sparse",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'. {did_you_mean(name, _PLACES)}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
