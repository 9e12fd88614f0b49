import pytest

from noumena.crystals.data import open_crystals, read_crystals, stream_crystals
from noumena.crystals.loading import sample_path

pytest.importorskip("moyopy")


def test_the_sample_is_small_diverse_and_none_of_it_is_skipped():
    data = read_crystals("sample:mp20", workers=1)
    assert len(data) == 400
    assert int(data.crystals.num_atoms.max()) == 12
    assert len(data.schema["elements"]) > 80
    assert len(set(data.crystals.names)) == 400
    assert all(name.startswith("mp-") for name in data.crystals.names)
    assert set(data.properties) == {"formation_energy_per_atom", "band_gap"}
    assert data.units == {"formation_energy_per_atom": "eV/atom", "band_gap": "eV"}
    assert not any(values.isnan().any() for values in data.properties.values())
    assert sample_path("sample:mp20").stat().st_size < 150_000
    assert (sample_path("sample:mp20").parent / "LICENSES.md").is_file()


def test_the_sample_opens_divided_and_streams():
    splits = open_crystals("sample:mp20", workers=1)
    assert splits.about["crystals"] == {"train": 320, "val": 40, "test": 40}
    schema = read_crystals("sample:mp20", workers=1).schema
    assert sum(len(batch) for batch in stream_crystals("sample:mp20", schema, batch_rows=64)) == 400
