import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.multimodal.model import MVAE
from noumena.multimodal.observations import Batch, from_arrays
from tests.multimodal.bodies import KINDS, QUICK, SMALL, observations, respond, surface

FUSIONS = ["poe", "moe", "mopoe", "mvtcae", "align"]
SUBSETS = [["pose"], ["force"], ["shape"], ["pose", "force"], ["force", "shape"], ["pose", "force", "shape"]]


@pytest.fixture(scope="module")
def held_out():
    return observations(200, seed=1)


@pytest.fixture(scope="module")
def trained():
    model = MVAE(**SMALL, symmetry="C8v")
    model.fit(observations(800), observations(300, seed=2), **QUICK | {"max_epochs": 60})
    return model


def prepared(seed=0, **changes):
    """With statistics of the toy body, but untrained."""
    model = MVAE(**{**SMALL, **changes})
    model.prepare(observations(300), seed=seed)
    return model


# Inference


def test_every_modality_is_inferred_from_every_other(trained, held_out):
    found = trained.evaluate(held_out)
    assert len(found) == 12
    assert min(found.values()) > 0.97


def test_inference_is_in_physical_units_and_deterministic(trained, held_out):
    first, second = (trained.infer({"pose": held_out["pose"]}) for _ in range(2))
    assert list(first) == ["force", "shape"]
    assert np.array_equal(first["force"].mean, second["force"].mean)
    error = first["force"].mean - held_out["force"].numpy()
    assert np.sqrt(np.square(error).mean()) < 0.2 * held_out["force"].numpy().std()


@pytest.mark.parametrize("inputs", SUBSETS)
def test_any_subset_of_the_modalities_can_be_observed(trained, held_out, inputs):
    by_array = trained.infer({name: held_out[name] for name in inputs}, ["shape", "pose"])
    by_name = trained.infer(held_out, ["shape", "pose"], observed=inputs)
    for name in ("shape", "pose"):
        assert np.allclose(by_array[name].mean, by_name[name].mean, atol=1e-6)
        assert np.array_equal(by_array[name].std, by_name[name].std)


def test_rows_with_different_missing_modalities_are_encoded_in_one_call(trained):
    rows = observations(64, seed=3, missing=0.5)
    together = trained.encode(rows)
    index = torch.arange(len(rows))
    for row in range(0, 64, 7):
        alone = trained.encode(rows.subset(index[[row]]))
        assert torch.allclose(together.mean[row], alone.mean[0], atol=1e-5)
        assert torch.allclose(together.log_var[row], alone.log_var[0], atol=1e-4)


def test_numbers_of_a_missing_modality_do_not_matter(trained):
    rows = observations(50, seed=3, missing=0.5)
    wild = rows.values.clone()
    for number, part in enumerate(trained.slices.values()):
        wild[~rows.present[:, number], part] = 1e6
    batches = [Batch(values, rows.present) for values in (rows.values, wild)]
    means = [trained.encode(batch).mean for batch in batches]
    assert torch.equal(*means)
    trained.eval()
    losses = [trained.loss(batch, noise=Noise(0)).vector() for batch in batches]
    assert torch.equal(*losses)


def test_two_modalities_know_more_than_either_of_them(trained, held_out):
    def width(*names):
        return trained.infer(held_out, ["shape"], observed=names)["shape"].std.mean()

    # The pose of the toy says all by itself; the force must not spoil it.
    assert width("pose", "force") <= 1.15 * width("pose")
    assert width("pose", "force") < width("force")


def test_intervals_hold_ninety_percent_of_new_rows(trained):
    rows = observations(1500, seed=5)
    for source in trained.names:
        found = trained.infer(rows, trained.names, observed=[source])
        for target, (mean, std) in found.items():
            moving = std.max(0) > 0
            inside = np.abs(mean - rows[target].numpy())[:, moving] <= 1.6448536 * std[:, moving]
            assert 0.84 < inside.mean() < 0.96, (source, target)


def test_without_validation_rows_there_are_no_deviations_until_it_is_calibrated():
    model = MVAE(**SMALL)
    model.fit(observations(100), **QUICK | {"max_epochs": 1})
    assert np.isnan(model.infer({"pose": np.zeros((1, 6))})["force"].std).all()
    model.calibrate(observations(100, seed=1))
    assert (model.infer({"pose": np.zeros((1, 6))})["force"].std > 0).all()


