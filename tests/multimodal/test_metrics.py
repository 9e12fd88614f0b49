import numpy as np
import pytest

from noumena.multimodal.metrics import (
    column_correlation,
    column_r2,
    column_rmse,
    compared,
    coverage,
    error_metrics,
    parts_of,
    pooled_r2,
    r2_text,
    row_errors,
)
from noumena.multimodal.modality import Modality
from noumena.multimodal.tables import direction_table, error_tables

RNG = np.random.default_rng(0)
WRENCH = Modality.of_size("w", 6, kind="wrench")
FIELD = Modality.of_size("u", 12, kind="displacement", units="mm")


def test_force_and_torque_are_never_pooled():
    truth = RNG.normal(size=(50, 6))
    wrong = truth + np.array([0.3, 0.3, 0.3, 7.0, 7.0, 7.0])
    found = error_metrics(WRENCH, truth, wrong)
    assert found["rmse", "force"] == pytest.approx(0.3)
    assert found["rmse", "torque"] == pytest.approx(7.0)
    assert {part for _, part in found} == {"force", "torque"}


def test_rmse_of_a_part_is_that_of_its_columns_together():
    truth, inferred = RNG.normal(size=(2, 40, 6))
    columns = column_rmse(truth, inferred)
    found = error_metrics(WRENCH, truth, inferred)
    assert found["rmse", "force"] == pytest.approx(np.sqrt(np.square(columns[:3]).mean()))


def test_median_and_p95_do_not_see_how_bad_the_worst_row_is():
    truth = np.zeros((101, 6))
    inferred = np.full((101, 6), 0.1)
    before = error_metrics(WRENCH, truth, inferred)
    inferred[0] = 1e3
    after = error_metrics(WRENCH, truth, inferred)
    assert after["median", "force"] == before["median", "force"]
    assert after["p95", "force"] == before["p95", "force"]
    assert after["rmse", "force"] > 50.0


def test_node_errors_are_distances_of_points_averaged_over_rows():
    truth = np.zeros((2, 12))
    inferred = truth.copy()
    inferred[0, :3] = [3.0, 0.0, 4.0]  # one of four points is 5 away, in the first of two rows
    found = error_metrics(FIELD, truth, inferred)
    assert found["node_max", ""] == pytest.approx(2.5)
    assert found["node_rmse", ""] == pytest.approx(0.5 * np.sqrt(25.0 / 4.0))
    assert ("rmse", "") not in found
    assert row_errors(FIELD, truth, inferred)[""] == pytest.approx([2.5, 0.0])


def test_r2_is_one_for_the_truth_and_zero_for_its_mean():
    truth = RNG.normal(size=(30, 4)) * [1.0, 10.0, 0.1, 0.0]
    assert pooled_r2(truth, truth) == 1.0
    assert pooled_r2(truth, np.broadcast_to(truth.mean(0), truth.shape)) == pytest.approx(0.0)
    columns = column_r2(truth, truth)
    assert columns[:3] == pytest.approx(1.0)
    assert np.isnan(columns[3])


def test_coverage_of_normal_errors_is_nominal_and_leaves_out_constant_columns():
    mean = RNG.normal(size=(20000, 2))
    truth = mean + RNG.normal(size=mean.shape) * [0.1, 5.0]
    std = np.broadcast_to([0.1, 5.0], mean.shape)
    assert coverage(truth, mean, std) == pytest.approx(0.9, abs=0.01)
    clamped = [np.concatenate([part, np.zeros((20000, 8))], 1) for part in (truth, mean, std)]
    assert coverage(*clamped) == pytest.approx(coverage(truth, mean, std))
    assert np.isnan(coverage(truth, mean, np.full_like(mean, np.nan)))


def test_correlation_ignores_scale_and_offset():
    first = RNG.normal(size=(100, 2))
    found = column_correlation(first, first * [2.0, -3.0] + 1.0)
    assert found == pytest.approx([1.0, -1.0])
    assert np.isnan(column_correlation(first, np.ones_like(first))).all()


def test_the_digits_of_r2_tell_it_from_one():
    assert r2_text(0.5) == "0.500"
    assert r2_text(0.99998) != r2_text(1.0)
    assert r2_text(float("nan")) == "–"


def test_a_part_of_a_vector_is_all_of_it():
    assert parts_of(Modality.of_size("v", 5)) == {"": slice(0, 5)}


def test_regressions_stand_beside_the_model_and_what_they_were_not_fitted_for_is_left_blank():
    truth = RNG.normal(size=(20, 6))
    rows = np.arange(20)
    ours = [
        compared("a", ("a",), WRENCH, rows, truth, truth + 0.1),
        compared("all", ("a", "w"), WRENCH, rows, truth, truth),
    ]
    theirs = {"poly": {"a->w": compared("a", ("a",), WRENCH, rows, truth, truth + 0.2)}}
    force, torque = error_tables(ours, theirs, np.zeros(20, bool), {}, caption="c")
    assert force.columns[2:] == ["MVAE", "polynomial"]
    assert force.rows[0][2:] == pytest.approx([0.1, 0.2])
    assert force.rows[-1][0] == "all"
    assert force.rows[-1][3] is None
    assert "N mm" in torque.title
    assert len(direction_table(ours, "test", 20).rows) == 2
