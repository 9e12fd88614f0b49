"""Laws that an inference should obey whatever the data say: a wrench is the gradient of an energy, and a symmetric body
answers the moved pose with the moved wrench and shape.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import DataError
from noumena.core.evaluation import Table
from noumena.multimodal.frontend import FrontEnd
from noumena.multimodal.metrics import parts_of
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.observations import Observations
from noumena.multimodal.symmetry import Action, PointGroup

if TYPE_CHECKING:
    from noumena.multimodal.model import MVAE

ENERGY = "energy"
"""Name of the side quantity that holds the stored energy, in the unit of force x length."""

WrenchOf = Callable[[np.ndarray], np.ndarray]
"""Wrenches about the base centre, shape (rows, 6), of poses (rows, 6)."""

_SMALL_ANGLE = 1e-4
_PATH_POINTS = 8
# In standard deviations of the poses: large against the rounding of float32, small against the range.
_STEP = 0.02
_ELEMENTS = 8
_ROWS = 256


def left_jacobian(rotation: np.ndarray) -> np.ndarray:
    r"""Left Jacobian of SO(3), float64, shape (rows, 3, 3): angular velocity over the rate of the rotation vector.

    .. math:: J(r) = I + \frac{1 - \cos\theta}{\theta^2} [r]_\times
        + \frac{\theta - \sin\theta}{\theta^3} [r]_\times^2 \qquad \theta = |r|

    (Solà et al. 2018, "A micro Lie theory", eq. 145).

    Args:
        rotation: rotation vectors in rad, shape (rows, 3).
    """
    r = np.asarray(rotation, np.float64)
    angle = np.linalg.norm(r, axis=1)
    small = angle < _SMALL_ANGLE
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 0.5 - angle**2 / 24.0, (1.0 - np.cos(safe)) / safe**2)
    second = np.where(small, 1.0 / 6.0 - angle**2 / 120.0, (safe - np.sin(safe)) / safe**3)
    cross = np.zeros((len(r), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -r[:, 2], r[:, 1], -r[:, 0]
    cross[:, 1, 0], cross[:, 2, 0], cross[:, 2, 1] = r[:, 2], -r[:, 1], r[:, 0]
    return np.eye(3) + first[:, None, None] * cross + second[:, None, None] * (cross @ cross)


def generalised_force(pose: np.ndarray, wrench: np.ndarray, height: float) -> np.ndarray:
    """Gradient of the stored energy with respect to the pose, float64, shape (rows, 6): N, and N mm per rad.

    The wrench is moved from the base centre to the top's reference point, which the pose has displaced,
    ``T_ref = T_base - (x_ref + D) x F``, and its torque projected on the rates of the rotation vector,
    ``J(r)^T T_ref``.

    Args:
        pose: displacement D of the reference point and rotation vector r of the top about it, shape (rows, 6).
        wrench: on the base about (0, 0, 0), shape (rows, 6); it equals the load at the top.
        height: of the reference point ``x_ref = (0, 0, height)`` at rest.
    """
    pose, wrench = np.asarray(pose, np.float64), np.asarray(wrench, np.float64)
    arm = pose[:, :3] + np.array([0.0, 0.0, height])
    torque = wrench[:, 3:] - np.cross(arm, wrench[:, :3])
    return np.concatenate([wrench[:, :3], np.einsum("rji,rj->ri", left_jacobian(pose[:, 3:]), torque)], 1)


def work_from_rest(wrench_of: WrenchOf, pose: np.ndarray, height: float, points: int = _PATH_POINTS) -> np.ndarray:
    """Work done on the straight line from rest (all zeros) to each pose, shape (rows,), in unit of force x length.

    For an elastic body it is the stored energy, on any path. By Gauss-Legendre quadrature.

    Args:
        wrench_of: wrenches of poses.
        pose: shape (rows, 6).
        height: see :func:`generalised_force`.
        points: of the quadrature.
    """
    pose = np.asarray(pose, np.float64)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    along = (0.5 * (nodes + 1.0))[:, None, None] * pose  # (points, rows, 6)
    flat = along.reshape(-1, 6)
    force = generalised_force(flat, wrench_of(flat), height).reshape(along.shape)
    return np.einsum("p,pri,ri->r", 0.5 * weights, force, pose)


def energy_errors(work: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """Work against the stored energy of the same rows, rows of unknown energy left out.

    Returns:
        ``energy_wrench_error``: root mean squared difference over root mean square of the energy, and
        ``energy_wrench_median``: median over rows of the relative difference; NaN without a row.
    """
    known = np.isfinite(energy) & (energy != 0)
    if not known.any():
        return {"energy_wrench_error": float("nan"), "energy_wrench_median": float("nan")}
    difference, scale = (work - energy)[known], energy[known].astype(np.float64)
    return {
        "energy_wrench_error": float(np.sqrt(np.square(difference).mean() / np.square(scale).mean())),
        "energy_wrench_median": float(np.median(np.abs(difference / scale))),
    }


def curl_residual(wrench_of: WrenchOf, pose: np.ndarray, height: float, scale: np.ndarray) -> float:
    """Antisymmetric part of the inferred stiffness over its symmetric part, root mean squares over rows; 0 if the
    wrench is the gradient of some energy.

    The stiffness is the derivative of :func:`generalised_force` by central differences, in poses divided by ``scale``,
    so that lengths and angles may be compared.

    Args:
        wrench_of: wrenches of poses.
        pose: shape (rows, 6).
        height: see :func:`generalised_force`.
        scale: typical size of each pose column, positive, shape (6,).
    """
    pose = np.asarray(pose, np.float64)
    step = _STEP * np.diag(scale)
    moved = np.stack([pose[:, None] + step, pose[:, None] - step])  # (two sides, rows, moved column, 6)
    flat = moved.reshape(-1, 6)
    force = generalised_force(flat, wrench_of(flat), height).reshape(moved.shape) * scale
    stiffness = (force[0] - force[1]) / (2.0 * _STEP)  # (rows, moved column, component)
    turned = stiffness.swapaxes(1, 2)
    return float(np.sqrt(np.square(stiffness - turned).sum() / np.square(stiffness + turned).sum()))


def found_group(name: str | None, surface: Surface | None) -> tuple[str, PointGroup] | None:
    """The group to test: the one named, else C4v if the surface has it, else none."""
    if name is not None:
        return name, PointGroup.parse(name)
    if surface is None:
        return None
    group = PointGroup.parse("C4v")
    try:
        group.on_nodes(surface.nodes)
    except DataError:
        return None
    return "C4v", group


def symmetry_residuals(
    infer: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    group: PointGroup,
    source: Modality,
    targets: Sequence[Modality],
    inputs: np.ndarray,
    nodes: Tensor | None,
) -> dict[tuple[str, str], float]:
    """How far inference is from commuting with the group: rms of ``infer(g x) - g infer(x)`` over rms of ``infer(x)``.

    Over at most 8 elements beside the identity, evenly chosen, and 256 rows.

    Args:
        infer: modalities by name, shape (rows, size), of rows of the source.
        group: of the body.
        source, targets: modalities; vectors are taken for invariant.
        inputs: rows of the source, shape (rows, size).
        nodes: of the surface, for displacements.

    Returns:
        By target and part (see :func:`~noumena.multimodal.metrics.parts_of`).
    """
    rows = torch.from_numpy(np.asarray(inputs[:: max(1, len(inputs) // _ROWS)][:_ROWS], np.float32))
    count = len(group.elements)
    chosen = np.unique(np.linspace(1, count - 1, min(_ELEMENTS, count - 1)).round().astype(int)) if count > 1 else []
    plain = infer(rows.numpy())
    act = {modality.name: Action(group, modality.kind, nodes) for modality in (source, *targets)}
    squares = {(target.name, part): 0.0 for target in targets for part in parts_of(target)}
    for i in chosen:
        moved = infer(act[source.name](int(i), rows).numpy())
        for target in targets:
            expected = act[target.name](int(i), torch.from_numpy(plain[target.name])).numpy()
            for part, columns in parts_of(target).items():
                difference = (moved[target.name] - expected)[:, columns].astype(np.float64)
                squares[target.name, part] += float(np.square(difference).mean()) / len(chosen)
    found: dict[tuple[str, str], float] = {}
    for target in targets:
        for part, columns in parts_of(target).items():
            size = float(np.square(plain[target.name][:, columns].astype(np.float64)).mean())
            found[target.name, part] = float(np.sqrt(squares[target.name, part] / size)) if size > 0 else float("nan")
    return found


def consistency(model: "MVAE", rows: Observations) -> tuple[dict[str, float], Table | None]:
    """How well the model obeys the laws of this module, where its modalities allow to ask.

    Args:
        model: trained.
        rows: held out, as the model arranges them.

    Returns:
        With a pose, a wrench and a surface ``curl_residual`` and, with the side quantity ``energy``, those of
        :func:`energy_errors`; with a pose and a group to test ``symmetry_residual/<pose>-><target>/<part>``. The table
        of them, ``None`` without any.
    """
    by_kind = {modality.kind: modality for modality in reversed(model.modalities)}
    pose, wrench, surface = by_kind.get("pose"), by_kind.get("wrench"), model.mesh
    if pose is None or not bool(rows.has(pose.name).any()):
        return {}, None
    seen = rows.subset(rows.has(pose.name))
    inputs = seen[pose.name].cpu().numpy()
    metrics: dict[str, float] = {}
    lines: list[Sequence[Any]] = []
    if wrench is not None and surface is not None:
        height = float(surface.nodes[:, 2].max())
        name = wrench.name

        def wrench_of(poses: np.ndarray) -> np.ndarray:
            return model.infer({pose.name: poses.astype(np.float32)}, [name])[name].mean

        energy = seen.side.get(ENERGY)
        if energy is not None and energy.ndim == 1 and bool(energy.isfinite().any()):
            found = energy_errors(work_from_rest(wrench_of, inputs, height), energy.cpu().numpy())
            metrics |= found
            lines.append(["work of the inferred wrench and stored energy: rms", found["energy_wrench_error"]])
            lines.append(["work of the inferred wrench and stored energy: median row", found["energy_wrench_median"]])
        front = cast("FrontEnd", model.fronts[model.names.index(pose.name)])
        some = inputs[:: max(1, len(inputs) // _ROWS)][:_ROWS]
        curl = curl_residual(wrench_of, some, height, front.scale.cpu().double().numpy())
        metrics["curl_residual"] = curl
        lines.append(["antisymmetric part of the inferred stiffness", curl])
    group = found_group(model.symmetry, surface)
    targets = [modality for modality in model.modalities if modality.kind in ("wrench", "displacement")]
    targets = [modality for modality in targets if modality.kind != "displacement" or surface is not None]
    if group is not None and targets:
        label, elements = group
        names = [target.name for target in targets]

        def infer(x: np.ndarray) -> dict[str, np.ndarray]:
            return {key: value.mean for key, value in model.infer({pose.name: x}, names).items()}

        nodes = None if surface is None else surface.nodes.cpu()
        for (target, part), value in symmetry_residuals(infer, elements, pose, targets, inputs, nodes).items():
            metrics[f"symmetry_residual/{pose.name}->{target}" + (f"/{part}" if part else "")] = value
            lines.append([f"symmetry {label} of {part or target} from {pose.name}", value])
    if not lines:
        return metrics, None
    caption = (
        f"Relative to the quantity itself; 0 is exact. Work: of the wrench inferred from {pose.name} on the straight "
        "line from rest to the pose, against the row's stored energy. Stiffness: derivative of the generalised force "
        "by the pose; an antisymmetric part means that no energy has this wrench as its gradient. Symmetry: the "
        "inference of a moved pose against the moved inference."
    )
    return metrics, Table("Physical consistency", ["law", "relative residual"], lines, caption)
