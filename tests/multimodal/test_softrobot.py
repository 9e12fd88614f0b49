import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from noumena.core.errors import ArtifactError, ConfigError, NoumenaError
from noumena.generation import generate
from noumena.multimodal.softrobot import (
    Equilibrium,
    NearlyIncompressible,
    SoftRobot,
    cylinder_mesh,
    describe,
    load_path,
    surface_arrays,
)

TINY = SoftRobot(turns=3, layers=1, levels=2)
COARSE = SoftRobot(turns=8, layers=1, levels=4)
FULL = SoftRobot()
COARSE_OPTIONS = ("--turns", 8, "--layers", 1, "--levels", 4)
# So coarse and so far that some steps cannot converge.
VIOLENT = SoftRobot(turns=4, layers=1, levels=2, pose_low=(-30, -30, -38, -1, -1, -1), pose_high=(30, 30, 20, 1, 1, 1))
COLUMNS = ("pose", "force", "shape", "top_wrench", "energy", "path_id")


def equilibrium_at(robot, pose, steps=3):
    """The equilibrium at a pose, to almost the last digit."""
    found = Equilibrium(robot, tolerance=1e-11)
    for step in range(1, steps + 1):
        assert found.move_to(np.asarray(pose) * step / steps)
    return found


def random_poses(robot, count, seed=0):
    return np.random.default_rng(seed).uniform(robot.pose_low, robot.pose_high, (count, 6))


def cross_matrix(w):
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])


def left_jacobian(w):
    """Of SO(3): a change d of the rotation vector w is the rotation J d in the fixed frame (Chirikjian 2012)."""
    angle, W = np.linalg.norm(w), cross_matrix(w)
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * W + (angle - np.sin(angle)) / angle**3 * W @ W


def prism_volume(robot):
    """Of the body between two polygons of ``turns`` sides."""
    area = robot.turns / 2 * np.sin(2 * np.pi / robot.turns)
    return area * (robot.outer_radius**2 - robot.inner_radius**2) * robot.height


def check_wrench_is_the_derivative_of_the_energy(robot, pose):
    center = equilibrium_at(robot, pose)
    wrench = center.observe().top_wrench
    expected = np.concatenate([wrench[:3], left_jacobian(pose[3:]).T @ wrench[3:]])
    gradient = np.zeros(6)
    for i, h in enumerate([1e-3] * 3 + [1e-4] * 3):
        energies = []
        for sign in (1, -1):
            assert center.move_to(pose + sign * h * np.eye(6)[i])
            energies.append(center.observe().energy)
        gradient[i] = (energies[0] - energies[1]) / (2 * h)
    for part in (slice(3), slice(3, 6)):
        error = np.linalg.norm(gradient[part] - expected[part]) / np.linalg.norm(expected[part])
        assert error < 1e-6


def rotated(vectors, rotation):
    return (np.asarray(vectors).reshape(-1, 3) @ rotation.T).ravel()


# The mesh


@pytest.mark.parametrize("robot", [TINY, COARSE, FULL], ids=["tiny", "coarse", "full"])
def test_the_surface_is_closed_faces_outwards_and_encloses_the_elements(robot):
    mesh = cylinder_mesh(robot)
    corners = mesh.nodes[mesh.surface][mesh.triangles]
    enclosed = np.linalg.det(corners).sum() / 6
    solid = NearlyIncompressible(mesh, 1.0, 1.0)
    assert solid.rest_volumes.sum() == pytest.approx(prism_volume(robot), rel=1e-12)
    assert enclosed == pytest.approx(prism_volume(robot), rel=1e-12)
    edges = np.concatenate([mesh.quads[:, [i, (i + 1) % 4]] for i in range(4)])
    # Each edge once in either direction.
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert set(map(tuple, edges)) == {(b, a) for a, b in edges}


def test_bottom_and_top_are_the_rings_at_the_ends():
    mesh = cylinder_mesh(COARSE)
    np.testing.assert_array_equal(mesh.bottom, np.flatnonzero(mesh.nodes[:, 2] == 0))
    np.testing.assert_array_equal(mesh.top, np.flatnonzero(mesh.nodes[:, 2] == COARSE.height))


# The material


