import sys

import numpy as np
import pytest

from noumena.config.schema import check_section
from noumena.core.data import Splits
from noumena.core.errors import ConfigError
from noumena.multimodal.evaluate import evaluate
from noumena.multimodal.modality import Surface
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import from_arrays

ANGLE = np.arange(4) * np.pi / 2
RING = np.stack([np.cos(ANGLE), np.sin(ANGLE), 0 * ANGLE], 1)
NODES = np.concatenate([RING, RING + np.array([0.0, 0.0, 2.0])])
TRIANGLES = [t for i in range(4) for t in ([i, (i + 1) % 4, i + 4], [(i + 1) % 4, (i + 1) % 4 + 4, i + 4])]


def robot(n, seed):
    """A cylinder of springs: wrench and shape follow from the pose; half of its energy is known."""
    pose = np.random.default_rng(seed).normal(size=(n, 6)) * [1, 1, 0.5, 0.1, 0.1, 0.1]
    force = pose[:, :3] * 2.0
    torque = 30.0 * pose[:, 3:] + np.cross(pose[:, :3] + [0, 0, 2.0], force)
    shape = np.zeros((n, 8, 3))
    shape[:, 4:] = pose[:, None, :3]
    energy = np.square(pose[:, :3]).sum(1) + 15.0 * np.square(pose[:, 3:]).sum(1)
    return from_arrays(
        {"pose": pose, "force": np.concatenate([force, torque], 1), "shape": shape},
        kinds={"pose": "pose", "force": "wrench", "shape": "displacement"},
        units={"shape": "mm"},
        surface=Surface.of(NODES, TRIANGLES),
        side={"energy": np.where(np.arange(n) % 2, energy, np.nan)},
    )


def plain(n, seed, missing=0.3):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 3))
    b = a @ np.arange(6).reshape(3, 2) + np.tanh(a[:, :2])
    gone = rng.random(n) < missing
    a[gone & (np.arange(n) % 2 == 0)] = np.nan
    b[gone & (np.arange(n) % 2 == 1)] = np.nan
    return from_arrays({"a": a, "b": b})


def trained(splits, epochs, **options):
    model = MVAE(z_dim=8, hidden_dims=(32,), mixture=2, **options)
    model.fit(splits.train, splits.val, max_epochs=epochs, batch_size=64, lr=5e-3, seed=0, progress=False)
    return model


@pytest.fixture(scope="module")
def robots():
    return Splits(robot(300, 0), robot(80, 1), robot(100, 2))


@pytest.fixture(scope="module")
def model(robots):
    return trained(robots, 30)


@pytest.fixture(scope="module")
def found(model, robots):
    return evaluate(model, robots, baseline_steps=100, traversals=2)


def test_every_direction_is_measured_in_physical_units(found, model, robots):
    inferred = model.infer(robots.test, ["force"], observed=["pose"])["force"].mean
    error = inferred - robots.test["force"].numpy()
    assert found.metrics["rmse/pose->force/force"] == pytest.approx(np.sqrt(np.square(error[:, :3]).mean()), rel=1e-5)
    for source in ("pose", "force", "shape", "pose+force", "pose+shape", "force+shape", "all"):
        assert {f"r2/{source}->{target}" for target in ("pose", "force", "shape")} <= set(found.metrics)
    assert found.metrics["r2/pose->shape"] == pytest.approx(model.evaluate(robots.test)["r2/pose->shape"])


def test_the_headline_comes_first(found):
    assert list(found.metrics)[:3] == ["rmse/pose->force/force", "rmse/pose->force/torque", "node_rmse/pose->shape"]
    assert {"active_units", "active_axes", "kl", "energy_wrench_error", "curl_residual"} <= set(found.metrics)
    assert "symmetry_residual/pose->shape" in found.metrics


def test_regressions_are_measured_on_the_same_rows(found):
    for name in ("poly", "mlp", "pca_mlp"):
        assert f"baseline_{name}/rmse/pose->force/force" in found.metrics
    assert "baseline_poly/rmse/shape->pose/translation" in found.metrics
    assert "baseline_mlp/rmse/shape->pose/translation" not in found.metrics
    assert found.metrics["baseline_poly/rmse/pose->force/force"] < 0.01  # the force is linear in the pose


