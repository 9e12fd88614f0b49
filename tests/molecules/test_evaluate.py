import json

import pytest
import torch

from noumena.config.schema import check_section
from noumena.core.data import Splits
from noumena.core.errors import ConfigError
from noumena.evaluation import write_report
from noumena.molecules.evaluate import evaluate
from noumena.molecules.metrics import errors
from noumena.molecules.model import MoleculeVAE
from noumena.training import History
from tests.molecules.chains import alanine, data, dimer, ethanol, peptide, ring, water
from tests.molecules.standin import Linear

EVERYTHING = 1000  # components


def splits_of(topology, frames=150):
    whole = data(topology, frames)
    return Splits(
        whole.subset(torch.arange(frames * 2 // 3)), None, whole.subset(torch.arange(frames * 2 // 3, frames))
    )


@pytest.fixture(scope="module")
def splits():
    return splits_of(peptide(5))


@pytest.fixture(scope="module")
def perfect(splits):
    return evaluate(Linear(splits.train, EVERYTHING), splits, samples=60, temperature=300.0)


@pytest.fixture(scope="module")
def mirrored(splits):
    return evaluate(Linear(splits.train, EVERYTHING, mirror=True), splits, samples=60).metrics


def test_a_model_that_keeps_everything_has_no_errors(perfect):
    metrics = perfect.metrics
    for name in ("pair_rmse", "rmsd", "rmsd_reflected", "bond_rmse", "train/pair_rmse"):
        assert metrics[name] < 0.05, name
    for name in ("handed_right", "prochirality", "train/handed_right"):
        assert metrics[name] == 1, name
    assert metrics["handed_frames"] > 10
    assert metrics["torsion_js"] < 0.05
    assert (metrics["left"], metrics["right"]) == (metrics["data/left"], metrics["data/right"])


def test_a_model_that_mirrors_has_the_right_distances_and_the_wrong_hand(mirrored):
    assert mirrored["pair_rmse"] < 0.05
    assert mirrored["rmsd_reflected"] < 0.05
    assert mirrored["rmsd"] > 0.5
    assert mirrored["handed_right"] == 0
    assert mirrored["prochirality"] == 0
    assert mirrored["left"] == mirrored["data/right"]


def test_baselines_have_as_many_components_as_there_are_latents(splits):
    model = Linear(splits.train, 4)
    metrics = evaluate(model, splits, samples=20).metrics
    assert metrics["baseline_pca/pair_rmse"] == pytest.approx(metrics["pair_rmse"], rel=1e-3)
    assert metrics["baseline_mean/pair_rmse"] > metrics["baseline_pca/pair_rmse"]
    plain = evaluate(model, splits, samples=20, baselines=False).metrics
    assert not any(name.startswith("baseline") for name in plain)
    assert plain == pytest.approx({name: metrics[name] for name in plain}, nan_ok=True)


def test_what_matters_most_comes_first_and_every_metric_is_a_plain_number(perfect):
    names = list(perfect.metrics)
    assert names[:5] == ["pair_rmse", "baseline_pca/pair_rmse", "rmsd", "rmsd_reflected", "handed_right"]
    assert names[7] == "samples/bad"
    assert all(isinstance(value, int | float) for value in perfect.metrics.values())
    json.dumps(perfect.metrics)


def test_free_energies_are_given_in_units_of_energy_where_the_temperature_is_known():
    whole = splits_of(peptide(2), 900)
    found = evaluate(Linear(whole.train, 5), whole, samples=50, temperature=300.0, baselines=False).metrics
    assert found["samples/fes_mae"] > 0
    assert found["samples/fes_mae_kj_mol"] == pytest.approx(2.494 * found["samples/fes_mae"], rel=1e-3)


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_samples(splits):
    model = Linear(splits.train, 6)
    first, again, other = (evaluate(model, splits, samples=30, seed=seed).metrics for seed in (1, 1, 2))
    assert first == pytest.approx(again, nan_ok=True)
    assert first["pair_rmse"] == other["pair_rmse"]
    assert first["samples/gyration"] != other["samples/gyration"]


def test_without_a_test_split_validation_is_evaluated_and_else_training(splits):
    model = Linear(splits.train, 3)
    held = errors(splits.test.xyz, model.reconstruct(splits.test), splits.test.topology).values
    val = evaluate(model, Splits(splits.train, splits.test), samples=5).metrics
    train = evaluate(model, Splits(splits.train), samples=5)
    assert val["pair_rmse"] == pytest.approx(held["pair_rmse"])
    assert train.metrics["pair_rmse"] == pytest.approx(train.metrics["train/pair_rmse"])
    assert "Held-out and training frames" not in [table.title for table in train.tables]


def test_torsions_of_the_hand_can_be_chosen_or_left_out(splits):
    model = Linear(splits.train, 6)
    chosen = evaluate(model, splits, samples=5, handedness=["phi:3"])
    assert any("sum of phi:3: left where it is above 36°" in table.caption for table in chosen.tables)
    none = evaluate(model, splits, samples=5, handedness=[])
    assert "handed_right" not in none.metrics
    assert "handedness" not in [picture.name for picture in none.pictures]


def test_a_chiral_molecule_has_its_stereocentres_counted():
    splits = splits_of(alanine())
    good, bad = (
        evaluate(Linear(splits.train, EVERYTHING, mirror=m), splits, samples=40).metrics for m in (False, True)
    )
    assert good["chirality"] == good["samples/chirality"] == good["data/chirality"] == 1
    assert bad["chirality"] == bad["samples/chirality"] == 0


@pytest.mark.parametrize("topology", [dimer(), water(), ethanol(), ring()])
def test_any_molecule_can_be_evaluated(topology):
    splits = splits_of(topology, 30)
    found = evaluate(Linear(splits.train, 2), splits, samples=10, interpolation_steps=3)
    assert found.metrics["pair_rmse"] >= 0
    assert {"overlays", "bond_lengths", "path", "path_torsions"} <= {picture.name for picture in found.pictures}
    assert all(len(row) == len(table.columns) for table in found.tables for row in table.rows)


def test_an_evaluation_becomes_a_report_with_the_molecule_in_it(tmp_path):
    splits = splits_of(water(), 20)
    found = evaluate(Linear(splits.train, 2), splits, samples=5, interpolation_steps=2)
    facts = {"about": {}, "config": "", "model_summary": {}, "timings": {}, "versions": {}}
    history = History(columns={"train_loss": [2.0, 1.0]})
    path = write_report(tmp_path / "report.html", title="t", history=history, evaluation=found, **facts)
    text = path.read_text(encoding="utf-8")
    assert 'sandbox="allow-scripts"' in text
    assert "H2O in three dimensions" in text


def test_a_variational_autoencoder_can_be_evaluated(splits):
    model = MoleculeVAE(z_dim=3, width=16, blocks=1, mixture=2)
    model.prepare(splits.train)
    metrics = evaluate(model, splits, samples=10, interpolation_steps=2).metrics
    assert metrics["pair_rmse"] > 0
    assert metrics["kl"] >= 0
    assert metrics["active_units"] <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, r"evaluate\.samples: expected at least 1"),
        ({"interpolation_steps": 1}, r"evaluate\.interpolation_steps: expected at least 2"),
        ({"temperature": 0.0}, r"evaluate\.temperature: expected kelvin above 0"),
        ({"handedness": ["phi:99"]}, r"evaluate\.handedness: no torsion 'phi:99'"),
    ],
)
def test_options_out_of_range_are_refused_by_name(splits, options, words):
    with pytest.raises(ConfigError, match=words):
        evaluate(Linear(splits.train, 2), splits, **options)


def test_the_keywords_are_a_section_of_a_recipe():
    check_section(
        "evaluate", {"samples": 5, "handedness": ["phi:3"], "temperature": 300.0, "baselines": False}, evaluate
    )
    with pytest.raises(ConfigError, match="samples"):
        check_section("evaluate", {"sample": 5}, evaluate)


@pytest.mark.parametrize("held", [1, 2, 3])
@pytest.mark.parametrize("molecule", [ethanol, water, alanine], ids=lambda make: make.__name__)
def test_few_frames_are_evaluated(molecule, held):
    whole = data(molecule(), 2 + held)
    splits = Splits(whole.subset(torch.arange(2)), None, whole.subset(torch.arange(2, 2 + held)))
    found = evaluate(Linear(splits.train, 4), splits, samples=5, interpolation_steps=3)
    assert found.metrics["pair_rmse"] >= 0
    names = {picture.name for picture in found.pictures}
    assert "latent_map" not in names or held > 1