def test_clamped_nodes_never_move(trained, held_out):
    clamped = np.flatnonzero(surface().nodes[:, 2].numpy() == 0.0)
    columns = (clamped[:, None] * 3 + np.arange(3)).ravel()
    inferred = trained.infer(held_out, ["shape"], observed=["force"])["shape"]
    assert not inferred.mean[:, columns].any()
    assert not inferred.std[:, columns].any()
    sampled = trained.sample(20, torch.Generator().manual_seed(0))["shape"]
    assert not sampled[:, torch.from_numpy(columns)].any()


# Generation


def test_samples_are_states_of_the_body(trained):
    found = trained.sample(500, torch.Generator().manual_seed(0))
    again = trained.sample(500, torch.Generator().manual_seed(0))
    assert all(torch.equal(found[name], again[name]) for name in found)
    force, shape = respond(found["pose"].double().numpy(), surface())
    moving = shape.std(0) > 0
    assert np.corrcoef(found["shape"].numpy()[:, moving].ravel(), shape[:, moving].ravel())[0, 1] > 0.9
    assert np.corrcoef(found["force"].numpy().ravel(), force.ravel())[0, 1] > 0.9
    data = observations(800)["pose"].numpy()
    assert np.allclose(found["pose"].numpy().std(0), data.std(0), rtol=0.4)


def test_axes_are_ordered_by_activity_and_swept_in_order(trained):
    spread = trained.latents.spread
    assert bool((spread[:-1] >= spread[1:] - 1e-6).all())
    axes = trained.latents.axes
    assert torch.allclose(axes @ axes.T, torch.eye(len(axes)), atol=1e-5)
    sweep = trained.latent_traversal(0, steps=5, span=1.5)
    assert {name: tuple(part.shape) for name, part in sweep.items()} == {
        "pose": (5, 6),
        "force": (5, 6),
        "shape": (5, 72),
    }
    moved = (sweep["shape"] - sweep["shape"][:1]).square().sum(1)
    assert bool((moved[1:] > moved[:-1]).all())


def test_a_sweep_goes_through_its_origin(trained, held_out):
    row = {name: held_out[name][:1] for name in held_out.names}
    sweep = trained.latent_traversal(1, steps=3, origin=row)
    reconstruction = trained.reconstruct(row)
    for name in sweep:
        assert torch.allclose(sweep[name][1], reconstruction[name][0], atol=1e-5)


# Rest


@pytest.fixture(scope="module")
def resting():
    model = MVAE(**SMALL, zero_at_rest=True)
    model.fit(observations(300), observations(100, seed=1), **QUICK | {"max_epochs": 5})
    return model


@pytest.mark.parametrize("rows", [1, 2, 7, 333])
def test_the_rest_pose_gives_exactly_nothing(resting, rows):
    found = resting.infer({"pose": np.zeros((rows, 6))}, ["pose", "force", "shape"])
    for name in found:
        assert not found[name].mean.any(), name


def test_other_poses_do_not(resting, held_out):
    found = resting.infer({"pose": held_out["pose"]})
    assert np.abs(found["force"].mean).min(axis=1).max() > 0


def test_rest_needs_a_pose():
    with pytest.raises(ConfigError, match="kind 'pose'"):
        MVAE(**SMALL, zero_at_rest=True).fit({"a": np.random.default_rng(0).normal(size=(20, 3))}, max_epochs=1)