def test_energy_of_a_homogeneous_deformation_is_that_of_the_formula():
    mesh = cylinder_mesh(COARSE)
    solid = NearlyIncompressible(mesh, 0.3, 4.0)
    F = np.eye(3) + np.array([[0.1, 0.2, 0.0], [-0.1, 0.05, 0.1], [0.0, 0.1, -0.1]])
    J = np.linalg.det(F)
    density = 0.3 / 2 * (J ** (-2 / 3) * np.trace(F.T @ F) - 3) + 4.0 / 2 * (J - 1) ** 2
    energy = solid.energy(solid.deform(mesh.nodes @ (F - np.eye(3)).T))
    assert energy == pytest.approx(density * prism_volume(COARSE), rel=1e-12)


def test_a_rigid_motion_costs_no_energy_and_no_force():
    mesh = cylinder_mesh(COARSE)
    solid = NearlyIncompressible(mesh, 0.1, 5.0)
    state = solid.deform(Rotation.from_rotvec([1, 2, -1]).apply(mesh.nodes) - mesh.nodes + [3, 4, 5])
    assert abs(solid.energy(state)) < 1e-9
    assert np.abs(solid.residual(state)).max() < 1e-10


def test_residual_is_the_derivative_of_the_energy_and_stiffness_that_of_the_residual():
    mesh = cylinder_mesh(TINY)
    solid = NearlyIncompressible(mesh, 0.1, 5.0)
    rng = np.random.default_rng(0)
    u = rng.normal(0, 0.8, mesh.nodes.shape)
    state = solid.deform(u)
    stiffness = np.zeros((u.size, u.size))
    for dofs, matrix in zip(solid.dofs, solid.stiffness(state, solid.pressure(state)), strict=True):
        stiffness[np.ix_(dofs, dofs)] += matrix
    np.testing.assert_allclose(stiffness, stiffness.T, atol=1e-12)
    h = 1e-5
    gradient, hessian = np.zeros(u.size), np.zeros_like(stiffness)
    for i in range(u.size):
        step = h * np.eye(u.size)[i].reshape(u.shape)
        plus, minus = solid.deform(u + step), solid.deform(u - step)
        gradient[i] = (solid.energy(plus) - solid.energy(minus)) / (2 * h)
        hessian[i] = (solid.residual(plus) - solid.residual(minus)).ravel() / (2 * h)
    np.testing.assert_allclose(solid.residual(state).ravel(), gradient, rtol=0, atol=1e-7 * np.abs(gradient).max())
    np.testing.assert_allclose(stiffness, hessian, rtol=0, atol=1e-8 * np.abs(hessian).max())


# Equilibria


def test_at_rest_nothing_moves_and_nothing_pulls():
    robot = Equilibrium(COARSE)
    assert robot.move_to(np.zeros(6))
    rest = robot.observe()
    assert rest.energy == 0
    for values in (rest.pose, rest.force, rest.top_wrench, rest.shape):
        np.testing.assert_allclose(values, 0, atol=1e-12)


@pytest.mark.parametrize("pose", random_poses(COARSE, 3))
def test_the_wrench_is_the_derivative_of_the_energy_with_respect_to_the_pose(pose):
    check_wrench_is_the_derivative_of_the_energy(COARSE, pose)


@pytest.mark.slow
@pytest.mark.parametrize("pose", random_poses(FULL, 8, seed=1))
def test_the_wrench_is_the_derivative_of_the_energy_on_the_full_mesh(pose):
    check_wrench_is_the_derivative_of_the_energy(FULL, pose)


@pytest.mark.parametrize("pose", random_poses(COARSE, 4, seed=2))
def test_what_acts_on_the_top_arrives_at_the_base(pose):
    seen = equilibrium_at(COARSE, pose).observe()
    force, torque = seen.top_wrench[:3], seen.top_wrench[3:]
    arm = np.array([0, 0, COARSE.height]) + pose[:3]
    np.testing.assert_allclose(seen.force[:3], force, atol=1e-8)
    np.testing.assert_allclose(seen.force[3:], torque + np.cross(arm, force), atol=1e-7)