def test_far_rows_are_chosen_by_their_pose_not_by_their_error(found, model, robots):
    distance = ((robots.test["pose"] - model.fronts[0].mean) / model.fronts[0].scale).square().mean(1)
    far = (distance >= distance.quantile(0.95)).numpy()
    inferred = model.infer(robots.test, ["force"], observed=["pose"])["force"].mean
    error = (inferred - robots.test["force"].numpy())[far, :3]
    expected = np.sqrt(np.square(error).mean())
    assert found.metrics["worst/rmse/pose->force/force"] == pytest.approx(expected, rel=1e-4)
    assert "worst_by_baseline/rmse/pose->force/force" in found.metrics


def test_tables_are_whole_and_pictures_can_be_drawn(found, tmp_path):
    names = [picture.name for picture in found.pictures]
    expected = {"inferred_pose", "inferred_force", "surface", "errors_by_distance", "calibration"}
    assert set(names) == expected | {"latent_traversals", "latent_map"}
    assert len(set(names)) == len(names)
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.title
    for picture in found.pictures:
        picture.figure.savefig(tmp_path / f"{picture.name}.png", dpi=30)


def test_the_primitives_are_files_that_meshio_reads(found, tmp_path):
    meshio = pytest.importorskip("meshio")
    names = [name for name in found.files if name.endswith(".vtu")]
    assert len(names) == 2 * 5
    (tmp_path / names[0]).write_bytes(found.files[names[0]])
    mesh = meshio.read(tmp_path / names[0])
    assert mesh.points == pytest.approx(NODES)
    size = np.linalg.norm(mesh.point_data["displacement"], axis=1)
    assert mesh.point_data["magnitude"] == pytest.approx(size)


def test_without_the_optional_packages_the_captions_say_what_is_missing(model, robots, monkeypatch):
    for package in ("meshio", "plotly"):
        monkeypatch.setitem(sys.modules, package, None)
    bare = evaluate(model, robots, baselines=[], traversals=1)
    assert bare.files == {}
    captions = {picture.name: picture.caption for picture in bare.pictures}
    assert "pip install 'noumena[multimodal]'" in captions["surface"]
    assert "meshio" in captions["latent_traversals"]


def test_the_same_seed_gives_the_same_numbers(model, robots):
    options = {"baselines": ["pca_mlp"], "baseline_steps": 10, "traversals": 0}
    first, again, other = (evaluate(model, robots, **options, seed=seed).metrics for seed in (0, 0, 1))
    assert first == pytest.approx(again, nan_ok=True)
    assert first != pytest.approx(other, nan_ok=True)


def test_plain_vectors_with_missing_modalities_are_measured_in_the_rows_that_have_them():
    splits = Splits(plain(200, 0), plain(60, 1), plain(70, 2))
    model = trained(splits, 5)
    found = evaluate(model, splits, baselines=["poly", "pca_mlp"], baseline_steps=20)
    both = int(splits.test.has("a", "b").sum())
    directions = next(table for table in found.tables if "Every modality" in table.title)
    rows = {(row[0], row[1]): row[2] for row in directions.rows}
    assert rows["a", "b"] == rows["all", "a"] == both < 70
    assert rows["a", "a"] == int(splits.test.has("a").sum())
    assert {"inferred_a", "inferred_b", "latent_map"} <= {picture.name for picture in found.pictures}
    assert found.files == {}
    assert not [name for name in found.metrics if "symmetry" in name or "energy" in name]


def test_a_model_without_its_training_rows_is_evaluated_without_baselines(model, robots):
    found = evaluate(model, Splits(robots.test), baselines=[])
    assert not [name for name in found.metrics if name.startswith("baseline_")]
    assert "rmse/pose->force/force" in found.metrics


def test_options_are_checked():
    check_section("evaluate", {"baselines": ["poly"], "worst": 0.1}, evaluate)
    check_section("evaluate", {"baselines": []}, evaluate)
    with pytest.raises(ConfigError, match="poly, mlp, pca_mlp"):
        check_section("evaluate", {"baselines": ["forest"]}, evaluate)


@pytest.mark.parametrize(
    ("option", "value"), [("baselines", ["forest"]), ("worst", 0.0), ("traversals", -1), ("baseline_steps", 0)]
)
def test_options_out_of_range_are_refused(model, robots, option, value):
    with pytest.raises(ConfigError, match=f"evaluate.{option}"):
        evaluate(model, robots, **{option: value})