# Training


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_receives_a_gradient(fusion):
    # With zero_at_rest a decoder's last bias cancels, as it should; here there is none.
    model = prepared(fusion=fusion).train()
    total = sum(model.loss(observations(64).whole(), noise=Noise(seed)).total for seed in range(3))
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name == "error_scales.raw" and fusion in ("moe", "mvtcae"):
            continue  # they encode from single modalities alone, or from all together
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("seed", range(4))
def test_a_share_of_one_row_gives_every_parameter_a_gradient_to_exchange(fusion, seed):
    model = prepared(fusion=fusion).train()
    model.loss(observations(1).whole(), noise=Noise(seed)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_objective_learns_and_survives_saving(fusion, tmp_path, held_out):
    model = MVAE(**SMALL, fusion=fusion, **({"kl_coeff": 0.01} if fusion == "align" else {}))
    history = model.fit(observations(400), observations(100, seed=1), **QUICK)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert model.evaluate(held_out)["r2/pose->force"] > (0.6 if fusion == "mvtcae" else 0.85)
    model.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    assert loaded.modalities == model.modalities
    for inputs in SUBSETS:
        ours, theirs = (one.infer(held_out, observed=inputs) for one in (model, loaded))
        for name in ours:
            assert np.array_equal(ours[name].mean, theirs[name].mean)
            assert np.array_equal(ours[name].std, theirs[name].std)
    draws = [one.sample(3, torch.Generator().manual_seed(1))["shape"] for one in (model, loaded)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    "options", [{"fusion": "poe"}, {"fusion": "mvtcae"}, {"symmetry": "C8v"}, {"zero_at_rest": True}]
)
def test_a_minibatch_shared_among_processes_has_the_loss_of_the_whole(options):
    model = prepared(**options).train()
    rows = observations(60, missing=0.3)
    whole = model.loss(rows.whole(), noise=Noise(7)).total
    shares = [(0, 25), (25, 60)]
    parts = [
        model.loss(rows.subset(torch.arange(start, stop)).whole(), noise=Noise(7, start=start, total=60)).total
        * ((stop - start) / 60)
        for start, stop in shares
    ]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-4)


def test_preprocessing_in_advance_changes_nothing():
    model = prepared().train()
    rows = observations(50, missing=0.2)
    index = torch.arange(10, 40)
    direct = model.loss(rows.batch(index), noise=Noise(1)).vector()
    in_advance = model.loss(model.for_training(rows).batch(index), noise=Noise(1)).vector()
    assert torch.allclose(direct, in_advance, rtol=1e-5)


def test_a_resumed_training_reaches_the_weights_of_an_uninterrupted_one(tmp_path):
    options = QUICK | {"lr_schedule": "constant"}
    data = observations(200, missing=0.2), observations(60, seed=1)
    straight = MVAE(**SMALL, symmetry="C8v")
    straight.fit(*data, run_dir=tmp_path / "a", **options | {"max_epochs": 4})
    for epochs, resume in ((2, False), (4, True)):
        model = MVAE(**SMALL, symmetry="C8v")
        model.fit(*data, run_dir=tmp_path / "b", resume=resume, **options | {"max_epochs": epochs})
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) or bool(tensor.isnan().any()), name


def test_training_goes_on_from_a_saved_model(tmp_path):
    model = MVAE(**SMALL, symmetry="C8v")
    data = observations(200)
    model.fit(data, **QUICK | {"max_epochs": 2})
    model.save(tmp_path / "m")
    loaded = noumena.load(tmp_path / "m")
    histories = [one.fit(data, **QUICK | {"max_epochs": 2}) for one in (model, loaded)]
    assert histories[0]["train_loss"] == pytest.approx(histories[1]["train_loss"], rel=1e-6)


def test_it_trains_under_any_lightning_trainer():
    import pytorch_lightning as pl

    from noumena.training import DataModule, FitSettings, TrainingModule

    train, val = observations(200, missing=0.2), observations(60, seed=1)
    model = MVAE(**SMALL, symmetry="C8v")
    model.prepare(train, seed=0)
    before = model.loss(val.whole(), noise=Noise(0)).total.item()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=3, enable_model_summary=False, **quiet)
    trainer.fit(TrainingModule(model, FitSettings(lr=5e-3)), datamodule=DataModule(train, val, batch_size=64))
    assert model.eval().loss(val.whole(), noise=Noise(0)).total.item() < before


def test_missing_entries_in_training_cost_little(held_out):
    model = MVAE(**SMALL)
    model.fit(observations(800, missing=0.3), observations(200, seed=2, missing=0.3), **QUICK | {"max_epochs": 60})
    assert min(model.evaluate(held_out).values()) > 0.95


def test_statistics_leave_missing_entries_out():
    model = MVAE(**SMALL)
    rows = observations(300, missing=0.4)
    model.prepare(rows)
    there = rows["force"][rows.has("force")]
    assert torch.allclose(model.fronts[1].mean, there.mean(0), atol=1e-5)


