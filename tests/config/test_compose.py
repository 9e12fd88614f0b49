import copy

import pytest
import yaml

from noumena.config import compose, find_recipe, recipes
from noumena.config.compose import check, parse_overrides
from noumena.core.errors import ConfigError

RECIPES = [recipe.name for recipe in recipes()]


def leaves(tree, path=()):
    """Every (path, value) of a nested dictionary, sections themselves left out.

    Keys further down belong to the data: names of modalities, which only the data can check.
    """
    for key, value in tree.items():
        if isinstance(value, dict) and not path:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def changed(tree, path, change):
    """A copy of ``tree`` in which ``change(parent, key)`` was applied at ``path``."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return tree


def complete(name):
    content = copy.deepcopy(find_recipe(name).content)
    if content["data"]["kind"] not in ("synthetic", "dots", "two-rooms"):
        content["data"].setdefault("path", "some/file")
    return content


CASES = [(name, path) for name in RECIPES for path, _ in leaves(complete(name))]


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_is_valid(name):
    config = check(complete(name), name)
    assert config.model_name.startswith(config.family + "/")


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda case: case if isinstance(case, str) else ".".join(case))
def test_a_misspelt_key_is_refused_with_its_path_and_the_right_one(name, path):
    wrong = path[-1] + "x"

    def misspell(parent, key):
        parent[wrong] = parent.pop(key)

    with pytest.raises(ConfigError) as caught:
        check(changed(complete(name), path, misspell), name)
    message = str(caught.value)
    if path[-1] in ("name", "kind"):
        assert ".".join(path) in message
    else:
        assert ".".join([*path[:-1], wrong]) in message
        assert f"Did you mean '{path[-1]}'?" in message


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda case: case if isinstance(case, str) else ".".join(case))
def test_a_value_of_the_wrong_type_is_refused_with_its_path(name, path):
    def spoil(parent, key):
        parent[key] = {"nested": [1.5]} if isinstance(parent[key], str) else "text"

    with pytest.raises(ConfigError, match=rf"'{'.'.join(path)}"):
        check(changed(complete(name), path, spoil), name)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fit.lr=abc", ["'fit.lr'", "expected a number", "'abc'"]),
        ("fit.max_epochs=2.5", ["'fit.max_epochs'", "an integer"]),
        ("fit.max_epochs='10'", ["'fit.max_epochs'", "an integer"]),
        ("fit.max_epochs=true", ["'fit.max_epochs'", "an integer"]),
        ("fit.optimizer=sgd", ["'fit.optimizer'", "adam, adamw"]),
        ("model.hidden_dims=[64,a]", ["'model.hidden_dims.1'", "'a'"]),
        ("model.standardize=1", ["'model.standardize'", "true or false"]),
        ("fit.patience=soon", ["'fit.patience'", "an integer or null"]),
        ("fti.lr=1", ["'fti'", "Did you mean 'fit'"]),
        ("fit.lrr=1", ["'fit.lrr'", "Did you mean 'lr'"]),
        ("fit=3", ["'fit'", "section"]),
        ("data.kind=tabel", ["'data.kind'", "table, episodes, synthetic"]),
        ("model.name=density/vea", ["'model.name'", "Did you mean 'density/vae'"]),
        ("model.name=os:system", ["'model.name'", "unknown model"]),
        ("model._target_=os.system", ["'model._target_'"]),
        # Out of range: told by the constructors that know the ranges, before any data are read.
        ("fit.lr=-1", ["fit.lr", "above 0", "-1"]),
        ("fit.batch_size=0", ["fit.batch_size", "at least 1"]),
        ("fit.strategy=ddp_spawn", ["fit.strategy", "'ddp'"]),
        ("model.latent_dim=0", ["model.latent_dim", "at least 1"]),
        ("model.beta=.inf", ["model.beta", "finite"]),
        ("model.hidden_dims=[0]", ["model.hidden_dims", "positive"]),
    ],
)
def test_an_impossible_override_is_refused_in_words(override, words):
    with pytest.raises(ConfigError) as caught:
        compose("density/synthetic", overrides=[override])
    for word in words:
        assert word in str(caught.value)


def test_later_layers_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("fit: {lr: 0.5, batch_size: 32}\nmodel: {latent_dim: 3}\n")
    second.write_text("fit: {lr: 0.25}\n")
    config = compose("density/synthetic", [first, second], ["model.latent_dim=4"])
    assert config.fit["lr"] == 0.25
    assert config.fit["batch_size"] == 32
    assert config.model["latent_dim"] == 4
    assert config.data["anomaly_type"] == "outlier"


def test_a_missing_path_is_named_with_the_words_to_type():
    with pytest.raises(ConfigError, match=r"'data.path' is missing.*data\.path=VALUE"):
        compose("density/table")
    assert "path" not in compose("density/table", require_data=False).data


def test_the_dumped_configuration_composes_to_itself(tmp_path):
    config = compose("density/synthetic", overrides=["fit.lr=3e-4", "fit.patience=null"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert compose(str(path)).sections() == config.sections()


@pytest.mark.parametrize("text", ["fit.lr", "=3", "fit.lr:3"])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides([text])


def test_a_path_with_an_equals_sign_survives():
    assert parse_overrides(["data.path=a=b.csv"]) == {"data": {"path": "a=b.csv"}}


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "fit: ${nowhere}", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        compose("density/synthetic", [path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        compose(str(tmp_path / "gone.yaml"))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'density/hopper'"):
        find_recipe("density/hoper")


def test_shipped_recipes_have_a_description():
    for recipe in recipes():
        assert recipe.description, recipe.name
        yaml.safe_load(compose(recipe.name, require_data=False).to_yaml())


def test_another_model_takes_what_it_knows_of_the_recipes_options_and_says_what_is_left_out(caplog):
    config = compose("density/table", overrides=["model.name=density/gmm", "data.path=some/file"])
    assert config.model == {"name": "density/gmm"}
    assert "left out hidden_dims, latent_dim: for density/vae alone" in caplog.text
    assert config.data["path"] == "some/file"


def test_another_kind_of_data_keeps_the_options_that_both_kinds_take(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "model: {name: density/vae}\ndata: {kind: synthetic, n: 300, seed: 3}\nfit: {max_epochs: 2}\n", encoding="utf-8"
    )
    config = compose(str(recipe), overrides=["data.kind=table", "data.path=some/file"])
    assert config.data == {"kind": "table", "path": "some/file", "seed": 3}


def test_options_of_the_same_layer_as_the_other_model_are_never_left_out():
    with pytest.raises(ConfigError, match=r"unknown key 'model\.latent_dimm'"):
        compose("density/table", overrides=["model.name=density/gmm", "model.latent_dimm=3", "data.path=some/file"])


@pytest.mark.parametrize("override", ["model.name=density/nothing", "data.kind=nothing", "model.name=3"])
def test_a_model_or_kind_that_does_not_exist_is_refused_as_such(override):
    with pytest.raises(ConfigError, match=override.partition("=")[0].replace(".", r"\.")):
        compose("density/table", overrides=[override, "data.path=some/file"])
