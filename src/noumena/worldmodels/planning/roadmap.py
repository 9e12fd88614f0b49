"""A roadmap of the latent space: which remembered states lead to which, and in how many steps.

A straight line in latent space runs through walls. Data know better: consecutive frames are one step apart, and paths
over remembered frames lead through the door (search on the replay buffer, Eysenbach et al. 2019). Here the remembered
frames are a few hundred *landmarks*. Each frame of the data belongs to the nearest one, landmarks are joined where the
data stepped from one to the other, and the number of steps that remain to the goal is the cost of an imagined state.
Nothing but frames and their order is needed: no positions, no rewards, no map of the world.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.planning.costs import LatentGoal, Over, StateGoal, check_over, over_time

# Rows whose distances to all landmarks are held at a time.
_ROWS = 8192
# Steps to the goal below which its direct distance counts alone, and above which it does not count.
_NEAR, _FAR = 1.0, 3.0
# Steps of a way that the data do not know, as a multiple of the longest one that they do.
_UNKNOWN = 1.5
_NO_ACCOUNT = 1e6


@dataclass(frozen=True)
class Roadmap:
    """Landmarks and the steps between them.

    Attributes:
        landmarks: latents, shape (landmarks, latent).
        scale: deviation of each dimension of the latent over the data, shape (latent,); distances are of latents
            divided by it.
        steps: fewest steps from each landmark to each, shape (landmarks, landmarks); where the data know no way, half
            as many again as on the longest one.
        joints: pairs of different landmarks that are one step apart, shape (2, joints).
        width: deviation of the bell by which the values of landmarks are averaged: the usual distance of neighbours.
    """

    landmarks: Tensor
    scale: Tensor
    steps: Tensor
    joints: Tensor
    width: float

    @classmethod
    @torch.no_grad()
    def fit(
        cls, latents: Tensor, *, scale: Tensor | None = None, landmarks: int = 384, seen: int = 1, seed: int = 0
    ) -> "Roadmap":
        """Landmarks that cover the latents of data, and the ways between them.

        Args:
            latents: of consecutive frames, shape (sequences, time, latent).
            scale: see the class; the deviations of ``latents`` when missing.
            landmarks: how many; their spacing should be less than a wall is wide.
            seen: how often data must have stepped from one landmark to another to join them.
            seed: decides the first landmark; the others are each the farthest from those before.

        Raises:
            ConfigError: fewer than 2 landmarks, or more than frames.
            DataError: fewer than two frames in a sequence, latents that are not finite, or all alike.
        """
        if latents.ndim != 3 or latents.shape[1] < 2:
            raise DataError(
                f"latents: expected shape (sequences, time of at least 2, latent), got {tuple(latents.shape)}."
            )
        if not 2 <= landmarks <= latents.shape[0] * latents.shape[1]:
            raise ConfigError(
                f"roadmap.landmarks: expected from 2 to the number of frames, "
                f"{latents.shape[0] * latents.shape[1]}, got {landmarks}."
            )
        if not latents.isfinite().all():
            raise DataError("latents: some are not finite; the model diverged. Train it with a lower learning rate.")
        scale = deviation(latents) if scale is None else scale
        rows = (latents / scale).flatten(0, 1)
        places = farthest_points(rows, landmarks, seed)
        owners = _nearest(rows, places).unflatten(0, latents.shape[:2])
        joined = _joined(owners, landmarks) >= seen
        joined.fill_diagonal_(False)
        if not joined.any():
            raise DataError("the latents of each sequence stay at one landmark: more landmarks, or longer sequences.")
        steps = shortest_paths(torch.where(joined, 1.0, torch.inf).to(rows).fill_diagonal_(0.0))
        unknown = _UNKNOWN * float(steps[steps.isfinite()].max())
        between = torch.cdist(places, places).fill_diagonal_(torch.inf).amin(1)
        width = float(between.median())
        return cls(places * scale, scale, steps.nan_to_num(posinf=unknown), joined.nonzero().T, width)

    def cost(self, goal: LatentGoal | StateGoal, over: Over = "sum") -> "RoadmapCost":
        """Steps to a goal, as a cost.

        Args:
            goal: what tells how far latents are from the goal as the crow flies.
            over: how the steps after each action are combined.
        """
        distances = goal.distances(self.landmarks[None, None])[:, 0]  # (episodes, landmarks)
        unit = self._joint_length(goal)
        nearest = distances.argmin(1)
        beyond = distances.gather(1, nearest[:, None]) / unit
        return RoadmapCost(self, goal, self.steps[:, nearest].T + beyond, unit, over)

    def _joint_length(self, goal: LatentGoal | StateGoal) -> float:
        first, second = (self.landmarks[index] for index in self.joints)
        return max(float(goal.between(first, second).mean()), torch.finfo(self.landmarks.dtype).tiny)

    def values(self, latents: Tensor, to_go: Tensor) -> Tensor:
        """Values of landmarks at other latents: an average, weighted by a bell of the distance.

        Args:
            latents: shape (episodes, ..., latent).
            to_go: value of each landmark, shape (episodes, landmarks).

        Returns:
            Shape (episodes, ...).
        """
        places = self.landmarks / (self.scale * self.width)
        rows = (latents / (self.scale * self.width)).flatten(1, -2)  # (episodes, rows, latent)
        # |z - p|^2 / 2 without |z|^2, which all landmarks share and the softmax takes out.
        weights = torch.softmax(rows @ places.T - 0.5 * places.square().sum(1), dim=-1)
        return torch.einsum("nrk,nk->nr", weights, to_go).reshape(latents.shape[:-1])


@dataclass(frozen=True)
class RoadmapCost:
    """Steps that remain to the goal: by the roadmap from afar, as the crow flies where the goal is next.

    Attributes:
        roadmap: landmarks and steps.
        goal: gives the direct distance.
        to_go: steps from each landmark to the goal, shape (episodes, landmarks).
        unit: mean direct distance of landmarks that are one step apart.
        over: how the steps after each action are combined.
    """

    roadmap: Roadmap
    goal: LatentGoal | StateGoal
    to_go: Tensor
    unit: float
    over: Over = "sum"

    def __post_init__(self) -> None:
        check_over(self.over)

    def __call__(self, latents: Tensor, actions: Tensor) -> Tensor:
        """See :class:`~noumena.worldmodels.planning.planners.Cost`."""
        return over_time(self.remaining(latents), self.over)

    def remaining(self, latents: Tensor) -> Tensor:
        """Steps to the goal from latents (episodes, samples, horizon, latent): (episodes, samples, horizon)."""
        steps = self.roadmap.values(latents, self.to_go)
        # The direct distance is small behind a wall too: whether the goal is next is for the roadmap to say.
        near = ((_FAR - steps) / (_FAR - _NEAR)).clamp(0, 1)
        return steps + near * (self.goal.distances(latents) / self.unit - steps)


def deviation(latents: Tensor, constant: int = 0) -> Tensor:
    """Deviation of each dimension over all frames, shape (latent,).

    A dimension that hardly varies says nothing: it keeps at least a thousandth of the greatest deviation as its scale.

    Args:
        latents: shape (..., latent).
        constant: dimensions at the end that no action changes. Their scale is so large that they are of no account.

    Raises:
        DataError: none varies.
    """
    found = latents.flatten(0, -2).std(0)
    if not float(found.max()) > 0:
        raise DataError("all latents are the same: the model has collapsed and nothing can be planned with it.")
    found = found.clamp(min=1e-3 * float(found.max()))
    found[len(found) - constant :] *= _NO_ACCOUNT
    return found


def farthest_points(rows: Tensor, count: int, seed: int) -> Tensor:
    """Rows spread over all rows, each the farthest from those before (Gonzalez 1985).

    Args:
        rows: shape (rows, features).

    Returns:
        Shape (count, features).
    """
    generator = torch.Generator(rows.device).manual_seed(seed)
    square = rows.square().sum(1)
    last = torch.randint(len(rows), (), generator=generator, device=rows.device)
    distance = torch.full_like(square, torch.inf)
    chosen = [last]
    for _ in range(count - 1):
        distance = torch.minimum(distance, square - 2 * (rows @ rows[last]) + square[last])
        last = distance.argmax()
        chosen.append(last)
    return rows[torch.stack(chosen)]


def shortest_paths(steps: Tensor) -> Tensor:
    """Lengths of the shortest paths between all pairs (Floyd 1962).

    Args:
        steps: of single joints, shape (nodes, nodes), infinite where there is none, 0 on the diagonal.
    """
    found = steps.clone()
    for node in range(len(found)):
        torch.minimum(found, found[:, node, None] + found[None, node], out=found)
    return found


def _nearest(rows: Tensor, places: Tensor) -> Tensor:
    return torch.cat([torch.cdist(some, places).argmin(1) for some in rows.split(_ROWS)])


def _joined(owners: Tensor, landmarks: int) -> Tensor:
    """How often data stepped from one landmark to another, shape (landmarks, landmarks)."""
    pairs = owners[:, :-1] * landmarks + owners[:, 1:]
    return torch.bincount(pairs.flatten(), minlength=landmarks**2).view(landmarks, landmarks)
