"""Load paths: from rest through random poses, each converged step a row."""

import numpy as np
from numpy.typing import NDArray

from noumena.multimodal.softrobot.equilibrium import Equilibrium, Observation
from noumena.multimodal.softrobot.geometry import Array
from noumena.multimodal.softrobot.settings import SoftRobot, check_whole_number

# A step's largest increment in each component, as a share of the range of poses.
_LARGEST_STEP = 0.2
# How far a pose is moved off the straight line to the next target, as a share of the largest increment.
_OFF_THE_LINE = 0.3


def load_path(path: int, *, robot: SoftRobot, seed: int = 0, targets: int = 3) -> dict[str, np.ndarray]:
    """One load path: from rest to ``targets`` poses, one after the other, in small steps.

    The targets are uniform over the robot's range of poses. The way to each is cut into equal steps that change no
    component by more than a fifth of its range; all but the last are then moved by up to 0.3 of that step, so that
    the poses of a path are not collinear. A step that fails is halved up to 4 times; if it fails still, the path
    ends there. Two paths share no random number, and a path depends on nothing but the arguments.

    Args:
        path: number of the path, at least 1.
        robot: body, material, mesh and range of poses.
        seed: of the whole data set.
        targets: poses to visit.

    Returns:
        Per row ``pose`` (rows, 6), ``force`` (rows, 6), ``top_wrench`` (rows, 6), ``shape`` (rows, 3 surface) and
        ``energy`` (rows,), float32, as in :class:`~noumena.multimodal.softrobot.equilibrium.Observation`, and
        ``path_id`` (rows,), int32; of the whole path, without axes, ``failed_steps`` and ``newton_iterations``.

    Raises:
        ConfigError: a number is out of range.
    """
    for name, value, smallest in (("path", path, 1), ("seed", seed, 0), ("targets", targets, 1)):
        check_whole_number(name, value, smallest)
    rng = np.random.default_rng(np.random.SeedSequence([seed, path]))
    equilibrium = Equilibrium(robot)
    rows: list[Observation] = []
    failed = 0
    for _ in range(targets):
        for pose in _way(rng, equilibrium.pose, robot):
            if not equilibrium.move_to(pose):
                failed += 1
                break
            rows.append(equilibrium.observe())
        if failed:
            break
    surface = equilibrium.mesh.surface
    return {
        "pose": _column([row.pose for row in rows], 6),
        "force": _column([row.force for row in rows], 6),
        "shape": _column([row.shape for row in rows], 3 * len(surface)),
        "top_wrench": _column([row.top_wrench for row in rows], 6),
        "energy": np.array([row.energy for row in rows], dtype=np.float32),
        "path_id": np.full(len(rows), path, dtype=np.int32),
        "failed_steps": np.array(failed),
        "newton_iterations": np.array(equilibrium.iterations),
    }


def _way(rng: np.random.Generator, start: Array, robot: SoftRobot) -> list[Array]:
    """The poses from ``start``, left out, to a random target."""
    low, high = np.array(robot.pose_low), np.array(robot.pose_high)
    largest = _LARGEST_STEP * (high - low)
    target = rng.uniform(low, high)
    steps = max(1, int(np.ceil(np.max(np.abs(target - start) / largest))))
    poses: list[Array] = []
    for step in range(1, steps):
        off = rng.uniform(-_OFF_THE_LINE, _OFF_THE_LINE, 6) * largest
        poses.append(np.clip(start + (target - start) * step / steps + off, low, high))
    return [*poses, target]


def _column(rows: list[Array] | list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32).reshape(len(rows), width)
