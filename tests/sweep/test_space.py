from pathlib import Path

import pytest

from noumena.config import compose
from noumena.core.errors import ConfigError
from noumena.sweep.plan import make_plan
from noumena.sweep.space import check_space, read_space, shipped_spaces, with_values

WHERE = "space.yaml"


def space_of(tmp_path, text, recipe="density/synthetic", overrides=()):
    path = tmp_path / WHERE
    path.write_text(text)
    return check_space(read_space(path), compose(recipe, overrides=overrides), WHERE)


def test_numbers_are_whole_where_the_recipe_wants_them_whole(tmp_path):
    space = space_of(tmp_path, "model.latent_dim: {low: 2, high: 8, step: 2}\nfit.weight_decay: {low: 0, high: 1}\n")
    values = space.values({"model.latent_dim": 4, "fit.weight_decay": 0})
    assert values == {"model.latent_dim": 4, "fit.weight_decay": 0.0}
    assert [type(value) for value in values.values()] == [int, float]


def test_choices_of_lists_and_null_come_back_as_they_were(tmp_path):
    space = space_of(tmp_path, "model.hidden_dims: {choices: [[8], [16, 8]]}\nfit.patience: {choices: [null, 3]}\n")
    grid = space.grid()
    assert grid is not None
    assert [space.values(labels) for labels in grid] == [
        {"model.hidden_dims": dims, "fit.patience": patience} for dims in ([8], [16, 8]) for patience in (None, 3)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.latent_dims: {low: 1, high: 3}", "unknown key 'model.latent_dims'. Did you mean 'model.latent_dim'"),
        ("modle.latent_dim: {low: 1, high: 3}", "unknown key 'modle.latent_dim'. Did you mean 'model.latent_dim'"),
        ("model: {latent_dim: {low: 1, high: 3}}", "Write each key in full: 'model.NAME'"),
        ("fit.lr: 0.1", "'fit.lr': expected {choices"),
        ("fit.lr: {low: 0.1}", "'high' is missing"),
        ("fit.lr: {low: 0.1, hihg: 1}", "unknown 'hihg'. Did you mean 'high'"),
        ("fit.lr: {choices: [0.1], low: 1}", "unknown 'low'"),
        ("fit.lr: {low: 1, high: 0.1}", "empty range"),
        ("fit.lr: {low: 0.1, high: 0.1}", "empty range"),
        ("fit.lr: {low: 0, high: 0.1, log: true}", "low must be above 0"),
        ("fit.lr: {low: 0.1, high: 1, log: true, step: 0.1}", "step has no meaning"),
        ("fit.lr: {low: 0.1, high: 1, step: 2}", "'fit.lr.step'"),
        ("fit.lr: {low: a, high: 1}", "'fit.lr.low': expected a finite number, got 'a' (str)"),
        ("fit.lr: {low: .nan, high: 1}", "'fit.lr.low': expected a finite number"),
        ("fit.lr: {low: 0.1, high: 1, log: 1}", "'fit.lr.log': expected true or false"),
        ("model.latent_dim: {low: 0.5, high: 3}", "'model.latent_dim': expected integers"),
        ("model.hidden_dims: {low: 1, high: 3}", "takes no number"),
        ("fit.optimizer: {choices: [adam, adamm]}", "'fit.optimizer': expected one of adam, adamw, lars"),
        ("model.latent_dim: {choices: [2, two]}", "'model.latent_dim': expected"),
        ("model.latent_dim: {choices: []}", "at least one value"),
        ("model.latent_dim: {choices: [2, 2]}", "twice"),
        ("model.name: {choices: [density/vae, density/gmm]}", "one sweep for each"),
        ("fit.devices: {choices: [1, 2]}", "one sweep for each"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_with_file_and_key(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        space_of(tmp_path, text)
    assert WHERE in str(error.value)
    assert words in str(error.value)


def test_a_key_within_a_mapping_is_varied_alone(tmp_path):
    recipe = ("multimodal/table", ["model.source_weights={a: 1.0, b: 2.0}", "data.path=t.csv"])
    space = space_of(tmp_path, "model.source_weights.a: {low: 0.1, high: 5.0, log: true}", *recipe)
    sections = compose(recipe[0], overrides=recipe[1]).sections()
    changed = with_values(sections, space.values({"model.source_weights.a": 3.0}))
    assert changed["model"]["source_weights"] == {"a": 3.0, "b": 2.0}
    assert sections["model"]["source_weights"] == {"a": 1.0, "b": 2.0}


def test_options_that_contradict_the_space_are_refused(tmp_path):
    path = tmp_path / WHERE
    path.write_text("fit.lr: {low: 0.1, high: 1.0}")
    with pytest.raises(ConfigError, match=r"'fit.lr' is set on the command line"):
        make_plan("density/synthetic", ["fit.lr=0.1"], path)
    with pytest.raises(ConfigError, match="grid needs choices"):
        make_plan("density/synthetic", [], path, sampler="grid")
    with pytest.raises(ConfigError, match="--direction"):
        make_plan("density/synthetic", [], path, metric="auroc")
    with pytest.raises(ConfigError, match="Did you mean 'median'"):
        make_plan("density/synthetic", [], path, pruner="mediam")
    with pytest.raises(ConfigError, match=r"fit.devices=1"):
        make_plan("density/synthetic", ["fit.devices=2"], path)


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_fits_the_recipes_it_is_for(name):
    for recipe in ("worldmodels/jepa-robust", "worldmodels/dots-vicreg"):
        plan = make_plan(recipe, [], Path(name), sampler="grid")
        grid = plan.checked_space(name).grid()
        assert grid is not None
        assert {row["data.noise"] for row in grid} == {"uniform", "structured"}
        assert len(grid) == 8
