"""What few and odd crystals do: one is enough to fit a model, and reasons for leaving some out can be read."""

import logging
import re

import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals.data import open_crystals, read_crystals
from noumena.crystals.model import CrystalVAE
from noumena.crystals.reading import read
from noumena.crystals.writers import write_cif
from tests.crystals.models import crystals, small

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


SIZES = (3, 4, 5, 3, 4, 5, 3, 4, 12, 9)


@pytest.fixture
def cells(tmp_path):
    """A file of cells without symmetry; the two largest have 12 and 9 atoms."""
    write_cif(tmp_path / "cells.cif", [crystals(*SIZES, first=1)])
    return tmp_path / "cells.cif"


def test_cells_too_large_for_the_reader_are_named_with_what_keeps_them(cells, caplog):
    with caplog.at_level(logging.WARNING, "noumena"):
        found = open_crystals(cells, max_atoms=5, workers=1, test_fraction=0.0)
    words = r"2 were left out for their size: data\.max_atoms=12 keeps them; a model\.max_atoms that is set"
    assert re.search(words, caplog.text)
    assert sum(found.about["crystals"].values()) == 8
    whole = open_crystals(cells, max_atoms=12, workers=1, test_fraction=0.0)
    assert sum(whole.about["crystals"].values()) == 10


def test_where_all_cells_are_too_large_the_error_says_what_keeps_them(cells):
    with pytest.raises(DataError, match=r"data\.max_atoms is 2.*10 were left out for their size: data\.max_atoms=12"):
        open_crystals(cells, max_atoms=2, workers=1)


def test_cells_too_large_for_the_model_are_counted_and_following_the_advice_works(cells):
    splits = open_crystals(cells, workers=1)
    model = small(max_atoms=6, vector_dim=0)
    with pytest.raises(DataError) as caught:
        model.fit(splits.train, max_epochs=1, batch_size=4)
    assert "takes cells of at most 6" in str(caught.value)
    assert "the largest of 12 atoms" in str(caught.value)
    keep, make = re.findall(r"(?:data|model)\.max_atoms=(\d+)", str(caught.value))
    fewer = open_crystals(cells, workers=1, max_atoms=int(keep))
    small(max_atoms=6, vector_dim=0).fit(fewer.train, max_epochs=1, batch_size=4)
    larger = small(max_atoms=int(make), vector_dim=0)
    larger.fit(splits.train, max_epochs=1, batch_size=4)
    assert larger.max_atoms == 12


def test_a_model_takes_the_held_out_cells_that_are_larger_than_those_of_the_training(cells):
    splits = next(
        found
        for seed in range(20)
        if (found := open_crystals(cells, workers=1, seed=seed)).train.crystals.num_atoms.max() < 12
    )
    model = small(max_atoms=None, vector_dim=0)
    model.fit(splits.train, splits.val, max_epochs=1, batch_size=4)
    assert model.max_atoms == 12
    assert len(model.reconstruct(splits.test)) + len(model.reconstruct(splits.val)) == 10 - len(splits.train)
