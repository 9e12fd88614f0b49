import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.molecules.colvar import torsion_columns, write_colvar
from noumena.molecules.geometry import torsions
from noumena.molecules.topology import Topology

# A glycine between caps, heavy atoms only.
PEPTIDE = Topology.make(
    [6, 6, 8, 7, 6, 6, 8, 7, 6],
    [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (5, 6), (5, 7), (7, 8)],
    names=["CH3", "C", "O", "N", "CA", "C", "O", "N", "CH3"],
    residue_names=["ACE"] * 3 + ["GLY"] * 4 + ["NME"] * 2,
    residue_ids=[1] * 3 + [2] * 4 + [3] * 2,
)


@pytest.fixture
def frames():
    return torch.randn(7, 9, 3, generator=torch.Generator().manual_seed(0)) * 2


def read(path):
    """A COLVAR file as PLUMED's tools read it: names, settings, columns."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#! FIELDS ")
    fields = lines[0].split()[2:]
    settings = dict(line.split()[2:] for line in lines if line.startswith("#! SET "))
    rows = np.array([line.split() for line in lines if not line.startswith("#")], dtype=float)
    return fields, settings, dict(zip(fields, rows.T, strict=True))


def test_torsions_are_named_and_in_radians(frames):
    found = torsion_columns(frames, PEPTIDE)
    assert {"phi:2", "psi:2"} <= set(found) == set(PEPTIDE.torsions)
    expected = torsions(frames, torch.tensor([PEPTIDE.torsions["phi:2"]]))[:, 0]
    np.testing.assert_array_equal(found["phi:2"], expected.numpy())
    mirrored = torsion_columns(frames * torch.tensor([1.0, 1.0, -1.0]), PEPTIDE)
    for name, values in found.items():
        np.testing.assert_allclose(mirrored[name], -values, atol=1e-5)
        assert (np.abs(values) <= np.pi).all()


def test_a_colvar_file_tells_fields_time_and_periods(frames, tmp_path):
    latents = {f"z{i}": np.random.default_rng(i).normal(size=7).astype(np.float32) for i in range(2)}
    columns = {**latents, **torsion_columns(frames, PEPTIDE)}
    chunks = [{name: column[part] for name, column in columns.items()} for part in (slice(3), slice(3, 7))]
    write_colvar(tmp_path / "COLVAR", iter(chunks), {"topology": PEPTIDE.to_json()})
    fields, settings, found = read(tmp_path / "COLVAR")
    assert fields == ["time", *columns]
    np.testing.assert_array_equal(found["time"], np.arange(7))
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), values)
    names = [f"{end}_{name}" for name in PEPTIDE.torsions for end in ("min", "max")]
    assert settings == {name: "-pi" if name.startswith("min") else "pi" for name in names}


def test_a_column_of_times_comes_first_and_names_are_single_words(tmp_path):
    write_colvar(tmp_path / "c", [{"a b#": np.ones(2), "time": np.array([0.5, 1.0])}], PEPTIDE)
    fields, settings, found = read(tmp_path / "c")
    assert fields == ["time", "a_b_"]
    np.testing.assert_array_equal(found["time"], [0.5, 1.0])
    assert not settings


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([], "no frames"),
        ([{"z": np.ones((2, 3))}], r"'z' has shape \(2, 3\)"),
        ([{"a b": np.ones(2), "a_b": np.ones(2)}], "same name"),
    ],
)
def test_columns_that_cannot_be_written_are_refused(chunks, words, tmp_path):
    with pytest.raises(DataError, match=words):
        write_colvar(tmp_path / "c", chunks, PEPTIDE)
