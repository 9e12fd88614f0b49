"""What few and odd crystals do: one is enough to fit a model, and reasons for leaving some out can be read."""

import pytest
import torch

from noumena.crystals.data import read_crystals
from noumena.crystals.model import CrystalVAE
from noumena.crystals.reading import read
from noumena.crystals.writers import write_cif

pytest.importorskip("gemmi")


def test_a_model_can_be_fitted_to_a_single_crystal():
    data = read_crystals("sample:mp20", workers=1).subset(torch.tensor([0]))
    model = CrystalVAE(width=16, heads=2, encoder_layers=1, decoder_layers=1, vector_dim=8)
    model.fit(data, max_epochs=1, batch_size=1, seed=0)
    assert bool(model.reconstruct(data).lattice.isfinite().all())
    drawn = model.sample(3, torch.Generator().manual_seed(0), prior="gaussian")
    assert bool((drawn.num_atoms == data.crystals.num_atoms).all())
    assert bool(drawn.lattice.isfinite().all())


def test_reasons_are_counted_without_their_numbers_and_still_read_as_sentences(tmp_path):
    file = tmp_path / "x.cif"
    crystals = read_crystals("sample:mp20", workers=1).subset(torch.arange(3)).crystals
    write_cif(file, [crystals])
    text = file.read_text()
    one, two, three = text.split("data_")[1:]
    half = [part.rstrip().removesuffix("1") + occupancy for part, occupancy in ((one, "0.5\n"), (two, "0.25\n"))]
    file.write_text("".join(f"data_{part}" for part in (*half, three)))
    found = read(file, workers=1)
    assert len(found.crystals) == 1
    assert found.about["skipped_reasons"] == {"site … has occupancy …": 2}
