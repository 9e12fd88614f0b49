import logging

import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ArtifactError, TrainingDiverged
from noumena.density.model import VAE
from noumena.molecules.model import MoleculeVAE
from noumena.multimodal.model import MVAE
from noumena.training.checkpoint_io import SafeCheckpointIO
from tests.molecules.chains import alanine, data
from tests.training.workers import CHECKPOINT, rows

QUICK = {"max_epochs": 3, "batch_size": 10, "lr": 1e-3, "accelerator": "cpu", "progress": False}


class Poisoned(VAE):
    """Its training loss is NaN from one optimiser step on."""

    poison: float = float("nan")
    at = 0
    seen = 0

    def loss(self, batch, *, noise=None, beta_scale=1.0):
        terms = super().loss(batch, noise=noise, beta_scale=beta_scale)
        if torch.is_grad_enabled():
            self.seen += 1
            if self.seen > self.at:
                terms.parts["kl"].data.fill_(self.poison)
                terms.total.data.fill_(self.poison)
        return terms


def poisoned(at, poison=float("nan")):
    model = Poisoned(hidden_dims=(4,), latent_dim=1)
    model.at, model.poison = at, poison
    return model


@pytest.mark.parametrize("step", [0, 7, 55, 73])  # in the first, a middle and the last epoch
def test_a_loss_that_becomes_nan_is_reported_with_its_step_its_terms_and_a_remedy(step):
    with pytest.raises(TrainingDiverged) as caught:
        poisoned(step).fit(rows(250), **QUICK)
    message = str(caught.value)
    assert f"at step {step}:" in message
    assert "train loss" in message
    for term in ("loss nan", "reconstruction ", "kl nan"):
        assert term in message
    assert "try lr=0.0001" in message


def test_an_infinite_loss_is_reported_too():
    with pytest.raises(TrainingDiverged, match=r"at step 4:.*kl inf"):
        poisoned(4, float("inf")).fit(rows(250), **QUICK)


def test_a_learning_rate_far_too_high_is_named_as_the_cause():
    with pytest.raises(TrainingDiverged, match=r"learning rate 1e\+06 is high.*try lr=100000.*gradient_clip"):
        VAE(hidden_dims=(8,), latent_dim=2, decoder_scale="fixed").fit(rows(250), rows(50), **QUICK | {"lr": 1e6})


def test_float16_is_named_as_the_cause_where_it_is_used():
    from noumena.training import FitSettings
    from noumena.training.diagnosis import explain_divergence

    assert "bf16-mixed" in explain_divergence("train", {"loss": float("nan")}, FitSettings(precision="16-mixed"))


def test_a_validation_loss_that_is_not_finite_is_reported_as_such():
    far = rows(50).copy()
    far[:, 1] = 3e38
    with pytest.raises(TrainingDiverged, match=r"the val loss is not finite"):
        VAE(hidden_dims=(4,), latent_dim=1).fit(rows(250), far, **QUICK)


def test_a_diverged_training_leaves_a_checkpoint_of_finite_weights_or_none(tmp_path, monkeypatch):
    # Poison the class that is registered, because only registered models have a run folder.
    plain, calls = VAE.loss, []

    def loss(self, batch, **options):
        terms = plain(self, batch, **options)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) > 40:
                return type(terms)(terms.total * float("nan"), terms.parts)
        return terms

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(TrainingDiverged, match="at step 40:"):
        VAE(hidden_dims=(4,), latent_dim=1).fit(
            rows(250), run_dir=tmp_path, checkpoint_every_n_steps=3, checkpoint_seconds=0, **QUICK
        )
    checkpoint = SafeCheckpointIO().load_checkpoint(tmp_path / CHECKPOINT)
    assert all(
        torch.isfinite(value).all() for name, value in checkpoint["state_dict"].items() if "threshold" not in name
    )
    assert "TrainingDiverged" in (tmp_path / "log.txt").read_text()
    with pytest.raises(ArtifactError):
        noumena.load(tmp_path)


def warnings_of(caplog, name):
    return [r.message for r in caplog.records if r.levelno == logging.WARNING and r.message.startswith(name)]


def test_posterior_collapse_is_warned_of_once_by_name_with_a_remedy(caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        VAE(hidden_dims=(8,), latent_dim=2, beta=1000.0).fit(
            rows(250), rows(60), **QUICK | {"max_epochs": 12, "lr": 1e-2, "patience": None}
        )
    (warning,) = warnings_of(caplog, "posterior collapse")
    assert "Lower beta" in warning
    assert "units active" in warning


@pytest.mark.parametrize("family", ["multimodal", "molecules"])
def test_posterior_collapse_is_warned_of_where_the_latents_have_another_name(family, caplog):
    options = QUICK | {"max_epochs": 12, "lr": 1e-2, "patience": None}
    if family == "multimodal":
        views, other = ({"one": rows(n), "two": rows(n)[:, :2]} for n in (250, 60))
        model = MVAE(z_dim=2, hidden_dims=(8,), beta=1e4)
    else:
        frames = data(alanine(), 60)
        views, other = frames.subset(torch.arange(40)), frames.subset(torch.arange(40, 60))
        model = MoleculeVAE(z_dim=2, width=16, blocks=1, beta=1e4)
    with caplog.at_level(logging.WARNING, logger="noumena"):
        model.fit(views, other, **options)
    (warning,) = warnings_of(caplog, "posterior collapse")
    assert "of 2 units active" in warning
    assert ("free_bits" in warning) == hasattr(model, "free_bits")


def test_a_single_held_out_sample_is_no_sign_of_a_collapse(caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        history = VAE(hidden_dims=(8,), latent_dim=2).fit(
            rows(250), rows(250)[:1], **QUICK | {"lr": 1e-2, "max_epochs": 10}
        )
    assert "active_units" not in history.columns
    assert warnings_of(caplog, "posterior collapse") == []


def test_a_kl_explosion_is_warned_of_once_by_name_with_a_remedy(caplog):
    far = 1e3 * rows(250)
    with caplog.at_level(logging.WARNING, logger="noumena"):
        VAE(hidden_dims=(8,), latent_dim=2, beta=0.0, standardize=False).fit(far, far[:50], **QUICK)
    (warning,) = warnings_of(caplog, "KL explosion")
    assert "raise beta" in warning


def test_a_healthy_training_warns_of_nothing(caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        history = VAE(hidden_dims=(8,), latent_dim=2).fit(
            rows(250), rows(250), **QUICK | {"lr": 1e-2, "max_epochs": 10}
        )
    assert np.isfinite(history["val_loss"]).all()
    assert caplog.records == []
