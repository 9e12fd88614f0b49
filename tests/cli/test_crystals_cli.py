import json
import logging
import zipfile

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

import noumena
from noumena.crystals.data import read_crystals
from noumena.crystals.elements import SYMBOLS
from noumena.crystals.model import CrystalVAE
from noumena.crystals.writers import write_cif, write_parquet
from noumena.density.model import VAE
from tests.cli.test_cli import run

pytest.importorskip("gemmi")
pytest.importorskip("moyopy")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, its model and its crystals, and these as Parquet."""
    folder = tmp_path_factory.mktemp("crystals")
    data = read_crystals("sample:mp20", workers=1).subset(torch.arange(24))
    model = CrystalVAE(width=16, heads=2, encoder_layers=1, decoder_layers=1)
    model.fit(data, max_epochs=1, batch_size=8, seed=0)
    model.save(folder / "model")
    write_parquet(folder / "x.parquet", [data.crystals])
    return folder / "model", noumena.load(folder / "model"), data, folder / "x.parquet"


@pytest.fixture(scope="module")
def table_model(tmp_path_factory):
    """A model of another family and its data."""
    folder = tmp_path_factory.mktemp("table")
    table = np.random.default_rng(0).normal(size=(40, 3))
    vae = VAE(latent_dim=2, hidden_dims=[4])
    vae.fit(table, max_epochs=1, batch_size=20, seed=0)
    vae.save(folder / "vae")
    np.save(folder / "table.npy", table)
    return folder / "vae", vae, folder / "table.npy"


def latents(table):
    names = [name for name in table.column_names if name[0] == "z" and name[1:].isdigit()]
    return np.column_stack([table[name].to_numpy() for name in names])


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_vectors_are_written_with_the_ids_of_the_crystals(saved, tmp_path, capfd, ending):
    folder, model, data, file = saved
    target = tmp_path / f"z.{ending}"
    code, text, err = run(capfd, "encode", folder, file, "-o", target, "--chunk-rows", 7, "--json")
    assert code == 0, err
    assert json.loads(text)["rows"] == 24
    expected = model.embed(data).numpy()
    if ending == "npz":
        with np.load(target, allow_pickle=False) as archive:
            found, names = np.column_stack([archive[f"z{i}"] for i in range(expected.shape[1])]), archive["id"]
    else:
        table = (pyarrow.csv.read_csv if ending == "csv" else pyarrow.parquet.read_table)(target)
        assert table.column_names[0] == "id"
        found, names = latents(table), table["id"].to_pylist()
    assert list(names) == list(data.crystals.names)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_latents_of_atoms_are_written_with_crystal_number_and_element(saved, tmp_path, capfd):
    folder, model, data, file = saved
    code, _, err = run(capfd, "encode", folder, file, "-o", tmp_path / "z.parquet", "--per-atom", "--chunk-rows", 9)
    assert code == 0, err
    table = pyarrow.parquet.read_table(tmp_path / "z.parquet")
    assert table.column_names[:3] == ["id", "atom", "element"]
    assert table["element"].to_pylist() == [SYMBOLS[z] for z in data.crystals.atom_types.tolist()]
    assert table["id"].to_pylist() == [data.crystals.names[i] for i in data.crystals.crystal.tolist()]
    with torch.no_grad():
        np.testing.assert_allclose(latents(table), model.encode(data).atoms.numpy(), rtol=1e-4, atol=1e-4)
    code, _, err = run(capfd, "encode", folder, file, "--per-atom", "--time-step", 1)
    assert code == 2
    assert "--time-step" in err


@pytest.mark.parametrize("ending", ["cif", "extxyz", "zip", "parquet"])
def test_reconstructions_are_written_in_every_format_and_read_again(saved, tmp_path, capfd, ending):
    folder, model, data, file = saved
    target = tmp_path / f"r.{ending}"
    code, text, err = run(capfd, "reconstruct", folder, file, "-o", target, "--chunk-rows", 10)
    assert code == 0, err
    assert "24 rows" in text
    expected = model.reconstruct(data.crystals)
    if ending == "parquet":
        table = pyarrow.parquet.read_table(target)
        assert table["material_id"].to_pylist() == list(data.crystals.names)
        found = np.reshape(table["lattice"].combine_chunks().flatten().to_numpy(), (-1, 3, 3))
        np.testing.assert_allclose(found, expected.lattice, rtol=1e-3, atol=1e-3)
    elif ending == "zip":
        with zipfile.ZipFile(target) as archive:
            assert archive.namelist() == [f"{name}.cif" for name in data.crystals.names]


def test_a_reconstruction_of_one_crystal_is_written_as_poscar(saved, tmp_path, capfd):
    folder, _, data, file = saved
    write_cif(tmp_path / "one.cif", [data.crystals.select(torch.tensor([3]))])
    assert run(capfd, "reconstruct", folder, tmp_path / "one.cif", "-o", tmp_path / "one.vasp")[0] == 0
    assert (tmp_path / "one.vasp").read_text().startswith("one ")
    code, _, err = run(capfd, "reconstruct", folder, file, "-o", tmp_path / "all.vasp")
    assert code == 3
    assert "one crystal" in err
    assert not (tmp_path / "all.vasp").exists()


def test_samples_follow_the_options(saved, tmp_path, capfd):
    folder, _, _, _ = saved
    options = ["--prior", "gaussian", "-n", 4, "--seed", 1, "--n-atoms", 4, "--composition", "Na Cl"]
    for name in ("a", "b"):
        code, _, err = run(capfd, "sample", folder, *options, "-o", tmp_path / f"{name}.parquet")
        assert code == 0, err
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.equals(pyarrow.parquet.read_table(tmp_path / "b.parquet"))
    assert table["formula"].to_pylist() == ["NaCl"] * 4
    assert table["num_atoms"].to_pylist() == [4] * 4
    code, _, err = run(
        capfd, "sample", folder, "--prior", "gaussian", "--composition", "NaCk", "-o", tmp_path / "c.cif"
    )
    assert code == 2
    assert "'Ck'" in err
    # The controls are as the decoder gives them.
    code, _, err = run(capfd, "sample", folder, "--prior", "gaussian", "--separate", "-o", tmp_path / "d.cif")
    assert code == 2
    assert "--separate" in err


def test_options_of_crystals_are_refused_for_other_families(table_model, tmp_path, capfd):
    folder, _, file = table_model
    for arguments, word in (
        (["sample", folder, "--n-atoms", 3, "-o", tmp_path / "x.csv"], "--n-atoms"),
        (["sample", folder, "--composition", "NaCl", "-o", tmp_path / "x.csv"], "--composition"),
        (["encode", folder, file, "--per-atom", "-o", tmp_path / "x.csv"], "--per-atom"),
        (["encode", folder, file, "--strict", "-o", tmp_path / "x.csv"], "--strict"),
    ):
        code, _, err = run(capfd, *arguments)
        assert code == 2, err
        assert word in err
        assert not (tmp_path / "x.csv").exists()


def test_what_is_skipped_is_told_and_strict_refuses_it(saved, tmp_path, capfd, caplog):
    folder, _, data, _ = saved
    known = data.schema["elements"]
    strange = next(z for z in range(1, 90) if z not in known)
    batch = data.crystals.select(torch.arange(3))
    types = batch.atom_types.clone()
    types[0] = strange
    write_parquet(
        tmp_path / "x.parquet", [type(batch)(types, batch.frac_coords, batch.lattice, batch.num_atoms, batch.names)]
    )
    with caplog.at_level(logging.WARNING):
        assert run(capfd, "encode", folder, tmp_path / "x.parquet", "-o", tmp_path / "z.csv")[0] == 0
    assert "1 of 3 structures skipped" in caplog.text
    assert f"an element that the training had not, {SYMBOLS[strange]}" in caplog.text
    assert pyarrow.csv.read_csv(tmp_path / "z.csv")["id"].to_pylist() == list(batch.names[1:])
    for verb, target in (("encode", "y.csv"), ("reconstruct", "y.cif")):
        code, _, err = run(capfd, verb, folder, tmp_path / "x.parquet", "--strict", "-o", tmp_path / target)
        assert code == 3
        assert batch.names[0] in err
        assert not (tmp_path / target).exists()


def test_a_path_leads_from_one_crystal_to_another_of_as_many_atoms(saved, tmp_path, capfd):
    folder, model, data, file = saved
    sizes = data.crystals.num_atoms
    first = int(sizes.mode().values)
    rows = (sizes == first).nonzero()[:2, 0]
    start, end = f"{file}:{int(rows[0])}", f"{file}:{data.crystals.names[int(rows[1])]}"
    code, text, err = run(capfd, "interpolate", folder, start, end, "--steps", 5, "-o", tmp_path / "p.parquet")
    assert code == 0, err
    assert "5 rows" in text
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    ends = model.reconstruct(data.crystals.select(rows))
    volumes = [abs(np.linalg.det(np.reshape(cell, (3, 3)))) for cell in table["lattice"].to_pylist()]
    np.testing.assert_allclose([volumes[0], volumes[-1]], ends.volume, rtol=1e-3)
    code, _, err = run(capfd, "interpolate", folder, f"{file}:mp-nothing", end, "-o", tmp_path / "p.parquet")
    assert code == 3
    assert "none of its 24 rows has the id 'mp-nothing'" in err


def test_neighbours_are_the_nearest_vectors(saved, tmp_path, capfd):
    folder, model, data, file = saved
    vectors = model.embed(data).double().numpy()
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    name = data.crystals.names[5]
    code, text, err = run(capfd, "neighbours", folder, file, f"{file}:{name}", "-k", 4, "--json")
    assert code == 0, err
    found = json.loads(text)
    assert found["rows"] == 24
    (answer,) = found["queries"]
    assert answer["query"] == name
    order = distances[5].argsort(kind="stable")[:4]
    assert [entry["row"] for entry in answer["neighbours"]] == order.tolist()
    assert [entry["id"] for entry in answer["neighbours"]] == [data.crystals.names[i] for i in order]
    np.testing.assert_allclose([e["distance"] for e in answer["neighbours"]], distances[5][order], rtol=1e-3, atol=1e-3)
    # All rows as queries, more neighbours than there are rows, as a file; each row is its own first neighbour.
    code, _, err = run(capfd, "neighbours", folder, file, file, "-k", 30, "-o", tmp_path / "n.csv")
    assert code == 0, err
    table = pyarrow.csv.read_csv(tmp_path / "n.csv")
    assert table.column_names == ["query", "rank", "id", "row", "distance"]
    assert len(table) == 24 * 24
    first = table.filter(pyarrow.compute.equal(table["rank"], 1))
    assert first["query"].to_pylist() == first["id"].to_pylist() == list(data.crystals.names)
    code, text, _ = run(capfd, "neighbours", folder, file, f"{file}:0", "-k", 2)
    assert code == 0
    assert data.crystals.names[0] in text


def test_neighbours_of_a_table_are_told_by_their_rows(table_model, tmp_path, capfd):
    folder, vae, file = table_model
    vectors = vae.encode(np.load(file)).mean.detach().numpy()
    code, text, err = run(capfd, "neighbours", folder, file, f"{file}:7", "-k", 3, "--json")
    assert code == 0, err
    (answer,) = json.loads(text)["queries"]
    expected = np.linalg.norm(vectors - vectors[7], axis=1).argsort(kind="stable")[:3]
    assert [entry["row"] for entry in answer["neighbours"]] == expected.tolist()
    assert "id" not in answer["neighbours"][0]