def test_the_solution_turns_with_the_pose_and_mirrors_with_it():
    pose = np.array([5, -3, -2, 0.1, 0.2, -0.15])
    seen = equilibrium_at(COARSE, pose).observe()
    nodes = surface_arrays(COARSE)["nodes"].astype(float)
    turn = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    mirror = np.diag([-1.0, 1, 1])
    for change, axial in ((turn, turn), (mirror, -mirror)):
        # Forces and displacements are vectors; torques and rotations change their sign as well in a mirror.
        other = equilibrium_at(COARSE, np.concatenate([change @ pose[:3], axial @ pose[3:]])).observe()
        expected = np.concatenate([change @ seen.force[:3], axial @ seen.force[3:]])
        np.testing.assert_allclose(other.force, expected, atol=1e-8)
        assert other.energy == pytest.approx(seen.energy, rel=1e-10)
        image = np.array([np.argmin(np.linalg.norm(nodes - change @ node, axis=1)) for node in nodes])
        shape = rotated(seen.shape, change).reshape(-1, 3)
        np.testing.assert_allclose(other.shape.reshape(-1, 3)[image], shape, atol=1e-6)


def test_the_base_is_pressed_when_the_robot_is_compressed_and_pulled_when_it_is_stretched():
    def wrench(**component):
        return equilibrium_at(COARSE, [component.get(name, 0.0) for name in ("x", "y", "z", "a", "b", "c")]).observe()

    assert wrench(z=-2).force[2] < -1
    assert wrench(z=2).force[2] > 1
    assert wrench(x=3).force[0] > 1
    assert wrench(c=0.2).force[5] > 10
    assert wrench(b=0.2).force[4] > 10


def test_torsion_is_close_to_the_closed_form():
    robot = SoftRobot(turns=24, layers=1, levels=4)
    torque = equilibrium_at(robot, [0, 0, 0, 0, 0, 0.1], steps=1).observe().force[5]
    polar = np.pi / 2 * (robot.outer_radius**4 - robot.inner_radius**4)
    assert torque == pytest.approx(robot.shear_modulus * polar / robot.height * 0.1, rel=0.05)


def test_an_equilibrium_does_not_depend_on_the_way_to_it():
    pose = random_poses(COARSE, 1, seed=3)[0]
    direct = equilibrium_at(COARSE, pose).observe()
    detour = equilibrium_at(COARSE, random_poses(COARSE, 1, seed=4)[0])
    assert detour.move_to(pose)
    np.testing.assert_allclose(detour.observe().force, direct.force, atol=1e-7)


def test_a_step_that_fails_leaves_the_robot_at_the_last_equilibrium():
    robot = equilibrium_at(COARSE, [0, 0, -1, 0, 0, 0])
    assert not robot.move_to([0, 0, -38, 2, 0, 3])
    assert np.isfinite(robot.displacement).all()
    assert -38 < robot.pose[2] <= -1
    # Where it stands is an equilibrium: staying there takes no further system of equations.
    before = robot.iterations
    assert robot.move_to(robot.pose)
    assert robot.iterations == before


