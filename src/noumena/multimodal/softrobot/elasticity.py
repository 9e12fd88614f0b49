"""Nearly incompressible Neo-Hookean solid at finite strain, on trilinear hexahedra with one mean dilatation each.

Stored energy of an element with nodal displacements u, deformation gradient F, J = det F, C = F^T F:

    W(u) = ∫ mu/2 (J^(-2/3) tr C - 3) dV + V bulk/2 (theta - 1)²,    theta = 1/V ∫ J dV.

This is the Q1P0 or mean-dilatation element of Simo, Taylor & Pister 1985 (Comput. Methods Appl. Mech. Eng. 51,
177-208), whose pressure and dilatation, one of each per element, are eliminated here: theta from its definition and
the pressure as bulk (theta - 1). That is exact, because neither is shared between elements.
"""

from dataclasses import dataclass

import numpy as np

from noumena.core.errors import NotSupportedError
from noumena.multimodal.softrobot.geometry import Array, CylinderMesh

try:
    from skfem import CellBasis, ElementHex1, MeshHex1
except ModuleNotFoundError as error:
    raise NotSupportedError(
        f"the soft robot's finite elements need the package '{error.name}': pip install 'noumena[fem]'"
    ) from error

# Degree that 2 x 2 x 2 Gauss points integrate exactly.
_GAUSS_2X2X2 = 3


@dataclass(frozen=True)
class Deformation:
    """What the energy and its derivatives need, for all elements and Gauss points.

    Attributes:
        gradients: of the shape functions in the deformed body, g_a = F^-T ∇N_a, shape (elements, points, 8, 3).
        stretched: F ∇N_a, shape (elements, points, 8, 3).
        trace: tr C, shape (elements, points).
        jacobian: J, shape (elements, points).
        volumes: dV of the deformed body, J dV, shape (elements, points).
        dilatation: theta, shape (elements,).
        volume_gradient: derivative of the element's deformed volume, ∫ J g_a dV, shape (elements, 24).
    """

    gradients: Array
    stretched: Array
    trace: Array
    jacobian: Array
    volumes: Array
    dilatation: Array
    volume_gradient: Array


