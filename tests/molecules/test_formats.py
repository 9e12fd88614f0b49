import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from noumena.molecules.data import count_frames, open_trajectory, read_trajectory, stream_frames
from tests.molecules.files import (
    AIB9,
    ALANINE,
    FORMATS,
    HOLDS_ATOMS,
    WHOLE,
    as_mdtraj,
    refused,
    sample,
    save_npz,
    write,
    write_sdf,
    xyz_frame,
)


@pytest.fixture(scope="module")
def some():
    return sample(frames=30)


@pytest.fixture(autouse=True)
def blocks_of_a_few_frames(monkeypatch):
    monkeypatch.setattr("noumena.readers.common.BLOCK_BYTES", 4000)


@pytest.fixture
def pdb(tmp_path, some):
    return write(tmp_path, "pdb", some.xyz[:1], some.topology, name="topology")


def options_for(form, pdb):
    return {} if form in HOLDS_ATOMS else {"topology": pdb}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_back_what_was_written(tmp_path, some, pdb, form):
    path = write(tmp_path, form, some.xyz + 5.0, some.topology)
    read = read_trajectory(path, **options_for(form, pdb))
    assert (read.xyz - some.xyz).abs().max() < (0.02 if form == "xtc" else 2e-3)
    assert read.topology.difference(some.topology) is None
    assert read.xyz.dtype == torch.float32
    assert read.xyz.mean(1).abs().max() < 1e-5
    assert read.frame.tolist() == list(range(30))
    assert read.trajectory.unique().tolist() == [0]
    assert count_frames(path) == 30


@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_gives_the_frames_that_reading_gives(tmp_path, some, pdb, form):
    path = write(tmp_path, form, some.xyz, some.topology)
    read = read_trajectory(path, **options_for(form, pdb))
    batches = list(stream_frames(path, some.schema, batch_rows=7))
    assert max(map(len, batches)) <= 7
    assert torch.equal(torch.cat(batches), read_trajectory(path, schema=some.schema).xyz)
    assert torch.allclose(torch.cat(batches), read.xyz, atol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_stride_and_max_frames_take_frames_of_the_file_by_number(tmp_path, some, pdb, form):
    path = write(tmp_path, form, some.xyz, some.topology)
    whole = read_trajectory(path, **options_for(form, pdb))
    every = read_trajectory(path, stride=4, **options_for(form, pdb))
    assert every.frame.tolist() == list(range(0, 30, 4))
    assert torch.equal(every.xyz, whole.xyz[::4])
    few = read_trajectory(path, stride=2, max_frames=5, **options_for(form, pdb))
    assert few.frame.tolist() == [0, 6, 12, 18, 24]
    assert torch.equal(few.xyz, whole.xyz[few.frame])


@pytest.mark.parametrize("form", FORMATS)
def test_a_selection_takes_the_same_atoms_of_every_format(tmp_path, some, pdb, form):
    path = write(tmp_path, form, some.xyz, some.topology)
    heavy = read_trajectory(path, selection="not element H", **options_for(form, pdb))
    assert heavy.topology.formula == "C6N2O2"
    assert torch.allclose(heavy.xyz, sample_heavy(some), atol=0.02)
    assert heavy.schema["file_atoms"] == 22


def sample_heavy(some):
    xyz = some.xyz[:, torch.as_tensor(some.topology.heavy)]
    return xyz - xyz.mean(1, keepdim=True)


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_of_selected_atoms_takes_whole_and_selected_files(tmp_path, some, form):
    model = open_trajectory(write(tmp_path, "npz", some.xyz, some.topology, "all"), selection="not element H", **WHOLE)
    whole = write(tmp_path, form, some.xyz, some.topology)
    part = write(tmp_path, form, model.train.xyz, model.train.topology, name="heavy")
    for path in (whole, part):
        found = torch.cat(list(stream_frames(path, model.train.schema)))
        assert torch.allclose(found, model.train.xyz, atol=0.02)


@pytest.mark.parametrize("form", ["xtc", "trr", "dcd", "pdb"])
@pytest.mark.parametrize("edge", [12.0, 20.0])
def test_a_molecule_cut_by_the_walls_of_its_box_is_made_whole(tmp_path, some, pdb, form, edge):
    wrapped = torch.remainder(some.xyz + torch.tensor([0.3, 2.0, edge - 0.5]), edge)
    path = write(tmp_path, form, wrapped, some.topology, cell=edge)
    splits = open_trajectory(path, **options_for(form, pdb), **WHOLE)
    assert (splits.train.xyz - some.xyz).abs().max() < 0.02
    assert "walls" in splits.about["made_whole"]
    assert torch.allclose(torch.cat(list(stream_frames(path, some.schema))), splits.train.xyz, atol=1e-5)


def test_a_molecule_in_a_slanted_box_is_made_whole(tmp_path, some, pdb):
    made = as_mdtraj(some.xyz, some.topology, cell=25.0)
    made.unitcell_angles = np.full((len(made), 3), [70.0, 100.0, 65.0])
    vectors = made.unitcell_vectors.astype(np.float64)
    fractions = made.xyz @ np.linalg.inv(vectors)
    made.xyz = ((fractions - np.floor(fractions)) @ vectors).astype(np.float32)
    made.save(str(tmp_path / "traj.dcd"))
    read = read_trajectory(str(tmp_path / "traj.dcd"), topology=pdb)
    assert (read.xyz - some.xyz).abs().max() < 1e-3


def test_cut_molecules_without_a_box_are_refused_or_dropped(tmp_path, some, pdb):
    wrapped = some.xyz.clone()
    wrapped[7, 4:] += 20.0
    path = write(tmp_path, "xtc", wrapped, some.topology)
    refused(["frame 7", "bond 1-5", "1 of", "broken='drop'"], path, topology=pdb)
    splits = open_trajectory(path, topology=pdb, broken="drop", **WHOLE)
    assert 7 not in splits.train.frame.tolist()
    assert splits.about["left_out"] == {"frames with a broken bond": 1}


# Damage


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_file_is_refused(tmp_path, some, pdb, form):
    path = tmp_path / f"traj.{form}"
    path.write_bytes(b"")
    refused(["traj", "empty"], str(path), topology=pdb)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_something_else_is_refused(tmp_path, pdb, form):
    path = tmp_path / f"traj.{form}"
    path.write_bytes(b"this is no trajectory at all\n" * 20)
    refused([f"traj.{form}"], str(path), topology=pdb)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.999, 0.5])
