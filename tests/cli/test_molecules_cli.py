import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

import noumena
from noumena.density.model import VAE
from noumena.molecules.conformations import centred
from noumena.molecules.geometry import superposed
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.writers import write_npz, write_pdb
from tests.cli.test_cli import _modules_after, run
from tests.molecules.conformers import conformations

mdtraj = pytest.importorskip("mdtraj")
Chem = pytest.importorskip("rdkit.Chem")
AllChem = pytest.importorskip("rdkit.Chem.AllChem")

ENDINGS = ("pdb", "xtc", "sdf", "xyz", "npz")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, its frames, and these as .npz and, the first two, as .pdb."""
    folder = tmp_path_factory.mktemp("molecules")
    data = conformations("CC(=O)N[C@@H](C)C(=O)NC", frames=30)
    model = MoleculeVAE(z_dim=3, width=16, blocks=1, mixture=2)
    model.fit(data, max_epochs=1, batch_size=10, seed=0)
    model.save(folder / "model")
    write_npz(folder / "t.npz", [data.xyz], data.topology)
    write_pdb(folder / "t.pdb", [data.xyz[:2]], data.topology)
    return folder / "model", data, folder / "t.npz"


@pytest.fixture(scope="module")
def table_model(tmp_path_factory):
    """A model of another family and its data."""
    folder = tmp_path_factory.mktemp("table")
    table = np.random.default_rng(0).normal(size=(40, 3))
    vae = VAE(latent_dim=2, hidden_dims=[4])
    vae.fit(table, max_epochs=1, batch_size=20, seed=0)
    vae.save(folder / "vae")
    np.save(folder / "table.npy", table)
    return folder / "vae", folder / "table.npy"


def coordinates(path, topology):
    """Frames of a written file in angstrom, by an independent reader."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return archive["xyz"]
    if path.suffix == ".sdf":
        records = Chem.SDMolSupplier(str(path), removeHs=False, sanitize=False)
        return np.stack([record.GetConformer().GetPositions() for record in records])
    if path.suffix == ".xyz":
        rows = [line.split() for line in path.read_text().splitlines()]
        return np.array([row[1:] for row in rows if len(row) == 4], dtype=float).reshape(-1, len(topology), 3)
    if path.suffix == ".xtc":
        write_pdb(path.with_suffix(".top.pdb"), [np.zeros((len(topology), 3))], topology)
        return mdtraj.load(path, top=path.with_suffix(".top.pdb")).xyz * 10
    return mdtraj.load(path).xyz * 10


