import json

import h5py
import numpy as np
import pytest

from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.density.data import open_episodes, open_ood
from noumena.density.rl import ood_levels, sparse_dataset
from noumena.density.rl.sparse import Box, densest_box
from tests.cli.test_cli import run
from tests.density.files import episodes, write_episodes, write_minari


def arrays_of(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    return found


def trajectories(arrays):
    ends = arrays["terminals"] | arrays["timeouts"]
    return np.cumsum(ends) - ends


@pytest.fixture
def data():
    """Forty episodes, of which the odd ones act strongly and are paid 1 now and then."""
    lengths = [5 + number % 3 for number in range(40)]
    arrays = episodes(lengths, observation=4, action=2)
    number = trajectories(arrays)
    arrays["actions"] *= np.where(number % 2, 10.0, 0.01)[:, None].astype(np.float32)
    arrays["rewards"] = np.where(number % 2, 1.0, 0.0).astype(np.float32)
    arrays["infos/qpos"] = np.arange(3 * len(number), dtype=np.float64).reshape(-1, 3)
    return arrays


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_a_sparse_set_is_the_data_less_whole_trajectories_through_the_box(tmp_path, data, kind):
    path = write_episodes(tmp_path / f"all.{kind}", data)
    out = tmp_path / "folder" / "sparse.hdf5"
    facts = sparse_dataset(path, out, box=(0.5, 1e9, 0.5, 1.5), fraction=0.4, seed=3)
    found = arrays_of(out)
    assert set(found) == set(data)
    number = trajectories(data)
    assert (facts["trajectories"], facts["through"], facts["dropped"]) == (40, 20, 8)
    # Rows keep their order and their values; each is told by its first position.
    kept = np.isin(data["infos/qpos"][:, 0], found["infos/qpos"][:, 0])
    for name, values in data.items():
        np.testing.assert_array_equal(found[name], values[kept])
        assert found[name].dtype == values.dtype
    gone = np.unique(number[~kept])
    assert len(gone) == 8
    assert (gone % 2 == 1).all()
    assert not np.isin(number[kept], gone).any()
    assert facts["kept_share"] == pytest.approx(kept.mean())
    splits = open_episodes(str(out))
    assert sum(splits.about["trajectories"].values()) == 32
    assert [place.name for place in out.parent.iterdir()] == ["sparse.hdf5"]


def test_the_same_seed_drops_the_same_trajectories(tmp_path, data):
    path = write_episodes(tmp_path / "all.hdf5", data)
    kept = []
    for number, seed in enumerate((0, 0, 1)):
        sparse_dataset(path, tmp_path / f"{number}.hdf5", box=(0.5, 1e9, 0.5, 1.5), seed=seed)
        kept.append(arrays_of(tmp_path / f"{number}.hdf5")["infos/qpos"][:, 0])
    np.testing.assert_array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


def test_a_minari_set_becomes_the_same_sparse_set(tmp_path, data):
    del data["infos/qpos"]
    folder = write_minari(tmp_path / "minari", data)
    ends = np.flatnonzero(data["terminals"] | data["timeouts"])
    with h5py.File(tmp_path / "minari" / "data" / "main_data.hdf5", "a") as file:
        for number, (start, end) in enumerate(zip([0, *(ends[:-1] + 1)], ends, strict=True)):
            file[f"episode_{number}/rewards"] = data["rewards"][start : end + 1]
            file[f"episode_{number}/terminations"] = data["terminals"][start : end + 1]
            file[f"episode_{number}/truncations"] = data["timeouts"][start : end + 1]
    path = write_episodes(tmp_path / "all.hdf5", data)
    for source, out in ((folder, "one.hdf5"), (path, "two.hdf5")):
        sparse_dataset(source, tmp_path / out, fraction=0.5, seed=1)
    one, two = arrays_of(tmp_path / "one.hdf5"), arrays_of(tmp_path / "two.hdf5")
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_automatic_box_lies_around_the_densest_mode():
    rng = np.random.default_rng(0)
    actions = np.concatenate([rng.normal(1.0, 0.05, 700), rng.normal(3.0, 0.5, 300)])
    rewards = np.concatenate([rng.normal(-2.0, 0.1, 700), rng.normal(5.0, 1.0, 300)])
    box = densest_box(actions, rewards)
    assert box.least_action < 1.0 < box.greatest_action < 2.0
    assert box.least_reward < -2.0 < box.greatest_reward < 1.0
    constant = densest_box(np.ones(9), np.zeros(9))
    assert constant.least_action <= 1.0 <= constant.greatest_action
    assert constant.least_reward <= 0.0 <= constant.greatest_reward


def test_by_default_half_of_the_trajectories_go_through_the_box(tmp_path):
    facts = sparse_dataset("sample:hopper", tmp_path / "sparse.hdf5")
    assert facts["through"] == pytest.approx(facts["trajectories"] / 2, abs=2)
    assert facts["dropped"] == round(facts["through"] / 2)
    assert 0.5 < facts["kept_share"] < 0.95
    with h5py.File(tmp_path / "sparse.hdf5") as file:
        assert json.loads(file.attrs["box"]) == facts["box"]
        assert file.attrs["source"] == "sample:hopper"


def test_a_sparse_set_that_cannot_be_made_is_refused_and_nothing_is_written(tmp_path, data):
    path = write_episodes(tmp_path / "all.hdf5", data)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "sparse.hdf5"
    for options, error, words in (
        ({"box": (90.0, 91.0, 0.0, 1.0)}, DataError, "Widen the box"),
        ({"box": Box(0.0, 1e9, -9.0, 9.0), "fraction": 1.0}, DataError, "keep some"),
        ({"box": (1.0, 0.0, 0.0, 1.0)}, ConfigError, "least and greatest"),
        ({"fraction": 0.0}, ConfigError, "fraction"),
        ({"least_inside": 2.0}, ConfigError, "least_inside"),
    ):
        with pytest.raises(error, match=words):
            sparse_dataset(path, out, **options)
    with pytest.raises(ConfigError, match="is the file that is read"):
        sparse_dataset(path, path)
    with pytest.raises(ConfigError, match=r"\.hdf5 or \.h5"):
        sparse_dataset(path, tmp_path / "sparse.npz")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        sparse_dataset(path, tmp_path / "file" / "sparse.hdf5")
    without = {name: values for name, values in data.items() if name != "rewards"}
    with pytest.raises(DataError, match="'rewards'"):
        sparse_dataset(write_episodes(tmp_path / "none.npz", without), out)
    data["rewards"][7] = np.nan
    with pytest.raises(DataError, match="row 7"):
        sparse_dataset(write_episodes(tmp_path / "nan.npz", data), out)


def test_a_failed_write_leaves_what_was_there(tmp_path, data, monkeypatch):
    def full(file, name, values):
        raise OSError(28, "No space left on device")

    path = write_episodes(tmp_path / "all.hdf5", data)
    out = tmp_path / "sparse.hdf5"
    out.write_bytes(b"before")
    monkeypatch.setattr("noumena.density.rl.transitions._append", full)
    with pytest.raises(ArtifactError, match="No space left"):
        sparse_dataset(path, out)
    assert out.read_bytes() == b"before"
    assert sorted(place.name for place in tmp_path.iterdir()) == ["all.hdf5", "sparse.hdf5"]


# Graded out-of-distribution sets


def test_levels_are_read_back_and_graded(tmp_path, data):
    path = write_episodes(tmp_path / "all.npz", data)
    other = episodes((30,), seed=9)
    policies = {"other": write_episodes(tmp_path / "other.hdf5", other)}
    out = tmp_path / "levels.npz"
    facts = ood_levels(path, out, shifts=(1, 2.5), policies=policies, test_fraction=0.4, seed=4)
    splits = open_episodes(path, test_fraction=0.4)
    levels = open_ood(str(out), splits.train.columns)
    assert list(levels) == ["shift_1", "shift_2.5", "action_uniform", "action_shuffled", "policy_other"]
    assert {name: 2 * len(inside) for name, (inside, _) in levels.items()} == facts["levels"]
    test = {tuple(row) for row in splits.test.rows.tolist()}
    inside = levels["shift_1"][0]
    assert {tuple(row) for row in inside.tolist()} <= test
    std = splits.train.rows.double().std(0, correction=0)[:4]
    (near, far) = (levels[name][1].double() for name in ("shift_1", "shift_2.5"))
    # Both are moved from the same rows in the same directions.
    direction = (far - near)[:, :4] / std / 1.5
    np.testing.assert_allclose(direction.norm(dim=1).numpy(), 1.0, rtol=1e-3)
    base = near[:, :4] - std * direction
    originals = splits.test.rows[:, :4].double()
    nearest = (base[:, None] - originals[None]).abs().amax(-1).amin(1)
    assert float(nearest.max()) < 1e-3
    np.testing.assert_array_equal(near[:, 4:].numpy(), far[:, 4:].numpy())
    others = {tuple(row) for row in levels["action_uniform"][1][:, :4].tolist()}
    assert others <= {tuple(row[:4]) for row in test}
    assert not others & {tuple(row) for row in inside[:, :4].tolist()}
    uniform = levels["action_uniform"][1][:, 4:]
    assert (uniform >= splits.train.rows[:, 4:].amin(0)).all()
    assert (uniform <= splits.train.rows[:, 4:].amax(0)).all()
    whole = {tuple(row) for row in np.concatenate([other["next_observations"], other["actions"]], axis=1).tolist()}
    assert {tuple(row) for row in levels["policy_other"][1].tolist()} <= whole
    for _, (first, _) in levels.items():
        np.testing.assert_array_equal(first.numpy(), inside[: len(first)].numpy())


def test_shuffled_actions_are_those_of_other_rows(tmp_path, data):
    path = write_episodes(tmp_path / "all.npz", data)
    out = tmp_path / "levels.npz"
    ood_levels(path, out, shifts=(1,), rows=20)
    levels = open_ood(str(out), open_episodes(path).train.columns)
    moved, shuffled = levels["shift_1"][1].numpy(), levels["action_shuffled"][1].numpy()
    assert len(moved) == 20
    # The rows are the same ones in the same order; a shift leaves their actions.
    assert not (moved[:, 4:] == shuffled[:, 4:]).all(1).any()
    for column in (4, 5):
        np.testing.assert_array_equal(np.sort(moved[:, column]), np.sort(shuffled[:, column]))


@pytest.mark.parametrize(("row", "moved", "levels"), [("observation", 4, 1), ("transition", 4, 3)])
def test_levels_of_other_rows(tmp_path, data, row, moved, levels):
    path = write_episodes(tmp_path / "all.npz", data)
    ood_levels(path, tmp_path / "levels.npz", shifts=(2,), row=row, seed=0)
    ood_levels(path, tmp_path / "zero.npz", shifts=(1e-9,), row=row, seed=0)
    columns = open_episodes(path, row=row).train.columns
    found, same = (open_ood(str(tmp_path / name), columns) for name in ("levels.npz", "zero.npz"))
    assert len(found) == levels
    changed = (found["shift_2"][1] - same["shift_1e-09"][1]).abs().amax(0) > 1e-6
    last = [name.startswith("next_obs_" if row == "transition" else "obs_") for name in columns]
    assert changed.tolist() == last
    assert sum(last) == moved


def test_the_same_seed_makes_the_same_levels(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ood_levels("sample:hopper", tmp_path / f"{name}.npz", shifts=(1,), rows=20, seed=seed)
    a, b, c = (np.load(tmp_path / f"{name}.npz", allow_pickle=False) for name in "abc")
    for level in a:
        np.testing.assert_array_equal(a[level], b[level])
    assert not np.array_equal(a["shift_1"], c["shift_1"])


def test_levels_that_cannot_be_made_are_refused(tmp_path, data):
    path = write_episodes(tmp_path / "all.npz", data)
    out = tmp_path / "levels.npz"
    narrow = write_episodes(tmp_path / "narrow.npz", episodes((9,), observation=3))
    for options, error, words in (
        ({"shifts": (0.0,)}, ConfigError, "shifts"),
        ({"rows": 0}, ConfigError, "rows"),
        ({"test_fraction": 0.0}, ConfigError, "test_fraction"),
        ({"policies": {"": path}}, ConfigError, "policies"),
        ({"policies": {"other": narrow}}, DataError, "same environment"),
        ({"row": "obs"}, ConfigError, "row"),
        ({"split": "rows"}, ConfigError, "split"),
    ):
        with pytest.raises(error, match=words):
            ood_levels(path, out, **options)
    with pytest.raises(ConfigError, match=r"\.npz"):
        ood_levels(path, tmp_path / "levels.hdf5")
    assert not out.exists()


# On the command line


def test_sparse_on_the_command_line_is_the_library(tmp_path, capfd, data):
    path = write_episodes(tmp_path / "all.hdf5", data)
    options = ("--box", 0.5, 1e9, 0.5, 1.5, "--fraction", 0.4, "--seed", 3)
    code, out, err = run(capfd, "data", "sparse", path, tmp_path / "one.hdf5", *options, "--json")
    assert (code, err) == (0, "")
    expected = sparse_dataset(path, tmp_path / "two.hdf5", box=(0.5, 1e9, 0.5, 1.5), fraction=0.4, seed=3)
    assert json.loads(out) | {"output": ""} == expected | {"output": ""}
    one, two = arrays_of(tmp_path / "one.hdf5"), arrays_of(tmp_path / "two.hdf5")
    for name in two:
        np.testing.assert_array_equal(one[name], two[name])
    code, out, _ = run(capfd, "data", "sparse", path, tmp_path / "three.hdf5")
    assert code == 0
    assert "trajectories through it dropped (40 in all)" in out
    code, _, err = run(capfd, "data", "sparse", tmp_path / "none.hdf5", tmp_path / "four.hdf5")
    assert (code, "no such file" in err) == (3, True)


def test_ood_on_the_command_line_makes_levels_that_evaluate_reads(tmp_path, capfd, data):
    path = write_episodes(tmp_path / "all.hdf5", data)
    options = ("--shift", 0.5, "--shift", 3, "--policy", f"same={path}", "--split-seed", 2, "--seed", 1)
    code, out, err = run(capfd, "data", "ood", path, tmp_path / "one.npz", *options, "--json")
    assert (code, err) == (0, "")
    expected = ood_levels(path, tmp_path / "two.npz", shifts=(0.5, 3), policies={"same": path}, split_seed=2, seed=1)
    assert json.loads(out) | {"output": ""} == expected | {"output": ""}
    columns = open_episodes(path).train.columns
    one, two = (open_ood(str(tmp_path / name), columns) for name in ("one.npz", "two.npz"))
    assert list(one) == list(two)
    for name, halves in one.items():
        for half, same in zip(halves, two[name], strict=True):
            np.testing.assert_array_equal(half.numpy(), same.numpy())
    code, out, _ = run(capfd, "data", "ood", path, tmp_path / "three.npz")
    assert code == 0
    assert "shift_0.1" in out
    code, _, err = run(capfd, "data", "ood", path, tmp_path / "four.npz", "--policy", "same")
    assert (code, "NAME=FILE" in err) == (2, True)


@pytest.mark.parametrize("verb", ["sparse", "ood"])
def test_the_makers_explain_themselves(capfd, verb):
    code, out, _ = run(capfd, "data", verb, "--help")
    assert code == 0
    assert "DATA" in out