def test_a_file_that_is_cut_short_is_refused(tmp_path, some, pdb, form, share):
    path = tmp_path / f"traj.{form}"
    write(tmp_path, form, some.xyz, some.topology)
    content = path.read_bytes().rstrip()
    if form == "pdb":  # less the lines after the last atom, which say nothing
        content = content[: content.rindex(b"TER")].rstrip()
    # Whole frames less half a line: what a full disk leaves.
    path.write_bytes(content[: int(len(content) * share) - 31])
    refused([f"traj.{form}"], str(path), topology=pdb)


def test_a_pickle_is_not_opened(tmp_path, some):
    path = tmp_path / "traj.npz"
    np.savez(path, xyz=np.array([{"a": 1}], dtype=object), atomic_numbers=np.array([6, 6]))
    refused(["xyz", "Python objects"], str(path))
    save_npz(path, some.xyz, some.topology, atom_names=np.array([None] * 22, dtype=object))
    refused(["atom_names", "Python objects"], str(path))
    (tmp_path / "traj.pkl").write_bytes(b"x")
    refused(["pickled"], str(tmp_path / "traj.pkl"))


def test_an_npz_may_use_other_names_and_symbols(tmp_path, some):
    path = tmp_path / "traj.npz"
    np.savez(path, positions=some.xyz.double(), symbols=np.array(some.topology.symbols))
    read = read_trajectory(str(path))
    assert read.topology.difference(some.topology) is None
    assert torch.allclose(read.xyz, some.xyz, atol=1e-5)


def test_an_npz_without_coordinates_says_what_is_there(tmp_path):
    path = tmp_path / "traj.npz"
    np.savez(path, xyzs=np.zeros((3, 4, 3)))
    refused(["no array of coordinates", "xyzs"], str(path))
    np.savez(path, xyz=np.zeros((3, 4)))
    refused(["(3, 4)", "(frames, atoms, 3)"], str(path))


