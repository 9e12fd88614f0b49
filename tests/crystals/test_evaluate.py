import json
import math

import pytest
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.evaluation import Page
from noumena.crystals import evaluate as module
from noumena.crystals.dataset import Crystals
from noumena.crystals.evaluate import evaluate
from noumena.crystals.model import CrystalVAE
from noumena.crystals.pictures import cells_page, reconstruction_pictures, sample_pictures
from tests.crystals.measured import first, perturbed

pytest.importorskip("pymatgen.core")
pytest.importorskip("smact")


@pytest.fixture
def splits():
    return Splits(train=Crystals(first(30)), test=Crystals(first(10, start=30)))


@pytest.fixture
def model(splits):
    model = CrystalVAE(width=16, heads=2, encoder_layers=1, decoder_layers=1, latent_dim=2)
    model.prepare(splits.train, seed=1)
    model.after_fit(splits.train, None)
    return model.eval()


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes longer than everything else."""
    monkeypatch.setattr(module, "reconstruction_pictures", lambda *_: [])
    monkeypatch.setattr(module, "sample_pictures", lambda *_: [])
    monkeypatch.setattr(module, "cells_page", lambda *_: Page("cells", "", ""))


class Perfect(CrystalVAE):
    """Gives back what it gets."""

    def reconstruct(self, data, generator=None):
        del generator
        return self.as_dataset(data).crystals


@pytest.mark.usefixtures("without_pictures")
def test_an_autoencoder_that_reconstructs_everything_has_full_marks(splits, model, monkeypatch):
    monkeypatch.setattr(CrystalVAE, "reconstruct", Perfect.reconstruct)
    found = evaluate(model, splits, structures=8, samples=0, workers=0, baselines=False)
    for prefix in ("", "sample_", "train_"):
        for name in ("field", "original", "strict"):
            assert found.metrics[f"{prefix}match_{name}"] == 1.0
        assert found.metrics[f"{prefix}type_accuracy"] == 1.0
        assert found.metrics[f"{prefix}coord_error"] == pytest.approx(0.0, abs=1e-6)
    assert not [name for name in found.metrics if name.startswith(("lookup_", "untrained_", "standard_"))]


@pytest.mark.usefixtures("without_pictures")
def test_everything_is_measured_and_plain(splits, model):
    found = evaluate(model, splits, structures=6, samples=5, workers=0)
    json.dumps(dict(found.metrics), allow_nan=False)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.metrics.values())
    for prefix in ("", "sample_", "train_", "lookup_", "untrained_"):
        assert f"{prefix}match_original" in found.metrics
    for prefix in ("standard_", "gaussian_"):
        assert f"{prefix}nearest_above_1.5" in found.metrics
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    # No rate without its criterion.
    assert all("stol" in table.caption for table in found.tables if "Match" in table.title)
    assert "maximum distance" in " ".join(str(row[0]) for row in found.tables[0].rows)


@pytest.mark.usefixtures("without_pictures")
def test_the_same_seed_gives_the_same_numbers(splits, model):
    one, other = (evaluate(model, splits, structures=6, samples=4, workers=0, seed=3) for _ in range(2))
    assert one.metrics == other.metrics


@pytest.mark.usefixtures("without_pictures")
def test_without_a_held_out_split_training_crystals_are_named_as_such(splits, model):
    found = evaluate(model, Splits(train=splits.train), structures=5, samples=0, workers=0, baselines=False)
    assert found.tables[0].columns == ["", "training crystals", "posterior sample", "symmetrised"]
    assert "train_match_field" not in found.metrics


def test_bad_options_and_strange_models_are_refused(splits, model):
    with pytest.raises(ConfigError, match="structures"):
        evaluate(model, splits, structures=0)
    with pytest.raises(ConfigError, match="samples"):
        evaluate(model, splits, samples=-1)
    with pytest.raises(NotSupportedError, match="CrystalVAE"):
        evaluate(torch.nn.Linear(1, 1), splits)


@pytest.mark.usefixtures("without_pictures")
def test_a_prior_is_measured_by_its_samples_and_its_compositions(splits, model, monkeypatch):
    drawn = []

    class Known:
        """Draws training crystals, and those of the composition asked for."""

        def sample(self, n, generator=None, *, composition=None, separate=True):
            drawn.append((composition, separate))
            crystals = splits.test.crystals
            if composition is None:
                return splits.train.crystals.select(torch.randint(30, (n,), generator=generator))
            formulas = module.formulas_of(crystals, reduced=False)
            return crystals.select(torch.full((n,), formulas.index(composition)))

        def as_dataset(self, data):
            return data

        def trained_autoencoder(self):
            return model

    monkeypatch.setattr(module, "_kind", lambda _: "prior")
    found = evaluate(Known(), splits, samples=12, workers=0)
    assert found.metrics["composition_honoured"] == 1.0
    assert found.metrics["novel"] == 0.0
    assert found.metrics["valid_structure"] == found.metrics["ideal_valid_structure"] == 1.0
    assert found.metrics["samples_per_second"] > 0
    assert found.metrics["raw_valid_structure"] == 1.0
    assert {"standard_unique", "standard_separated_unique", "gaussian_separated_novel"} <= set(found.metrics)
    assert drawn[:2] == [(None, True), (None, False)]
    assert len(drawn) > 2


def test_a_report_has_pictures_of_cells_latents_and_samples_and_a_page(splits, model):
    held = splits.test.crystals
    pictures = reconstruction_pictures(model, splits.test, held, model.reconstruct(held), "test crystals")
    pictures += sample_pictures(held, perturbed(held, 0.1, 0.0))
    assert [picture.name for picture in pictures] == ["reconstructions", "latent_map", "distributions", "samples"]
    page = cells_page(held, model.reconstruct(held))
    assert page.html.lstrip().lower().startswith("<!doctype html")