@pytest.mark.parametrize("pose", [[0, 0, 0], [0, 0, np.nan, 0, 0, 0]])
def test_what_is_no_pose_is_refused(pose):
    with pytest.raises(ConfigError, match="six finite numbers"):
        Equilibrium(TINY).move_to(pose)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"height": 0.0}, ["height=0.0", "positive", "mm"]),
        ({"shear_modulus": float("nan")}, ["shear_modulus=nan", "MPa"]),
        ({"inner_radius": 21.0}, ["inner_radius=21.0", "outer_radius=20.0"]),
        ({"turns": 2}, ["turns=2", "at least 3"]),
        ({"layers": 1.5}, ["layers=1.5", "whole number"]),
        ({"levels": 1}, ["levels=1", "at least 2"]),
        ({"pose_low": (0.0, 0.0)}, ["pose_low", "six finite numbers"]),
        ({"pose_low": (1.0, -8, -6, -1, -1, -1)}, ["Dx", "1.0", "rest"]),
        ({"pose_high": (8.0, 8, 3, 1, 1, 3.2)}, ["Rz", "below pi", "3.2"]),
        ({"pose_low": (-8.0, -8, -50, -1, -1, -1)}, ["Dz", "-50.0", "-height=-40.0"]),
    ],
)
def test_a_robot_that_cannot_be_is_refused_in_words(values, words):
    with pytest.raises(ConfigError) as caught:
        SoftRobot(**values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_poses_of_the_reference_data_come_out_the_same():
    folder = Path(os.environ.get("NOUMENA_DATA", "")) / "multimodal"
    if not (folder / "pose.npy").is_file():
        pytest.skip("NOUMENA_DATA points at no folder with multimodal/pose.npy")
    stored = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
    with np.load(folder / "surface_mesh.npz") as mesh:
        for name, values in surface_arrays(FULL).items():
            np.testing.assert_array_equal(values, mesh[name])
    chosen = np.random.default_rng(0).choice(len(stored["pose"]), 20, replace=False)
    for row in chosen:
        seen = equilibrium_at(FULL, stored["pose"][row].astype(np.float64))
        found = seen.observe()
        for name in ("force", "shape", "top_wrench", "energy"):
            expected, value = stored[name][row], getattr(found, name)
            error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
            # The poses are stored in single precision.
            assert error < 1e-5, (row, name, error)


# Load paths


def test_a_path_visits_the_range_in_bounded_steps_off_the_straight_line():
    rows = load_path(1, robot=COARSE, seed=3)
    low, high = np.array(COARSE.pose_low), np.array(COARSE.pose_high)
    poses = rows["pose"].astype(np.float64)
    assert (poses >= low - 1e-6).all()
    assert (poses <= high + 1e-6).all()
    steps = np.diff(np.concatenate([np.zeros((1, 6)), poses]), axis=0) / (high - low)
    assert np.abs(steps).max() < 0.2 * 1.6 + 1e-6
    directions = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    assert (directions[1:] * directions[:-1]).sum(1).max() < 0.9999
    assert all(len(rows[name]) == len(poses) for name in COLUMNS)
    assert (rows["path_id"] == 1).all()


def test_a_path_is_a_function_of_seed_and_number():
    first = load_path(5, robot=TINY, seed=1)
    load_path(6, robot=TINY, seed=1)
    again = load_path(5, robot=TINY, seed=1)
    for name in COLUMNS:
        np.testing.assert_array_equal(first[name], again[name])
    for other in (load_path(6, robot=TINY, seed=1), load_path(5, robot=TINY, seed=2)):
        assert not np.isin(other["pose"], first["pose"]).any()


def test_steps_that_fail_end_their_path_and_are_counted():
    paths = [load_path(number, robot=VIOLENT) for number in range(1, 9)]
    failed = [int(path["failed_steps"]) for path in paths]
    assert set(failed) == {0, 1}
    for path in paths:
        assert all(np.isfinite(path[name]).all() for name in COLUMNS)


@pytest.mark.parametrize(("name", "value"), [("path", 0), ("seed", -1), ("targets", 0), ("targets", 1.5)])
def test_numbers_of_a_path_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        load_path(**{"path": 1, "robot": TINY, name: value})


# Jobs


def job(number, factor=1):
    """A job without physics: ``number % 3`` rows."""
    values = np.full((number % 3, 2), number * factor, dtype=np.float32)
    return {"value": values, "number": np.full(len(values), number), "odd": np.array(number % 2)}


def job_that_stops_at_seven(number, how):
    if number == 7 and how == "raise":
        raise ConfigError("seven is not liked")
    if number == 7:
        os._exit(9)
    return job(number)


def run_jobs(folder, count=10, factor=1, **options):
    return generate(
        folder,
        partial(job, factor=factor),
        count,
        settings={"factor": factor},
        describe=lambda totals: totals,
        **options,
    )


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_generated_files_hold_all_rows_in_order_and_nothing_else_is_left(tmp_path):
    seen = []
    done = run_jobs(
        tmp_path / "out",
        archives={"extra.npz": {"a": np.arange(3)}},
        workers=2,
        progress=lambda done, count: seen.append((done, count)),
    )
    assert (done.computed, done.kept) == (10, 0)
    assert seen == [(i, 10) for i in range(11)]
    assert set(files(tmp_path / "out")) == {"value.npy", "number.npy", "extra.npz", "metadata.json"}
    number = np.load(tmp_path / "out" / "number.npy")
    np.testing.assert_array_equal(number, np.repeat(np.arange(1, 11), np.arange(1, 11) % 3))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "value.npy")[:, 1], number)
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (metadata["rows"], metadata["odd"]) == (len(number), 5)


