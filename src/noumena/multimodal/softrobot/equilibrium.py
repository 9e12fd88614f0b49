"""Static equilibria of the robot: Newton's method, continued from one pose of the top to the next."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from noumena.core.errors import ConfigError
from noumena.multimodal.softrobot.assembly import FreeMatrix
from noumena.multimodal.softrobot.elasticity import NearlyIncompressible
from noumena.multimodal.softrobot.geometry import Array, CylinderMesh, cylinder_mesh
from noumena.multimodal.softrobot.settings import POSE_COLUMNS, SoftRobot

_MOST_ITERATIONS = 12
_MOST_HALVINGS = 4
# A residual this many times the reactions, after the first steps have settled, never came back.
_DIVERGED, _SETTLING = 1e3, 3
# In mm: the top is in its place but for rounding.
_REACHED = 1e-12
# Added to the reactions in N, which vanish at rest.
_FORCE_FLOOR = 1e-3


@dataclass(frozen=True)
class Observation:
    """One equilibrium.

    Attributes:
        pose: displacement (mm) and rotation vector (rad) of the top about (0, 0, height), shape (6,).
        force: force (N) and torque (N mm) of the robot on its base about the base's centre (0, 0, 0), shape (6,).
            It equals the wrench applied at the top, taken about that point.
        top_wrench: force and torque applied at the top, about its moved reference point, shape (6,).
        shape: displacements of the surface nodes in mm, node-major x, y, z, float32, shape (3 surface,).
        energy: stored elastic energy in mJ.
    """

    pose: Array
    force: Array
    top_wrench: Array
    shape: NDArray[np.float32]
    energy: float


class Equilibrium:
    """The robot in static equilibrium under a pose of its top; at rest to begin with.

    Attributes:
        robot, mesh: what it is made of.
        pose: of the top, shape (6,).
        displacement: of all nodes in mm, shape (nodes, 3).
        iterations: linear systems solved so far.
    """

    def __init__(self, robot: SoftRobot, *, tolerance: float = 1e-8) -> None:
        """
        Args:
            robot: body, material and mesh.
            tolerance: largest norm of the forces on free nodes, relative to that of the reactions.
        """
        self.robot = robot
        self._body = _body(robot)
        self._tolerance = tolerance
        self.mesh = self._body.mesh
        self.pose: Array = np.zeros(6)
        self.displacement: Array = np.zeros_like(self.mesh.nodes)
        self.iterations = 0
        # The third field of the mean-dilatation element; the second, the dilatation, follows from it.
        self._pressure: Array = np.zeros(len(self.mesh.cells))

    def move_to(self, pose: ArrayLike) -> bool:
        """Move the top to ``pose`` and find the equilibrium, halving the step up to 4 times when Newton fails.

        Returns:
            Whether it converged. If not, the robot is where the last step that did converge has left it.

        Raises:
            ConfigError: ``pose`` is not six finite numbers.
        """
        goal = np.array(pose, dtype=np.float64)
        if goal.shape != (6,) or not np.isfinite(goal).all():
            raise ConfigError(f"pose={pose!r}: expected six finite numbers, {', '.join(POSE_COLUMNS)}.")
        return self._approach(goal, _MOST_HALVINGS)

    def observe(self) -> Observation:
        """What is measured of the present equilibrium."""
        mesh, body = self.mesh, self._body.solid
        state = body.deform(self.displacement)
        forces = body.residual(state)
        positions = mesh.nodes + self.displacement
        reference = np.array([0, 0, self.robot.height]) + self.pose[:3]
        return Observation(
            pose=self.pose.copy(),
            force=-_wrench(forces[mesh.bottom], positions[mesh.bottom]),
            top_wrench=_wrench(forces[mesh.top], positions[mesh.top] - reference),
            shape=self.displacement[mesh.surface].ravel().astype(np.float32),
            energy=body.energy(state),
        )

    def _approach(self, goal: Array, halvings: int) -> bool:
        start, displacement, pressure = self.pose, self.displacement, self._pressure
        if self._newton(goal):
            self.pose = goal
            return True
        self.displacement, self._pressure = displacement, pressure
        if halvings == 0:
            return False
        return self._approach((start + goal) / 2, halvings - 1) and self._approach(goal, halvings - 1)

    def _newton(self, goal: Array) -> bool:
        """Newton's method on the three fields displacement, pressure, dilatation; whether it converged.

        The elements' pressures are eliminated from each linear system, which leaves the residual at
        p = bulk (theta - 1) and the stiffness at the pressure predicted by the step before. That takes far fewer
        iterations on nearly incompressible bodies than Newton's method on the displacements alone.
        """
        solid, free = self._body.solid, self._body.free
        gap = np.zeros_like(self.displacement)
        gap[self.mesh.top] = _rigid_motion(self.robot, self.mesh, goal) - self.displacement[self.mesh.top]
        if np.abs(gap).max() < _REACHED:
            gap[:] = 0
        for iteration in range(_MOST_ITERATIONS):
            state = solid.deform(self.displacement)
            residual = solid.residual(state).ravel()
            error = _norm(residual[free]) / (_FORCE_FLOOR + _norm(residual[~free]))
            if error < self._tolerance and not gap.any():
                return True
            if not np.isfinite(error) or (iteration >= _SETTLING and error > _DIVERGED):
                return False
            stiffness = solid.stiffness(state, self._pressure)
            # The first step takes the top to its place and the free nodes along with it.
            pulled = np.einsum("eij,ej->ei", stiffness, gap.ravel()[solid.dofs]) if gap.any() else None
            load = residual if pulled is None else residual + solid.assemble(pulled).ravel()
            step = gap.ravel()
            try:
                step[free] = -_solve(self._body.pattern.assemble(stiffness), load[free])
            except RuntimeError:  # singular
                return False
            self.iterations += 1
            growth = np.einsum("ej,ej->e", state.volume_gradient, step[solid.dofs]) / solid.rest_volumes
            self._pressure = solid.pressure(state) + solid.bulk_modulus * growth
            self.displacement = self.displacement + step.reshape(-1, 3)
            gap = np.zeros_like(gap)
        return False


@dataclass(frozen=True)
class _Body:
    """What depends on the robot alone."""

    mesh: CylinderMesh
    solid: NearlyIncompressible
    free: NDArray[np.bool_]
    pattern: FreeMatrix


@lru_cache(maxsize=1)
def _body(robot: SoftRobot) -> _Body:
    mesh = cylinder_mesh(robot)
    solid = NearlyIncompressible(mesh, robot.shear_modulus, robot.bulk_modulus)
    free = np.ones_like(mesh.nodes, dtype=bool)
    free[mesh.bottom] = free[mesh.top] = False
    return _Body(mesh, solid, free.ravel(), FreeMatrix(solid.dofs, free.ravel()))


def _rigid_motion(robot: SoftRobot, mesh: CylinderMesh, pose: Array) -> Array:
    """Displacements of the top ring, shape (ring, 3)."""
    arms = mesh.nodes[mesh.top] - [0, 0, robot.height]
    return pose[:3] + Rotation.from_rotvec(pose[3:]).apply(arms) - arms


def _wrench(forces: Array, arms: Array) -> Array:
    return np.concatenate([forces.sum(0), np.cross(arms, forces).sum(0)])


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))


def _solve(matrix: csc_matrix, load: Array) -> Array:
    # The matrix is symmetric, and close to an equilibrium positive definite: order for symmetry, pivot rarely.
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})
    return factors.solve(load)
