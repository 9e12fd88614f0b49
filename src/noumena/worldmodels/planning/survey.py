"""What planning needs to know of a model's latents, from random walks in the world: scale, roadmap and readout."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import fold
from noumena.worldmodels.environments.worlds import World
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.planning.roadmap import Roadmap, deviation
from noumena.worldmodels.probing.ridge import RidgeProbe
from noumena.worldmodels.sequences import Sequences

_WALKS = 3  # stream of the seed
# Walks that are drawn and encoded at a time.
_AT_ONCE = 64


@dataclass(frozen=True)
class Survey:
    """Knowledge of a latent space.

    Attributes:
        scale: deviation of each dimension of the latent, shape (latent,).
        roadmap: landmarks and the steps between them.
        readout: linear probe from latents to the position, fitted to encodings and to roll-outs; it is used where
            goals are given as positions, and to draw what the model imagines.
        readout_rmse: of the readout on these frames and roll-outs, in pixels (Euclidean).
    """

    scale: Tensor
    roadmap: Roadmap
    readout: RidgeProbe
    readout_rmse: float


@dataclass(frozen=True)
class Walks:
    """Random walks.

    Attributes:
        positions: shape (walks, time, 2), in pixels.
        actions: shape (walks, time - 1, 2).
        scenes: shape (walks, ...), or ``None``.
    """

    positions: Tensor
    actions: Tensor
    scenes: Tensor | None

    @classmethod
    def draw(cls, world: World, walks: int, steps: int, seed: int, device: torch.device | str = "cpu") -> "Walks":
        """Walks of the world's random policy.

        They begin where episodes begin or end: a start for the first half of them, a goal for the second.

        Args:
            steps: actions of each walk.

        Raises:
            ConfigError: fewer than 2 walks, or less than 1 step.
        """
        if walks < 2 or steps < 1:
            raise ConfigError(f"walks: expected at least 2 of at least 1 step, got {walks} of {steps}.")
        generator = torch.Generator(device).manual_seed(fold(seed, _WALKS))
        scenes = world.scenes(walks, generator)
        starts, goals = world.reset(walks, generator, scenes)
        position = torch.cat([starts[: walks // 2], goals[walks // 2 :]])
        places, actions = [position], []
        for _ in range(steps):
            actions.append(world.random_actions(walks, generator))
            places.append(position := world.move(position, actions[-1], scenes))
        return cls(torch.stack(places, dim=1), torch.stack(actions, dim=1), scenes)

    def sequences(self, world: World) -> Iterator[Sequences]:
        """The walks with their frames, some at a time."""
        for some in torch.arange(len(self.positions), device=self.positions.device).split(_AT_ONCE):
            scenes = None if self.scenes is None else self.scenes[some]
            frames = world.render(self.positions[some], scenes)
            yield Sequences(frames, self.actions[some], self.positions[some][:, :, None])


def survey(
    model: WorldModel, world: World, *, walks: int = 1024, steps: int = 16, landmarks: int = 384, seed: int = 0
) -> Survey:
    """Look at the frames of random walks in a world with a model.

    Args:
        walks: how many; enough that some go through every door.
        steps: actions of each.
        landmarks: of the roadmap.
        seed: of the walks.
    """
    data = Walks.draw(world, walks, steps, seed, model.device)
    return survey_of(model, data.sequences(world), landmarks=landmarks, seed=seed)


@torch.no_grad()
def survey_of(model: WorldModel, batches: Iterable[Sequences], *, landmarks: int = 384, seed: int = 0) -> Survey:
    """Look at recorded sequences with a model, such as those it was trained on.

    Only the readout uses their positions: the scale and the roadmap are of frames and their order alone.

    Args:
        batches: sequences of equal length with their state, of one thing; read once, one batch after the other.
        landmarks: of the roadmap.
        seed: decides the first landmark.

    Raises:
        DataError: no sequences, or no positions.
    """
    seen: list[Tensor] = []
    imagined: list[Tensor] = []
    states: list[Tensor] = []
    for batch in batches:
        if batch.state is None:
            raise DataError("the sequences have no state: a readout of positions needs it. Pass data with positions.")
        on_device = batch.to(model.device)
        seen.append(model.encode(on_device).mean)
        imagined.append(torch.cat([seen[-1][:, :1], model.rollout(seen[-1][:, 0], on_device.actions)], dim=1))
        states.append(batch.state.to(seen[-1]))
    if not seen:
        raise DataError("no sequences were given: nothing can be learned of the latents.")
    latents, targets = torch.cat(seen), torch.cat(states)
    features, both = torch.cat([latents, *imagined]), torch.cat([targets, targets])
    readout = RidgeProbe.fit(features, both)
    error = (readout(features) - both).square().sum(-1).mean().sqrt()
    scale = deviation(latents, model.constant_size)
    roadmap = Roadmap.fit(latents, scale=scale, landmarks=landmarks, seed=seed)
    return Survey(scale, roadmap, readout, float(error))
