import inspect
import json
import shutil
import typing

import numpy as np
import pytest
import torch

from noumena.config.schema import check_section
from noumena.core.errors import ConfigError, DataError
from noumena.molecules.conformations import Conformations
from noumena.molecules.data import count_frames, open_trajectory, read_trajectory, stream_frames
from noumena.molecules.geometry import torsions
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.splits import interleaved, time_blocks
from noumena.molecules.trajectories import sample_path
from tests.molecules.files import AIB9, ALANINE, WHOLE, refused, sample, save_npz, write


def parts(splits):
    return {name: part for name in ("train", "val", "test") if (part := getattr(splits, name)) is not None}


def identities(data):
    return list(zip(data.trajectory.tolist(), data.frame.tolist(), strict=True))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Two trajectories of 240 and 120 frames; frames tell their number."""
    folder = tmp_path_factory.mktemp("long")
    xyz = sample(frames=360).xyz.numpy()
    topology = sample(frames=1).topology
    return [
        save_npz(folder / "a.npz", xyz[:240], topology, energy=np.arange(240.0), dt_ps=np.float32(0.5)),
        save_npz(folder / "b.npz", xyz[240:], topology, energy=np.arange(120.0), dt_ps=np.float32(0.5)),
    ]


def test_the_signature_is_a_schema_of_json_able_options():
    hints = typing.get_type_hints(open_trajectory)
    for name, option in inspect.signature(open_trajectory).parameters.items():
        assert name in hints
        if name != "path":
            assert option.kind is option.KEYWORD_ONLY
            json.dumps(option.default)
    said = {"topology": "a.pdb", "smiles": "CC", "selection": "backbone", "unit": "nm", "stride": 2, "max_frames": 9}
    check_section("data", {"path": "x.xtc", "split": "time", "blocks": 4, "broken": "drop", **said}, open_trajectory)
    for wrong in ({"unit": "feet"}, {"split": "group"}, {"stride": "2"}, {"broken": "keep"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            check_section("data", {"path": "x", **wrong}, open_trajectory)


# Samples


@pytest.mark.parametrize(("name", "atoms", "formula"), [(AIB9, 58, "C39N9O10"), (ALANINE, 22, "C6H12N2O2")])
def test_samples_are_a_thousand_frames_of_a_known_molecule(name, atoms, formula):
    splits = open_trajectory(name)
    data = splits.train
    assert isinstance(data, Conformations)
    assert sum(map(len, parts(splits).values())) == 1000
    assert data.xyz.shape[1:] == (atoms, 3)
    assert data.topology.formula == splits.about["molecule"] == formula
    assert splits.about["trajectories"] == 20
    assert sample_path(name).stat().st_size < 600_000


def test_the_aib9_sample_has_both_hands_in_every_part_of_an_even_split():
    splits = open_trajectory(AIB9, val_fraction=0.25, test_fraction=0.25)
    for part in parts(splits).values():
        inner = torch.tensor([part.topology.torsions[f"phi:{residue}"] for residue in range(4, 9)])
        sums = torch.rad2deg(torsions(part.xyz, inner)).sum(1)
        assert (sums > 180).sum() >= 50
        assert (sums < -180).sum() >= 50


def test_neighbouring_frames_of_a_sample_are_close_in_time():
    data = read_trajectory(AIB9)
    lengths = torch.bincount(data.trajectory)
    assert lengths.tolist() == [50] * 20
    assert data.frame[:50].tolist() == list(range(50))


def test_an_unknown_sample_names_the_known_ones():
    refused(["sample:aib", AIB9, ALANINE], "sample:aib")


# Paths


def test_a_folder_a_pattern_and_a_list_name_the_same_files(tmp_path):
    data = sample()
    first = write(tmp_path, "xtc", data.xyz[:10], data.topology, name="run1")
    second = write(tmp_path, "xtc", data.xyz[10:], data.topology, name="run2")
    named = [str(tmp_path), str(tmp_path / "run*.xtc"), [first, second], f"{first}, {second}"]
    for path in named:
        read = read_trajectory(path, topology=ALANINE)
        assert read.trajectory.tolist() == [0] * 10 + [1] * 20
        assert count_frames(path) == 30
        assert torch.equal(torch.cat(list(stream_frames(path, read.schema))), read.xyz)


def test_a_folder_of_several_formats_asks_which(tmp_path):
    data = sample()
    write(tmp_path, "xtc", data.xyz, data.topology)
    write(tmp_path, "pdb", data.xyz[:1], data.topology)
    refused([".pdb, .xtc", "topology="], str(tmp_path))


def test_paths_that_name_nothing_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(["no such file"], "nothing.xtc")
    refused(["no file matches"], "*.xtc")
    refused(["folder without"], str(tmp_path))
    shutil.copy(sample_path(ALANINE), "a.npz")
    refused(["twice"], "a.npz,a.npz")
    (tmp_path / "a.gro2").write_text("x")
    refused([".gro2", ".npz"], "a.gro2")
    (tmp_path / "with,comma.npz").write_bytes(sample_path(ALANINE).read_bytes())
    assert len(read_trajectory("with,comma.npz")) == 1000


# Splits


@pytest.mark.parametrize("split", ["blocks", "time", "trajectory", "random"])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_frame_is_in_one_part(long, split, seed):
    options = {"val_fraction": 0.15, "test_fraction": 0.0 if split == "trajectory" else 0.2}
    splits = open_trajectory(",".join(long), split=split, seed=seed, **options)
    found = [identity for part in parts(splits).values() for identity in identities(part)]
    assert sorted(found) == [*((0, k) for k in range(240)), *((1, k) for k in range(120))]
    assert {name: len(part) for name, part in parts(splits).items()} == splits.about["frames"]
    if split != "trajectory":
        assert len(splits.val) == pytest.approx(54, abs=18)
        assert len(splits.test) == pytest.approx(72, abs=18)
    again = open_trajectory(",".join(long), split=split, seed=seed, **options)
    assert identities(again.train) == identities(splits.train)


def test_blocks_are_whole_stretches_of_time_spread_over_the_run(long):
    for seed in range(10):
        splits = open_trajectory(long[0], blocks=20, seed=seed)
        test = splits.test.frame
        assert len(test) == 48  # 4 of 20 blocks of 12
        blocks = (test // 12).unique()
        assert len(blocks) == 4
        assert torch.equal(test, (blocks[:, None] * 12 + torch.arange(12)).flatten())
        assert (blocks.diff() == 5).all()  # evenly spread
        val = (splits.val.frame // 12).unique()
        assert len(val) == 2
        assert 7 <= int(val.diff()) <= 13


def test_the_seed_moves_the_blocks(long):
    tests = {tuple(open_trajectory(long[0], seed=seed).test.frame.tolist()) for seed in range(10)}
    assert len(tests) > 1


def test_no_block_goes_over_the_end_of_a_trajectory():
    trajectory = torch.tensor([0] * 100 + [1] * 7 + [2] * 50)
    block = time_blocks(trajectory, 10)
    for number in block.unique():
        rows = (block == number).nonzero().flatten()
        assert len(trajectory[rows].unique()) == 1
        assert (rows.diff() == 1).all()
    assert torch.bincount(block).max() <= 20
    assert block.unique().tolist() == list(range(int(block.max()) + 1))


def test_every_part_of_a_small_set_has_a_block():
    for count in (3, 4, 5, 9):
        dealt = interleaved(torch.arange(count), val_fraction=0.1, test_fraction=0.1, seed=0, where="x")
        assert all(len(rows) for rows in dealt.values())
        assert sorted(torch.cat(list(dealt.values())).tolist()) == list(range(count))


def test_time_takes_the_last_frames_of_each_trajectory_for_the_test(long):
    splits = open_trajectory(",".join(long), split="time", val_fraction=0.1, test_fraction=0.2)
    for trajectory, length in ((0, 240), (1, 120)):
        of = {name: part.frame[part.trajectory == trajectory] for name, part in parts(splits).items()}
        assert of["train"].max() < of["val"].min() <= of["val"].max() < of["test"].min()
        assert of["test"].tolist() == list(range(int(0.8 * length), length))


def test_whole_trajectories_stay_together(long):
    splits = open_trajectory(",".join(long), split="trajectory", val_fraction=0.0, test_fraction=0.33)
    assert set(splits.train.trajectory.tolist()).isdisjoint(splits.test.trajectory.tolist())
    refused(["trajectories", "split='blocks'"], long[0], split="trajectory")


def test_blocks_of_trajectories_that_take_turns_in_a_file_are_of_one_trajectory(tmp_path):
    data = sample(frames=120)
    path = save_npz(tmp_path / "turns.npz", data.xyz, data.topology, traj=np.arange(120) % 3)
    splits = open_trajectory(path, blocks=12)
    for part in parts(splits).values():
        for trajectory in part.trajectory.unique():
            frames = part.frame[part.trajectory == trajectory]
            assert len(frames) % 10 == 0
            assert (frames.view(-1, 10).diff() == 1).all()


def test_fractions_of_nothing_keep_all_frames_in_order(long):
    splits = open_trajectory(long[0], **WHOLE)
    assert splits.val is None
    assert splits.test is None
    assert splits.train.side["energy"].tolist() == list(range(240))


def test_too_few_frames_are_refused(tmp_path):
    data = sample()
    refused(["2 frames", "at least 4"], save_npz(tmp_path / "a.npz", data.xyz[:2], data.topology))
    refused(["expected at least one frame"], save_npz(tmp_path / "b.npz", data.xyz[:0], data.topology))


def test_options_out_of_range_are_refused():
    for wrong, words in (
        ({"stride": 0}, "stride=0"),
        ({"max_frames": 0}, "max_frames=0"),
        ({"blocks": 2}, "blocks=2"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"split": "times"}, "split"),
        ({"unit": "feet"}, "unit"),
        ({"broken": "keep"}, "broken"),
    ):
        refused([words], ALANINE, **wrong)


# Facts


def test_the_facts_tell_what_was_read_and_left_out(long):
    about = open_trajectory(long[0], stride=3, selection="not element H").about
    assert about["source"] == long[0]
    assert about["atoms"] == "10 (not element H)"
    assert about["time_step_ps"] == 1.5
    assert about["side"] == ["energy"]
    assert about["left_out"] == {"frames between those of stride and max_frames": 160}
    json.dumps(about)


def test_the_schema_of_conformations_is_json_and_reads_further_files(tmp_path):
    data = open_trajectory(ALANINE, selection="backbone").train
    schema = json.loads(json.dumps(data.schema))
    assert schema["kind"] == "trajectory"
    whole = torch.cat(list(stream_frames(ALANINE, schema)))
    assert torch.equal(whole, read_trajectory(ALANINE, selection="backbone").xyz)
    assert torch.equal(read_trajectory(ALANINE, schema=schema).xyz, whole)


def test_a_stream_refuses_a_missing_file_at_once():
    with pytest.raises(DataError, match="no such file"):
        stream_frames("nothing.xtc", sample(frames=1).schema)
    with pytest.raises(ConfigError, match="batch_rows"):
        stream_frames(ALANINE, sample(frames=1).schema, batch_rows=0)


def test_a_file_whose_like_atoms_have_changed_places_is_refused_by_name(tmp_path):
    data = read_trajectory(AIB9, max_frames=50)
    names = data.topology.names
    first, second = names.index("CB1"), names.index("CB2")
    order = np.arange(len(names))
    order[[first, second]] = second, first
    save_npz(tmp_path / "swapped.npz", data.xyz.numpy()[:, order], data.topology)
    words = r"CA of AIB2.*other way round.*as are those of 0 more.*CB1, CB2.*are alike"
    with pytest.raises(DataError, match=words):
        next(stream_frames(str(tmp_path / "swapped.npz"), data.schema))
    with pytest.raises(DataError, match=words):
        read_trajectory(tmp_path / "swapped.npz", schema=data.schema)
    unchanged = next(stream_frames(AIB9, data.schema, batch_rows=50))
    assert len(unchanged) == 50


def test_the_mirror_image_of_a_chiral_molecule_is_refused(tmp_path):
    data = read_trajectory(ALANINE, max_frames=50)
    save_npz(tmp_path / "mirror.npz", -data.xyz.numpy(), data.topology)
    with pytest.raises(DataError, match=r"other way round"):
        next(stream_frames(str(tmp_path / "mirror.npz"), data.schema))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_too_few_frames_are_refused_with_how_many_it_takes(frames, tmp_path):
    one = sample(frames=frames)
    path = save_npz(tmp_path / "few.npz", one.xyz.numpy(), one.topology)
    words = f"{frames} frames?; at least 4 are needed, 2 to train on, one for val, one for test"
    with pytest.raises(DataError, match=words):
        open_trajectory(path, blocks=4)
    # Following the advice.
    assert len(open_trajectory(path, val_fraction=0.0, test_fraction=0.0).train) == frames


def test_a_division_that_leaves_one_frame_to_train_on_is_refused(tmp_path):
    one = sample(frames=4)
    path = save_npz(tmp_path / "few.npz", one.xyz.numpy(), one.topology)
    with pytest.raises(DataError, match=r"leaves 1 to train on; 2 are needed at least.*data\.blocks"):
        open_trajectory(path, blocks=3, seed=1)
    assert len(open_trajectory(path, blocks=4, seed=1).train) == 2


def test_a_model_is_not_trained_on_a_single_frame():
    one = sample(frames=1)
    with pytest.raises(DataError, match="1 frame to train on; 2 are needed"):
        MoleculeVAE(z_dim=2, width=16, blocks=1).fit(one, max_epochs=1)
