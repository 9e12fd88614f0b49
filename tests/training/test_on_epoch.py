import numpy as np
import pytest

from noumena.core.errors import StopTraining
from noumena.density.model import VAE
from noumena.training import History


def test_on_epoch_sees_each_epoch_as_the_history_has_it(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 3))
    seen = []
    model = VAE(latent_dim=2, hidden_dims=[8])
    history = model.fit(
        rows[:160], rows[160:], max_epochs=3, run_dir=tmp_path, on_epoch=lambda epoch, row: seen.append((epoch, row))
    )
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert [row["val_loss"] for _, row in seen] == history["val_loss"]


def test_stop_training_ends_a_training_that_can_be_continued_to_the_same_end(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 3))

    def stop(epoch, row):
        if epoch == 1:
            raise StopTraining("enough")

    options = {"max_epochs": 4, "seed": 3, "checkpoint_seconds": 0.0}
    model = VAE(latent_dim=2, hidden_dims=[8])
    with pytest.raises(StopTraining, match="enough"):
        model.fit(rows[:160], rows[160:], run_dir=tmp_path, on_epoch=stop, **options)
    assert not model.training
    assert History.read_csv(tmp_path / "metrics.csv").epochs == 2
    again = VAE(latent_dim=2, hidden_dims=[8])
    resumed = again.fit(rows[:160], rows[160:], run_dir=tmp_path, resume=True, **options)
    whole = VAE(latent_dim=2, hidden_dims=[8]).fit(rows[:160], rows[160:], **options)
    assert resumed["val_loss"] == whole["val_loss"]