def test_a_complete_folder_is_left_alone_and_another_one_is_not_touched(tmp_path):
    run_jobs(tmp_path / "out")
    before = files(tmp_path / "out")
    done = run_jobs(tmp_path / "out")
    assert (done.computed, done.kept) == (0, 10)
    with pytest.raises(ArtifactError, match="factor is 1 there and 2 here"):
        run_jobs(tmp_path / "out", factor=2)
    with pytest.raises(ArtifactError, match="jobs is 10 there and 11 here"):
        run_jobs(tmp_path / "out", count=11)
    assert files(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds another data set"):
        run_jobs(tmp_path / "other")
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(ArtifactError, match="not empty"):
        run_jobs(tmp_path)
    with pytest.raises(ArtifactError, match=r"precious\.txt"):
        run_jobs(tmp_path / "precious.txt")


@pytest.mark.parametrize(("how", "error"), [("raise", ConfigError), ("die", NoumenaError)])
def test_what_is_done_before_a_failure_is_kept_for_the_same_settings_only(tmp_path, how, error):
    with pytest.raises(error, match="seven" if how == "raise" else "worker process"):
        generate(
            tmp_path / "out",
            partial(job_that_stops_at_seven, how=how),
            10,
            settings={"factor": 1},
            describe=lambda totals: totals,
        )
    with pytest.raises(ArtifactError, match=r"unfinished work of other settings: factor is 1 there and 2 here"):
        run_jobs(tmp_path / "out", factor=2)
    done = run_jobs(tmp_path / "out", count=12)
    assert (done.computed, done.kept) == (6, 6)
    run_jobs(tmp_path / "whole", count=12)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_damaged_part_is_named(tmp_path):
    with pytest.raises(ConfigError):
        generate(
            tmp_path / "out",
            partial(job_that_stops_at_seven, how="raise"),
            10,
            settings={"factor": 1},
            describe=lambda totals: totals,
        )
    part = tmp_path / "out" / ".parts" / "000002.npz"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"000002\.npz is damaged.*[Dd]elete it"):
        run_jobs(tmp_path / "out")
    part.unlink()
    assert run_jobs(tmp_path / "out").computed == 1


@pytest.mark.parametrize("name", ["count", "workers"])
def test_no_jobs_and_no_workers_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        run_jobs(tmp_path / "out", **{name: 0})


def test_threads_of_the_calling_process_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    run_jobs(tmp_path / "out", count=1)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


# The command line