@pytest.mark.parametrize("ending", ENDINGS)
def test_reconstructions_and_samples_are_written_as_frames_in_every_format(saved, tmp_path, capfd, ending):
    folder, data, file = saved
    model = noumena.load(folder)
    target = tmp_path / f"r.{ending}"
    code, text, err = run(capfd, "reconstruct", folder, file, "-o", target, "--chunk-rows", 7, "--json")
    assert code == 0, err
    assert json.loads(text) == {"rows": 30, "output": str(target)}
    np.testing.assert_allclose(coordinates(target, data.topology), model.reconstruct(data.xyz).numpy(), atol=6e-3)
    code, _, err = run(capfd, "sample", folder, "-n", 5, "--seed", 3, "-o", tmp_path / f"s.{ending}")
    assert code == 0, err
    expected = model.sample(5, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(coordinates(tmp_path / f"s.{ending}", data.topology), expected.numpy(), atol=6e-3)
    # What was written is data again.
    if ending != "xtc":
        assert run(capfd, "encode", folder, tmp_path / f"s.{ending}", "-o", tmp_path / "z.csv")[0] == 0
        found = np.column_stack([column.to_numpy() for column in pyarrow.csv.read_csv(tmp_path / "z.csv").columns])
        np.testing.assert_allclose(found, model.encode(centred(expected)).mean.detach().numpy(), atol=0.05)


def test_samples_come_from_the_prior_asked_for(saved, tmp_path, capfd):
    folder, _, _ = saved
    model = noumena.load(folder)
    found = {}
    for prior in ("fitted", "normal"):
        code, _, err = run(capfd, "sample", folder, "-n", 4, "--prior", prior, "-o", tmp_path / f"{prior}.npz")
        assert code == 0, err
        with np.load(tmp_path / f"{prior}.npz") as archive:
            found[prior] = archive["xyz"]
        expected = model.sample(4, torch.Generator().manual_seed(0), prior=prior)
        np.testing.assert_allclose(found[prior], expected.numpy(), atol=1e-5)
    assert not np.allclose(found["fitted"], found["normal"])
    code, _, err = run(capfd, "sample", folder, "--prior", "norml", "-o", tmp_path / "x.npz")
    assert code == 2
    assert "normal" in err
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("name", ["COLVAR", "cv.colvar", "cv.dat"])
def test_latents_and_torsions_are_written_for_plumed(saved, tmp_path, capfd, name):
    folder, data, file = saved
    options = ["--torsions", "--time-step", 0.5, "--chunk-rows", 11]
    code, _, err = run(capfd, "encode", folder, file, "-o", tmp_path / name, *options)
    assert code == 0, err
    lines = (tmp_path / name).read_text().splitlines()
    fields = lines[0].split()[2:]
    assert fields == ["time", "z0", "z1", "z2", *data.topology.torsions]
    assert f"#! SET min_{fields[-1]} -pi" in lines
    rows = np.loadtxt(tmp_path / name)
    np.testing.assert_allclose(rows[:, 0], 0.5 * np.arange(30))
    expected = noumena.load(folder).encode(data.xyz).mean.detach().numpy()
    np.testing.assert_allclose(rows[:, 1:4], expected, rtol=1e-4, atol=1e-5)
    code, _, err = run(capfd, "encode", folder, file, "-o", tmp_path / "z.parquet", "--torsions")
    assert code == 0, err
    table = pyarrow.parquet.read_table(tmp_path / "z.parquet")
    assert table.column_names == fields[1:]
    np.testing.assert_allclose(np.column_stack([table[n].to_numpy() for n in fields[1:]]), rows[:, 1:], rtol=1e-6)


def test_a_path_leads_from_one_frame_to_another(saved, tmp_path, capfd):
    folder, data, file = saved
    target = tmp_path / "path.npz"
    code, text, err = run(
        capfd, "interpolate", folder, f"{file}:17", file.with_suffix(".pdb"), "--steps", 6, "-o", target
    )
    assert code == 0, err
    assert "6 rows" in text
    with np.load(target) as archive:
        path = torch.from_numpy(archive["xyz"])
    ends = noumena.load(folder).reconstruct(data.xyz[[17, 0]])
    np.testing.assert_allclose(superposed(path[[0, -1]], ends).numpy(), ends.numpy(), atol=0.02)
    code, _, err = run(capfd, "interpolate", folder, f"{file}:30", file, "-o", target)
    assert code == 3
    assert "no row 30; it has 30" in err
    assert run(capfd, "interpolate", folder, "gone.pdb:1", file, "-o", target)[0] == 3


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_the_encoder_is_exported_without_modalities(saved, tmp_path, capfd, ending):
    folder, data, _ = saved
    target = tmp_path / f"cv.{ending}"
    code, text, err = run(capfd, "export", folder, "-o", target, "--json")
    assert code == 0, err
    assert json.loads(text) == {"bytes": target.stat().st_size, "output": str(target)}
    expected = noumena.load(folder).encode(data.xyz).mean.detach().numpy()
    if ending == "pt2":
        found = torch.export.load(target).module()(data.xyz).detach().numpy()
    else:
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(target, providers=["CPUExecutionProvider"])
        found = session.run(["z"], {"xyz": data.xyz.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    code, _, err = run(capfd, "export", folder, "-o", target, "--inputs", "xyz")
    assert code == 2
    assert "--inputs" in err
    assert run(capfd, "export", folder, "-o", tmp_path / "cv.pt")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconstruct", "MODEL", "DATA", "-o", "out.csv"], [".csv", ".pdb, .xtc, .sdf, .xyz, .npz"]),
        (["reconstruct", "MODEL", "DATA"], ["-o FILE", ".pdb"]),
        (["sample", "MODEL", "-o", "out.parquet"], [".parquet", ".pdb"]),
        (["encode", "MODEL", "DATA", "-o", "out.pdb"], [".pdb", ".parquet", "COLVAR"]),
        (["score", "MODEL", "DATA", "-o", "out.csv"], ["density"]),
        (["interpolate", "MODEL", "DATA", "DATA"], ["-o FILE"]),
    ],
)
def test_files_of_the_wrong_kind_are_refused_with_the_right_ones(saved, tmp_path, capfd, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": saved[0], "DATA": saved[2]}
    code, _, err = run(capfd, *(places.get(word, word) for word in arguments))
    assert code == 2, err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sample", "MODEL", "--prior", "normal", "-o", "out.csv"], "--prior"),
        (["encode", "MODEL", "DATA", "--torsions", "-o", "out.csv"], "molecules"),
        (["encode", "MODEL", "DATA", "-o", "COLVAR"], "unknown ending"),
        (["reconstruct", "MODEL", "DATA", "-o", "out.pdb"], ".pdb"),
        (["interpolate", "MODEL", "DATA", "DATA", "-o", "out.csv"], "molecules"),
    ],
)
def test_what_is_for_molecules_is_refused_by_other_families(table_model, tmp_path, capfd, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    places = dict(zip(("MODEL", "DATA"), table_model, strict=True))
    code, _, err = run(capfd, *(places.get(entry, entry) for entry in arguments))
    assert code == 2, err
    assert word in err
    assert not list(tmp_path.iterdir())


def test_a_column_of_times_is_for_every_family(table_model, tmp_path, capfd):
    folder, table = table_model
    code, _, err = run(capfd, "encode", folder, table, "--time-step", 2, "-o", tmp_path / "z.csv", "--chunk-rows", 9)
    assert code == 0, err
    found = pyarrow.csv.read_csv(tmp_path / "z.csv")
    assert found.column_names == ["time", "z0", "z1"]
    np.testing.assert_array_equal(found["time"], 2.0 * np.arange(40))


def test_conformers_become_a_file_that_recipes_read(tmp_path, capfd):
    out = tmp_path / "made"
    options = ["--n", 24, "--minimise", 100, "--energy-window", 0.5, "--workers", 1]
    code, text, err = run(capfd, "data", "conformers", "C[C@H](O)CC", out, *options, "--json")
    assert code == 0, err
    facts = json.loads(text)
    assert facts["embedded"] == 24
    assert facts["formula"] == "C4H10O"
    assert {path.name for path in out.iterdir()} == {"frames.npz", "topology.pdb", "metadata.json"}
    with np.load(out / "frames.npz", allow_pickle=False) as archive:
        assert len(archive["xyz"]) == facts["frames"] < 24
        assert np.ptp(archive["energy"]) <= 0.5
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(capfd, "data", "conformers", "C[C@H](O)CC", out, *options)[0] == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    code, _, err = run(capfd, "data", "conformers", "C[C@H](O)CC", out, "--n", 25)
    assert code == 4
    assert "n is 24 there and 25 here" in err
    dataset = MoleculeVAE().as_dataset(out / "frames.npz")
    assert len(dataset) == facts["frames"]
    assert set(dataset.topology.orders) == {1.0}
    code, _, err = run(capfd, "data", "conformers", "CC(O)CC", tmp_path / "other")
    assert code == 2
    assert "handedness" in err


def test_dynamics_killed_and_continued_give_the_same_bytes(tmp_path, capfd):
    pytest.importorskip("openmm")
    molecule = Chem.AddHs(Chem.MolFromSequence("GG"), addResidueInfo=True)
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    Chem.MolToPDBFile(Chem.RemoveHs(molecule), str(tmp_path / "a.pdb"))
    # Two pieces of each replica, so that there is something to continue.
    options = ["--steps", "40000", "--stride", "2000", "--equilibrate", "0", "--replicas", "2", "--workers", "1"]
    command = ["data", "md", str(tmp_path / "a.pdb")]
    code, text, err = run(capfd, *command, tmp_path / "whole", *options, "--json")
    assert code == 0, err
    facts = json.loads(text)
    assert (facts["frames"], facts["replicas"]) == (40, 2)
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-c", "from noumena.cli.main import main; main()", *command, str(broken), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(broken.glob(".parts/000001.npz")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run(capfd, *command, broken, *options)[0] == 0
    whole, continued = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path / "whole", broken)
    )
    assert whole == continued
    assert set(whole) == {"frames.npz", "topology.pdb", "metadata.json"}
    with np.load(broken / "frames.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["traj"], np.repeat([0, 1], 20))
        assert archive["dt_ps"] == 4.0
        assert archive["temperature_K"] == 300.0
    dataset = MoleculeVAE().as_dataset(broken / "frames.npz")
    assert torch.equal(dataset.trajectory.unique(), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["CCO", "out"], 3, ["no parameters", "conformers"]),
        (["gone.pdb", "out"], 3, ["gone.pdb"]),
        (["O", "out", "--ns", "1", "--steps", "5"], 2, ["--ns", "--steps"]),
        (["O", "out", "--solvent", "water"], 2, ["obc2"]),
        (["O", "out", "--force-field", "amber13"], 2, ["amber14"]),
    ],
)
def test_dynamics_that_cannot_be_done_are_refused_before_any_work(tmp_path, capfd, monkeypatch, arguments, code, words):
    pytest.importorskip("openmm")
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capfd, "data", "md", *arguments)
    assert found == code, err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


def test_help_of_the_verbs_imports_nothing_heavy():
    heavy = {"torch", "numpy", "rdkit", "openmm", "mdtraj"}
    for module in ("interpolate", "export", "data", "main"):
        assert not heavy & _modules_after(f"import noumena.cli.{module}")