def test_any_set_of_vectors_will_do():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(600, 2))
    data = {"left": hidden @ rng.normal(size=(2, 4)), "right": np.tanh(hidden @ rng.normal(size=(2, 3)))}
    model = MVAE(z_dim=4, hidden_dims={"left": [32], "right": [32, 16]}, mixture=1)
    model.fit({k: v[:500] for k, v in data.items()}, {k: v[500:] for k, v in data.items()}, **QUICK)
    found = model.infer({"left": data["left"][500:]})
    residual = found["right"].mean - data["right"][500:]
    assert np.square(residual).sum() < 0.1 * np.square(data["right"][500:] - data["right"][500:].mean(0)).sum()


def test_single_modalities_and_float64_work():
    model = MVAE(z_dim=2, hidden_dims=(8,), mixture=1)
    x = np.random.default_rng(0).normal(size=(50, 3))
    model.fit({"x": x}, **QUICK | {"max_epochs": 2, "precision": "64-true"})
    assert model.reconstruct({"x": x})["x"].dtype == torch.float64


# Faults


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fusion": "pow"}, "poe"),
        ({"activation": "sily"}, "silu"),
        ({"z_dim": 0}, "z_dim"),
        ({"beta": -1.0}, "beta"),
        ({"joint_share": 1.5}, "joint_share"),
        ({"hidden_dims": [0]}, "hidden_dims"),
        ({"components": 0}, "components"),
        ({"source_weights": {"pose": -1.0}}, "source_weights"),
        ({"symmetry": "D4"}, "C24v"),
        ({"symmetry": "C4", "fusion": "align"}, "align"),
        ({"sizes": {f"m{i}": 2 for i in range(9)}}, "8 modalities"),
        ({"sizes": {"a": 2, "b": 0}}, "positive"),
        ({"sizes": {"a": 2}, "fusion": "align"}, "not enough"),
        ({"sizes": {"pose": 6}, "components": {"poze": 2}}, "pose"),
        ({"sizes": {"a": 2, "b": 3}, "hidden_dims": {"a": [4]}}, "'b'"),
    ],
)
def test_impossible_hyperparameters_are_refused_by_name(options, words):
    with pytest.raises(ConfigError, match=words):
        MVAE(**options)


def test_the_original_objective_refuses_incomplete_rows():
    with pytest.raises(ConfigError, match="fusion=poe"):
        MVAE(**SMALL, fusion="align").fit(observations(50, missing=0.3), max_epochs=1)


def test_wrong_inputs_are_refused_in_words(trained, held_out):
    with pytest.raises(ConfigError, match="Did you mean 'pose'"):
        trained.infer(held_out, observed=["poses"])
    with pytest.raises(ConfigError, match="no modality 'weight'"):
        trained.infer(held_out, ["weight"])
    with pytest.raises(DataError, match="expected 6 numbers in a row, found 5"):
        trained.infer({"pose": np.zeros((2, 5))})
    with pytest.raises(DataError, match="expected at least one of pose, force, shape"):
        trained.infer({"poses": np.zeros((2, 6))})
    with pytest.raises(DataError, match=r"row 1 .*'Dz'"):
        trained.infer({"pose": np.array([[0.0] * 6, [0, 0, np.nan, 0, 0, 0]])})
    with pytest.raises(DataError, match="inf"):
        trained.infer({"pose": np.array([[np.inf] * 6])})
    with pytest.raises(DataError, match="expected shape"):
        trained.infer({"pose": np.zeros(6)})
    with pytest.raises(ConfigError, match="axis"):
        trained.latent_traversal(99)
    with pytest.raises(NotSupportedError, match="density"):
        trained.score_samples(held_out)


def test_a_model_without_weights_says_so():
    for use in (lambda m: m.infer({"pose": np.zeros((1, 6))}), lambda m: m.sample(1), lambda m: m.encode({})):
        with pytest.raises(NotSupportedError, match="no weights yet"):
            use(MVAE())


def test_validation_data_of_other_modalities_are_refused(held_out):
    other = from_arrays(
        {"pose": held_out["pose"], "force": held_out["force"]}, kinds={k: KINDS[k] for k in ("pose", "force")}
    )
    with pytest.raises(DataError, match="modalities"):
        MVAE(**SMALL).fit(held_out, other, max_epochs=1)


def test_sizes_given_by_hand_must_be_those_of_the_data(held_out):
    with pytest.raises(ConfigError, match="sizes"):
        MVAE(**SMALL, sizes={"pose": 6, "force": 6, "shape": 9}).fit(held_out, max_epochs=1)