def command(*arguments):
    return [
        sys.executable,
        "-c",
        "from noumena.cli.main import main; main()",
        "data",
        "softrobot",
        *map(str, arguments),
    ]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def start_and_wait_for_parts(out, *arguments, parts=3):
    """A run in a process group of its own, once so many of its paths are done."""
    process = subprocess.Popen(
        command(out, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list((out / ".parts").glob("0*.npz"))) < parts:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def members(group):
    """Processes of a process group, zombies aside."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Sixteen paths that one worker has computed without a stop."""
    out = tmp_path_factory.mktemp("whole") / "data"
    done = run(out, "--paths", 16, "--workers", 1, *COARSE_OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_the_folder_says_what_is_in_it(uninterrupted):
    out, summary = uninterrupted
    assert set(files(out)) == {f"{name}.npy" for name in COLUMNS} | {"surface_mesh.npz", "metadata.json"}
    arrays = {name: np.load(out / f"{name}.npy") for name in COLUMNS}
    metadata = json.loads((out / "metadata.json").read_text())
    surface = cylinder_mesh(COARSE).surface
    shapes = {
        "pose": (6,),
        "force": (6,),
        "shape": (3 * len(surface),),
        "top_wrench": (6,),
        "energy": (),
        "path_id": (),
    }
    for name, shape in shapes.items():
        assert arrays[name].shape == (summary["rows"], *shape)
        assert arrays[name].dtype == (np.int32 if name == "path_id" else np.float32)
    assert metadata["samples"] == summary["rows"]
    assert metadata["failed_steps"] == summary["failed_steps"] == 0
    assert metadata["group"] == "path_id"
    assert metadata["modalities"]["shape"]["mesh"] == "surface_mesh.npz"
    for name in ("pose", "force"):
        assert len(metadata["modalities"][name]["columns"]) == len(metadata["modalities"][name]["units"]) == 6
    np.testing.assert_array_equal(np.unique(arrays["path_id"]), np.arange(1, 17))


def test_rows_are_those_of_the_library_whatever_the_workers(uninterrupted, tmp_path):
    out, _ = uninterrupted
    done = run(tmp_path / "data", "--paths", 16, "--workers", 2, *COARSE_OPTIONS)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "data") == files(out)
    ids = np.load(out / "path_id.npy")
    for number in (9, 2):
        path = load_path(number, robot=COARSE)
        for name in COLUMNS:
            np.testing.assert_array_equal(np.load(out / f"{name}.npy")[ids == number], path[name])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads process groups from /proc")
def test_a_killed_run_leaves_no_process_and_continues_to_the_same_bytes(uninterrupted, tmp_path):
    arguments = (tmp_path / "data", "--paths", 16, "--workers", 2, *COARSE_OPTIONS)
    process = start_and_wait_for_parts(*arguments)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    deadline = time.monotonic() + 20
    while left := members(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not (tmp_path / "data" / "metadata.json").exists()
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert 3 <= json.loads(done.stdout)["paths_kept"] < 16
    assert files(tmp_path / "data") == files(uninterrupted[0])


def test_an_interrupted_run_says_how_to_continue(uninterrupted, tmp_path):
    arguments = (tmp_path / "data", "--paths", 16, "--workers", 2, *COARSE_OPTIONS)
    process = start_and_wait_for_parts(*arguments)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "same command continues" in err
    assert "Traceback" not in err
    other = run(tmp_path / "data", "--paths", 16, *COARSE_OPTIONS, "--height", 41)
    assert other.returncode == 4
    assert "height is 40.0 there and 41.0 here" in other.stderr
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "there already" in done.stdout
    assert files(tmp_path / "data") == files(uninterrupted[0])


def test_failed_steps_are_reported(tmp_path):
    options = ["--turns", 4, "--layers", 1, "--levels", 2, "--workers", 2]
    options += ["--pose-low", *VIOLENT.pose_low, "--pose-high", *VIOLENT.pose_high]
    done = run(tmp_path / "data", "--paths", 8, *options)
    assert done.returncode == 0, done.stderr
    failed = json.loads((tmp_path / "data" / "metadata.json").read_text())["failed_steps"]
    assert failed == sum(int(load_path(number, robot=VIOLENT)["failed_steps"]) for number in range(1, 9))
    assert f"{failed} step" in done.stdout


def test_data_without_a_row_are_no_data():
    with pytest.raises(ConfigError, match="no step of any of the 3 load paths converged"):
        describe({"rows": 0, "failed_steps": 3, "newton_iterations": 9}, robot=TINY, paths=3, seed=0, targets=3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--inner-radius", 30], 2, ["inner_radius=30.0", "outer_radius=20.0"]),
        (["--paths", 0], 2, ["--paths"]),
        (["--levels", 1], 2, ["levels=1"]),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, arguments, code, words):
    done = run(tmp_path / "data", *arguments)
    assert done.returncode == code
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path):
    code = "import sys; sys.modules['skfem'] = None; from noumena.cli.main import main; main()"
    line = [sys.executable, "-c", code, "data", "softrobot", str(tmp_path / "data")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "NotSupportedError" in done.stderr
    assert "pip install 'noumena[fem]'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_settings_and_the_command_line_are_there_without_the_finite_elements():
    code = "import sys, noumena.cli.main, noumena.multimodal.softrobot; print('skfem' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_generated_folders_open_as_they_are(tmp_path):
    from noumena.multimodal.data import open_arrays

    out = tmp_path / "made"
    mesh = ["--turns", "8", "--layers", "1", "--levels", "2"]
    assert run(out, "--paths", "4", *mesh, "--targets", "1", "--workers", "1").returncode == 0
    splits = open_arrays(str(out))
    assert {m.name: m.kind for m in splits.train.modalities} == {
        "pose": "pose",
        "force": "wrench",
        "shape": "displacement",
    }
    assert splits.train.modalities[2].units[0] == "mm"
    assert "energy" in splits.train.side
    assert len(splits.train.surface.nodes) * 3 == splits.train.sizes["shape"]
    assert not set(splits.train.groups.tolist()) & set(splits.test.groups.tolist())