def test_numbers_of_each_frame_are_kept_aside(tmp_path, some):
    first = save_npz(tmp_path / "a.npz", some.xyz[:10], some.topology, energy=np.arange(10.0))
    second = save_npz(tmp_path / "b.npz", some.xyz[10:], some.topology)
    both = read_trajectory([first, second])
    assert both.side["energy"][:10].tolist() == list(range(10))
    assert both.side["energy"][10:].isnan().all()
    assert both.trajectory.tolist() == [0] * 10 + [1] * 20
    assert both.frame.tolist() == [*range(10), *range(20)]


def test_as_many_atoms_as_frames_makes_no_side_quantity_of_the_elements(tmp_path, some):
    path = save_npz(tmp_path / "a.npz", some.xyz[:22], some.topology)
    assert dict(read_trajectory(path).side) == {}


def test_trajectories_within_an_npz_are_told_apart(tmp_path, some):
    path = save_npz(tmp_path / "a.npz", some.xyz[:9], some.topology, traj=np.array([4, 4, 4, 9, 9, 4, 9, 9, 4]))
    read = read_trajectory(path)
    assert read.trajectory.tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 0]
    assert read.frame.tolist() == [0, 1, 2, 0, 1, 3, 2, 3, 4]


def test_an_xyz_file_with_names_for_symbols_needs_a_topology(tmp_path, some, pdb):
    path = tmp_path / "traj.xyz"
    path.write_text("".join(xyz_frame(frame, some.topology.names) for frame in some.xyz))
    refused(["topology="], str(path))
    assert torch.allclose(read_trajectory(str(path), topology=pdb).xyz, some.xyz, atol=1e-4)


def test_an_xyz_file_whose_atoms_change_is_refused(tmp_path, some):
    other = [*some.topology.symbols[1:], some.topology.symbols[0]]
    frames = [xyz_frame(some.xyz[0], some.topology.symbols), xyz_frame(some.xyz[1], other)]
    path = tmp_path / "traj.xyz"
    path.write_text("".join(frames))
    refused(["frame 1", "atom 1", "'H'", "'C'"], str(path))


def test_sdf_records_must_be_of_one_molecule_in_space(tmp_path, some):
    path = tmp_path / "traj.sdf"
    turned = some.topology.subset([*range(1, 22), 0])
    write_sdf(path, some.xyz[:2], some.topology)
    write_sdf(tmp_path / "other.sdf", some.xyz[:1], turned)
    path.write_text(path.read_text() + (tmp_path / "other.sdf").read_text())
    refused(["record 2", "another molecule"], str(path))
    flat = some.xyz[:1].clone()
    flat[:, :, 2] = 0
    write_sdf(path, flat, some.topology)
    path.write_text(path.read_text().replace("3D", "2D"))
    refused(["record 0", "three-dimensional"], str(path))


def test_the_first_of_alternate_locations_is_taken(tmp_path, some, pdb):
    lines = Path(pdb).read_text().splitlines(keepends=True)
    atom = next(number for number, line in enumerate(lines) if line[12:16].strip() == "CB")
    first, second = (lines[atom][:16] + letter + lines[atom][17:] for letter in "AB")
    lines[atom : atom + 1] = [first, second.replace(second[30:38], " 900.000")]
    path = tmp_path / "alternate.pdb"
    path.write_text("".join(line for line in lines if not line.startswith("CONECT")))
    assert torch.allclose(read_trajectory(str(path)).xyz, some.xyz[:1], atol=2e-3)


def test_reading_a_dcd_file_prints_nothing(tmp_path, some, capfd):
    path = write(tmp_path, "dcd", some.xyz, some.topology)
    capfd.readouterr()
    assert len(read_trajectory(path, topology=ALANINE)) == 30
    assert capfd.readouterr().out == ""


def test_an_npz_with_its_topology_needs_no_further_library():
    code = (
        "import sys; sys.modules['mdtraj'] = sys.modules['rdkit'] = None\n"
        "from noumena.molecules.data import open_trajectory, read_trajectory\n"
        f"print(len(open_trajectory({AIB9!r}).train))\n"
        "try: read_trajectory('x.xtc', topology='x.pdb')\n"
        "except Exception as error: print(type(error).__name__)\n"
        f"try: read_trajectory({AIB9!r}, selection='name CA')\n"
        "except Exception as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[:2] == ["700", "DataError"]
    assert "pip install 'noumena[molecules]'" in found.stdout
