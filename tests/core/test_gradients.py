"""In evaluation mode the doors of a model give plain numbers, unless gradients by an input are asked for."""

import numpy as np
import pytest
import torch

import noumena
from noumena.core.gradients import asks_for_gradients
from noumena.density.flow import Flow
from noumena.density.model import VAE
from noumena.molecules.model import MoleculeVAE
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import Batch
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.rssm import RSSM
from noumena.worldmodels.sequences import Sequences
from tests.crystals.models import crystals
from tests.crystals.models import small as crystal_model
from tests.molecules.chains import alanine, data

ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
QUICK = {"max_epochs": 1, "batch_size": 32, "accelerator": "cpu"}


def films(batch=3, steps=4):
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(batch, steps, 1, 28, 28, generator=generator)
    return Sequences(frames, torch.rand(batch, steps - 1, 2, generator=generator))


def fitted(model, rows=ROWS):
    model.fit(rows, **QUICK)
    return model


def of_tables():
    return fitted(VAE(hidden_dims=(8,), latent_dim=2)), torch.from_numpy(ROWS)


def of_flows():
    return fitted(Flow(hidden_dims=(8,))), torch.from_numpy(ROWS)


def of_molecules():
    frames = data(alanine(), 12)
    model = MoleculeVAE(z_dim=2, width=16, blocks=1)
    model.prepare(frames)
    return model.eval(), frames.xyz


def of_crystals():
    return crystal_model(vector_dim=0).eval(), crystals(5, 7, dtype=torch.float32)


def of_views():
    views = {"one": ROWS, "other": ROWS[:, :2]}
    model = fitted(MVAE(z_dim=2, hidden_dims=(8,)), views)
    return model, views


def of_films(kind):
    model = kind()
    batch = films()
    model.prepare(model.as_dataset(batch))
    return model.eval(), batch


CASES = {
    "vae": of_tables,
    "flow": of_flows,
    "molecules": of_molecules,
    "crystals": of_crystals,
    "views": of_views,
    "jepa": lambda: of_films(JEPA),
    "rssm": lambda: of_films(RSSM),
}


@pytest.mark.parametrize("family", CASES)
def test_what_a_model_encodes_and_decodes_is_numbers_at_once(family):
    model, batch = CASES[family]()
    mean = model.encode(batch).mean
    assert np.isfinite(mean.numpy()).all()
    assert np.isfinite(model.embed(batch).numpy()).all()
    if family == "jepa":
        assert np.isfinite(model.predict(batch).numpy()).all()
        return
    decoded = model.decode(mean if family != "crystals" else model.encode(crystals(5)).mean)
    parts = decoded.values() if isinstance(decoded, dict) else [getattr(decoded, "frac_coords", decoded)]
    assert all(np.isfinite(part.numpy()).all() for part in parts)


def test_a_saved_model_encodes_to_numbers(tmp_path):
    model, _ = of_tables()
    model.save(tmp_path / "m")
    assert noumena.load(tmp_path / "m").encode(ROWS).mean.numpy().shape == (40, 2)


def test_gradients_by_an_input_that_asks_for_them_are_recorded():
    model, rows = of_tables()
    leaf = rows.clone().requires_grad_()
    model.encode(leaf).mean.square().sum().backward()
    assert (leaf.grad != 0).any()
    z = torch.zeros(2, 2, requires_grad=True)
    model.decode(z).square().sum().backward()
    assert (z.grad != 0).any()


def test_gradients_by_the_actions_of_a_batch_that_asks_for_them_are_recorded():
    model, batch = of_films(RSSM)
    actions = batch.actions.clone().requires_grad_()
    model.imagine(Sequences(batch.frames, actions)).square().sum().backward()
    assert (actions.grad != 0).any()


def test_in_training_mode_weights_get_gradients_through_the_doors():
    model, rows = of_tables()
    model.train().decode(model.encode(rows).mean).square().sum().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters() if weight.requires_grad)


def test_a_batch_asks_for_gradients_if_one_of_its_tensors_does():
    plain, leaf = torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True)
    present = torch.ones(2, 1, dtype=torch.bool)
    assert not asks_for_gradients(Batch(plain, present))
    assert asks_for_gradients(Batch(leaf, present))
    assert asks_for_gradients([plain, leaf])
    assert not asks_for_gradients(["a name", plain, None, 3])
