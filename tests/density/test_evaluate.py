import dataclasses

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.density.data import open_synthetic
from noumena.density.evaluate import SHIFTS, evaluate
from noumena.density.model import VAE
from noumena.density.table import Table


@pytest.fixture(scope="module")
def splits():
    return open_synthetic(n=600, dim=3, seed=1)


@pytest.fixture(scope="module")
def model(splits):
    model = VAE(hidden_dims=(16,), latent_dim=2)
    model.fit(splits.train, splits.val, max_epochs=5, lr=5e-3, progress=False)
    return model


def without_labels(table):
    return dataclasses.replace(table, labels=None)


def test_the_extra_anomalies_are_told_from_the_test_rows(model, splits):
    found = evaluate(model, splits, samples=100)
    scores = model.evaluate_anomaly_detection(splits.test.rows, splits.extra["anomalies"].rows)
    assert found.metrics["auroc/anomalies"] == pytest.approx(scores["roc_auc"])
    assert found.metrics["average_precision/anomalies"] == pytest.approx(scores["average_precision"])
    assert {"auroc_mahalanobis/anomalies", "auroc_knn/anomalies"} <= set(found.metrics)
    assert found.metrics["test_loss"] == pytest.approx(model.evaluate(splits.test)["loss"])


def test_labels_in_the_test_split_are_the_anomalies(model, splits):
    rows = torch.cat([splits.test.rows, splits.extra["anomalies"].rows[:20]])
    labels = torch.arange(len(rows)) >= len(splits.test)
    test = Table(rows, splits.test.columns, labels=labels)
    found = evaluate(model, dataclasses.replace(splits, test=test, extra={}), baselines=False, samples=50)
    expected = model.evaluate_anomaly_detection(rows[~labels], rows[labels])
    assert found.metrics["auroc/labels"] == pytest.approx(expected["roc_auc"])
    assert not [name for name in found.metrics if "knn" in name or "mahalanobis" in name]


def test_held_out_rows_are_shifted_where_the_data_bring_no_anomalies(model, splits):
    plain = dataclasses.replace(splits, test=without_labels(splits.test), extra={})
    found = evaluate(model, plain, samples=50)
    areas = [found.metrics[f"auroc/shift_{distance:g}"] for distance in SHIFTS]
    assert areas[-1] > 0.9
    assert areas[-1] > areas[0]


def test_a_test_split_without_a_labelled_anomaly_says_so_and_is_shifted_instead(model, splits):
    found = evaluate(model, dataclasses.replace(splits, extra={}), samples=50)
    assert "auroc/shift_4" in found.metrics
    assert "no anomalies" in found.tables[0].rows[0][0]


def test_the_levels_of_a_file_have_their_own_normal_rows(model, splits, tmp_path):
    test, anomalies = splits.test.rows.numpy(), splits.extra["anomalies"].rows.numpy()[:60]
    path = tmp_path / "levels.npz"
    np.savez(path, near=np.concatenate([test[:40], test[40:80]]), far=np.concatenate([test[:60], anomalies]))
    plain = dataclasses.replace(splits, test=without_labels(splits.test), extra={})
    found = evaluate(model, plain, ood=str(path), samples=50)
    assert found.metrics["auroc/far"] > 0.95
    assert 0.3 < found.metrics["auroc/near"] < 0.7
    assert [row[0] for row in found.tables[0].rows] == ["near", "far"]


def test_the_same_seed_gives_the_same_numbers_and_pictures(model, splits):
    plain = dataclasses.replace(splits, test=without_labels(splits.test), extra={})
    first, again, other = (evaluate(model, plain, samples=60, seed=seed) for seed in (0, 0, 1))
    assert first.metrics == again.metrics
    assert first.metrics != other.metrics
    assert [table.rows for table in first.tables] == [table.rows for table in again.tables]


def test_the_false_alarm_rate_is_that_of_normal_rows_at_the_threshold(model, splits):
    found = evaluate(model, splits, baselines=False, samples=50)
    assert found.metrics["test_false_alarm_rate"] == pytest.approx(model.predict_anomaly(splits.test).mean())


def test_every_picture_and_table_is_there(model, splits):
    found = evaluate(model, splits, samples=50)
    names = {"scores", "roc", "samples", "unusual_rows", "latent_map", "latent_kl"}
    assert {picture.name for picture in found.pictures} == names
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize("option", ["ood_rows", "samples"])
def test_a_number_of_rows_below_one_is_refused(model, splits, option):
    with pytest.raises(ConfigError, match=f"evaluate.{option}"):
        evaluate(model, splits, **{option: 0})