class NearlyIncompressible:
    """The energy above and its derivatives, for all elements at once.

    The 24 degrees of freedom of an element are node-major: corner 0 x, y, z, corner 1 x, y, z, ...

    Attributes:
        dofs: where an element's degrees of freedom are among the mesh's, 3 node + axis, shape (elements, 24).
        rest_volumes: V, in mm³, shape (elements,).
    """

    def __init__(self, mesh: CylinderMesh, shear_modulus: float, bulk_modulus: float) -> None:
        """
        Args:
            mesh: of the body at rest.
            shear_modulus, bulk_modulus: mu and bulk, in MPa.
        """
        self.bulk_modulus = bulk_modulus
        self.dofs = (3 * mesh.cells[:, :, None] + np.arange(3)).reshape(len(mesh.cells), -1)
        self._shear = shear_modulus
        self._nodes = len(mesh.nodes)
        grid = MeshHex1(np.ascontiguousarray(mesh.nodes.T), np.ascontiguousarray(mesh.cells.T))
        basis = CellBasis(grid, ElementHex1(), intorder=_GAUSS_2X2X2)
        # scikit-fem has (axis, element, point) for each shape function; here (element, point, corner, axis).
        gradients = np.stack([np.asarray(fields[0].grad) for fields in basis.basis])
        self._gradients: Array = np.ascontiguousarray(gradients.transpose(2, 3, 0, 1))
        self._weights: Array = np.asarray(basis.dx)
        self.rest_volumes: Array = self._weights.sum(1)

    def deform(self, displacement: Array) -> Deformation:
        """The body under nodal displacements in mm, shape (nodes, 3).

        An inverted element gives NaN in its energy and residual.
        """
        corners = displacement.reshape(-1)[self.dofs].reshape(len(self.dofs), 1, 8, 3)
        F = np.swapaxes(corners, -1, -2) @ self._gradients + np.eye(3)
        rows = F[..., 0, :], F[..., 1, :], F[..., 2, :]
        cofactor = np.stack([np.cross(rows[1], rows[2]), np.cross(rows[2], rows[0]), np.cross(rows[0], rows[1])], -2)
        J = np.einsum("eqi,eqi->eq", rows[0], cofactor[..., 0, :])
        with np.errstate(divide="ignore", invalid="ignore"):
            gradients = self._gradients @ np.swapaxes(cofactor / J[..., None, None], -1, -2)
        volumes = J * self._weights
        return Deformation(
            gradients=gradients,
            stretched=self._gradients @ np.swapaxes(F, -1, -2),
            trace=np.einsum("eqij,eqij->eq", F, F),
            jacobian=J,
            volumes=volumes,
            dilatation=volumes.sum(1) / self.rest_volumes,
            volume_gradient=np.einsum("eq,eqai->eai", volumes, gradients).reshape(len(J), -1),
        )

    def pressure(self, state: Deformation) -> Array:
        """The pressure bulk (theta - 1) in MPa, positive in tension, shape (elements,)."""
        return self.bulk_modulus * (state.dilatation - 1)

    def energy(self, state: Deformation) -> float:
        """Stored elastic energy in N mm = mJ."""
        with np.errstate(invalid="ignore"):
            isochoric = state.jacobian ** (-2 / 3) * state.trace - 3
        shape_change = self._shear / 2 * (isochoric * self._weights).sum()
        return float(shape_change + (self.pressure(state) * (state.dilatation - 1) * self.rest_volumes).sum() / 2)

    def residual(self, state: Deformation) -> Array:
        """Derivative of the energy with respect to the nodal displacements: nodal forces in N, shape (nodes, 3).

        With m = mu J^(-2/3) and the pressure p, node a gets ∫ m (F ∇N_a - tr C / 3 g_a) + p J g_a dV.
        """
        m = self._isochoric_weight(state)
        along = self.pressure(state)[:, None] * state.volumes - m * state.trace / 3
        forces = np.einsum("eq,eqai->eai", m, state.stretched) + np.einsum("eq,eqai->eai", along, state.gradients)
        return self.assemble(forces)

    def stiffness(self, state: Deformation, pressure: Array) -> Array:
        """Derivative of the residual, element by element.

        With g_a, m as above, s_a = F ∇N_a, t = tr C and the pressure p, the entry of corner a, axis i and corner b,
        axis k is the integral over dV of

            m δ_ik ∇N_a·∇N_b - 2/3 m (s_ai g_bk + g_ai s_bk) + (2/9 m t + p J) g_ai g_bk + (m t / 3 - p J) g_ak g_bi

        plus bulk / V G_ai G_bk with G the derivative of the element's volume. They follow from the residual
        by δJ = J tr(δF F^-1) and δF^-1 = -F^-1 δF F^-1.

        Args:
            state: where to differentiate.
            pressure: of each element in MPa, shape (elements,). The derivative of :meth:`residual` has
                :meth:`pressure` here; Newton's method of the three-field problem its own unknown.

        Returns:
            Symmetric matrices in N/mm, shape (elements, 24, 24).
        """
        elements, points = state.jacobian.shape
        m = self._isochoric_weight(state)
        q = pressure[:, None] * state.volumes
        g = state.gradients.reshape(elements, points, 24)
        s = state.stretched.reshape(elements, points, 24)
        # Half of the terms in (ai)(bk); their transpose is the other half.
        half = (m * state.trace / 9 + q / 2)[..., None] * g - 2 / 3 * m[..., None] * s
        product = np.swapaxes(half, 1, 2) @ g
        G = state.volume_gradient
        matrix = product + np.swapaxes(product, 1, 2)
        matrix += (self.bulk_modulus / self.rest_volumes)[:, None, None] * G[:, :, None] * G[:, None, :]
        crossed = np.swapaxes((m * state.trace / 3 - q)[..., None] * g, 1, 2) @ g
        blocks = matrix.reshape(elements, 8, 3, 8, 3)
        blocks += np.swapaxes(crossed.reshape(elements, 8, 3, 8, 3), 2, 4)
        scaled = m[..., None, None] * self._gradients
        metric = np.einsum("eqaj,eqbj->eab", scaled, self._gradients, optimize=True)
        for axis in range(3):
            blocks[:, :, axis, :, axis] += metric
        return matrix

    def assemble(self, forces: Array) -> Array:
        """Sum of the elements' nodal forces, shape (elements, 8, 3) or (elements, 24), as (nodes, 3)."""
        sums: Array = np.bincount(self.dofs.ravel(), forces.ravel(), 3 * self._nodes).astype(np.float64, copy=False)
        return sums.reshape(-1, 3)

    def _isochoric_weight(self, state: Deformation) -> Array:
        """The weight m dV = mu J^(-2/3) dV, shape (elements, points)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._shear * state.jacobian ** (-2 / 3) * self._weights
