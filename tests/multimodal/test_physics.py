import os
from pathlib import Path

import numpy as np
import pytest
import torch

from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.physics import (
    curl_residual,
    energy_errors,
    found_group,
    generalised_force,
    left_jacobian,
    symmetry_residuals,
    work_from_rest,
)
from noumena.multimodal.symmetry import PointGroup

HEIGHT = 40.0
RNG = np.random.default_rng(0)
POSES = RNG.uniform(-1, 1, (12, 6)) * [8, 8, 5, 0.3, 0.3, 0.3]
_ROOT = RNG.normal(size=(6, 6))
STIFFNESS = (_ROOT @ _ROOT.T + 6.0 * np.eye(6)) * np.outer(*2 * [[1.0, 1.0, 1.0, 20.0, 20.0, 20.0]])


def energy(pose):
    quadratic = np.einsum("ri,ij,rj->r", pose, STIFFNESS, pose)
    return 0.5 * quadratic + 0.01 * pose[:, 0] ** 2 * pose[:, 2] ** 2


def wrench(pose):
    """Of the energy, about the base: the generalised torque turned back, and moved from the displaced top."""
    gradient = pose @ STIFFNESS
    gradient[:, 0] += 0.02 * pose[:, 0] * pose[:, 2] ** 2
    gradient[:, 2] += 0.02 * pose[:, 0] ** 2 * pose[:, 2]
    turned = np.linalg.solve(left_jacobian(pose[:, 3:]).swapaxes(1, 2), gradient[:, 3:, None])[:, :, 0]
    arm = pose[:, :3] + np.array([0.0, 0.0, HEIGHT])
    return np.concatenate([gradient[:, :3], turned + np.cross(arm, gradient[:, :3])], 1)


def rotation(vector):
    return torch.linalg.matrix_exp(
        torch.tensor([[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]])
    ).numpy()


@pytest.mark.parametrize("size", [1e-7, 0.3, 2.0])
def test_the_left_jacobian_turns_rates_of_the_vector_into_angular_velocity(size):
    r, rate, step = size * RNG.normal(size=3), RNG.normal(size=3), 1e-5
    turn = (rotation(r + step * rate) - rotation(r - step * rate)) / (2 * step) @ rotation(r).T
    velocity = np.array([turn[2, 1], turn[0, 2], turn[1, 0]])
    assert left_jacobian(r[None])[0] @ rate == pytest.approx(velocity, abs=1e-7)


def test_the_work_of_an_energys_wrench_is_the_energy():
    assert work_from_rest(wrench, POSES, HEIGHT) == pytest.approx(energy(POSES), rel=1e-9)
    found = energy_errors(work_from_rest(wrench, POSES, HEIGHT), energy(POSES))
    assert found["energy_wrench_error"] < 1e-9


def test_the_work_is_wrong_with_the_torque_about_another_point():
    work = work_from_rest(wrench, POSES, 0.0)
    assert energy_errors(work, energy(POSES))["energy_wrench_error"] > 0.05


def test_rows_of_unknown_energy_are_left_out():
    known = energy(POSES)
    found = energy_errors(1.1 * known, np.where(np.arange(12) < 6, known, np.nan))
    assert found["energy_wrench_error"] == pytest.approx(0.1)
    assert np.isnan(energy_errors(known, np.full(12, np.nan))["energy_wrench_error"])


def test_the_curl_of_an_energys_wrench_is_zero_and_that_of_a_swirl_is_not():
    scale = POSES.std(0)
    assert curl_residual(wrench, POSES, HEIGHT, scale) < 1e-3

    def swirl(pose):
        extra = np.zeros_like(pose)
        extra[:, 0], extra[:, 1] = -20.0 * pose[:, 1], 20.0 * pose[:, 0]
        return wrench(pose) + extra

    assert curl_residual(swirl, POSES, HEIGHT, scale) > 0.05


def test_the_generalised_force_is_the_gradient_of_the_energy():
    step = 1e-5 * np.eye(6)
    gradient = [(energy(POSES + s) - energy(POSES - s)) / 2e-5 for s in step]
    assert generalised_force(POSES, wrench(POSES), HEIGHT) == pytest.approx(np.stack(gradient, 1), rel=1e-4, abs=1e-3)


def test_an_equivariant_map_has_no_symmetry_residual():
    source, target = Modality.of_size("p", 6, kind="pose"), Modality.of_size("w", 6, kind="wrench")
    group = PointGroup.parse("C4v")

    def residual(matrix):
        found = symmetry_residuals(lambda x: {"w": x @ matrix}, group, source, [target], POSES, None)
        return found["w", "force"], found["w", "torque"]

    assert residual(np.diag([2.0, 2.0, 3.0, 5.0, 5.0, 7.0]).astype("f4")) == pytest.approx((0.0, 0.0), abs=1e-6)
    force, torque = residual(np.diag([2.0, 4.0, 3.0, 5.0, 5.0, 7.0]).astype("f4"))
    assert force > 0.1
    assert torque < 1e-6


def test_the_group_is_the_models_or_what_the_surface_has():
    square = Surface.of([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    assert found_group("C6", None)[0] == "C6"
    assert found_group(None, square)[0] == "C4v"
    assert found_group(None, Surface.of([[1.0, 0, 0], [0, 2, 0]])) is None
    assert found_group(None, None) is None


@pytest.mark.slow
@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="NOUMENA_DATA names no data folder")
def test_the_finite_element_wrench_does_the_work_that_is_stored():
    folder = Path(os.environ["NOUMENA_DATA"]) / "multimodal"
    pose, force, stored, path = (np.load(folder / f"{name}.npy") for name in ("pose", "force", "energy", "path_id"))
    forces = generalised_force(pose, force, HEIGHT)
    neighbours = path[1:] == path[:-1]
    work = (0.5 * (forces[1:] + forces[:-1]) * np.diff(pose.astype(float), axis=0)).sum(1)[neighbours]
    change = np.diff(stored)[neighbours]
    assert np.median(np.abs(work - change)) < 0.03 * np.median(np.abs(change))
