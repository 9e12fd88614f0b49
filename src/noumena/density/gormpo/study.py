"""Configuration files of GORMPO's density models (Tumay et al., arXiv 2605.24405) as sections of a recipe."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from noumena.core.errors import ConfigError, did_you_mean

Model = Literal["vae", "realnvp"]

_LARGEST_FILE = 1 << 20  # bytes; real ones have a few hundred
# Keys may stand at the top of a file or in one of these sections.
_SECTIONS = ("model", "vae", "realnvp", "data", "dataset", "training", "train", "fit", "optimizer", "output")
_MODELS: Mapping[str, Model] = {"vae": "vae", "realnvp": "realnvp"}
_OTHERS = {
    "kde": ("bandwidth", "n_neighbors", "percentile", "pca"),
    "NeuralODE": ("solver", "divergence", "atol", "rtol"),
    "diffusion": ("timesteps", "num_timesteps", "diffusion_steps", "beta_schedule"),
}
_INSTEAD = {"kde": "density/knn", "NeuralODE": "density/flow", "diffusion": "density/flow"}


@dataclass(frozen=True)
class _Key:
    """A key that is taken over.

    Attributes:
        names: how files spell it; the first one is used here.
        kind: of its value.
        least: of a number, or of each of several.
        only: the model that has it, where not both do.
    """

    names: tuple[str, ...]
    kind: Literal["whole", "number", "text", "widths"]
    least: float = -math.inf
    only: Model | None = None


_KEYS = (
    _Key(("hidden_dims", "hidden", "hidden_sizes"), "widths", 1),
    _Key(("latent_dim", "latent", "latent_size"), "whole", 1, "vae"),
    _Key(("beta",), "number", 0, "vae"),
    _Key(("num_layers", "n_layers", "num_coupling_layers"), "whole", 1, "realnvp"),
    _Key(("epochs", "num_epochs", "max_epochs"), "whole", 1),
    _Key(("batch_size", "batch"), "whole", 1),
    _Key(("lr", "learning_rate"), "number"),
    _Key(("patience", "early_stopping_patience"), "whole", 1),
    _Key(("val_ratio", "val_fraction", "val_split", "val_size", "val"), "number", 0),
    _Key(("test_ratio", "test_fraction", "test_split", "test_size", "test"), "number", 0),
    _Key(("seed",), "whole", 0),
    _Key(("data_path", "dataset_path"), "text"),
    _Key(("task", "env", "env_name"), "text"),
    _Key(("model_type", "model_name", "model"), "text"),
)
_WORDS = {"whole": "an integer", "number": "a number", "text": "text", "widths": "a list of integers"}
_DIMS = ("obs_dim", "action_dim", "input_dim")
_IGNORED = {
    "anomaly_fraction": "as in the original, which never reads it and sets the threshold at 0.01; "
    "model.anomaly_fraction=SHARE sets another",
    "device": "fit.accelerator chooses where to train, and --device where to score",
    "verbose": "progress shows on a terminal; fit.progress=false turns it off",
    "model_save_path": "the run folder holds the model; --out names it",
    "fig_save_path": "the run folder holds the pictures; --out names it",
    "compute_thresholds_only": "model.calibrate(rows) sets the threshold of a trained model",
    "wandb": "the run folder holds the metrics; fit.logger=wandb logs there, too",
    "wandb_project": "the run folder holds the metrics; fit.logger=wandb logs there, too",
}
# What the published files say for each task, and the original's code where they say nothing.
_LATENT = {"hopper": 8, "halfcheetah": 10, "walker2d": 10}
_DEFAULTS: Mapping[Model, Mapping[str, Any]] = {
    "vae": {"hidden_dims": [256, 128], "epochs": 100, "batch_size": 256, "beta": 1.0},
    "realnvp": {"hidden_dims": [256, 256], "epochs": 60, "batch_size": 128, "num_layers": 6},
}
_SHARED = {"lr": 1e-3, "patience": 15, "val_ratio": 0.2, "test_ratio": 0.2, "seed": 42}


def recipe_sections(path: str | Path) -> dict[str, Any]:
    """The sections of a recipe that train what a configuration file of GORMPO describes, with notes in words.

    The model is the original's (see :class:`~noumena.density.model.VAE` with the fixed scale, and the architecture
    ``original`` of :class:`~noumena.density.flow.Flow`), on the rows it was trained on: next observation and action,
    as they are, divided in time order.

    Args:
        path: the YAML file. Interpolations (``${...}``) are not resolved, and nothing is constructed by it.

    Raises:
        ConfigError: it cannot be read, a key is unknown (with the nearest known one), a value is of a wrong type or
            out of range, or it describes another model.
    """
    where = str(path)
    found = _flat(_yaml(Path(path).expanduser()), where)
    said = {key.names[0]: _value(key, *spelt, where) for key in _KEYS if (spelt := _spelt(key, found, where))}
    kind = _kind(said, found, where)
    for key in _KEYS:
        if key.only not in (None, kind) and key.names[0] in said:
            raise ConfigError(f"{where}: '{key.names[0]}' is no key of {kind}. Remove it.")
    values = {**_SHARED, **_DEFAULTS[kind], **said}
    notes = (*_notes(kind, values, said), *_ignored(found, where))
    lines = [f"{kind} of {Path(path).name} (GORMPO)", *(f"- {note}" for note in notes)]
    model = _vae(values, where) if kind == "vae" else _flow(values)
    return {"description": "\n".join(lines), "model": model, "data": _data(values), "fit": _fit(values)}


# The file


def _yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(f"{path}: has more than {_LARGEST_FILE:,} bytes and is no configuration of GORMPO.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}.") from error
    try:
        # Files dumped from Python mark tuples, which safe loading has no word for: they are lists.
        plain = re.sub(r"!!python/tuple\b", "", text)
        found = OmegaConf.to_container(OmegaConf.create(plain), resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a mapping of keys such as latent_dim, got a {type(found).__name__}.")
    return {str(key): value for key, value in found.items()}


def _flat(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keys without their sections; a section that names a model says which it is."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inside: Mapping[Any, Any] = {key: value}
        if isinstance(value, Mapping):
            if key not in _SECTIONS:
                raise ConfigError(f"{where}: unknown section '{key}'. {did_you_mean(key, _SECTIONS)}")
            inside = cast("Mapping[Any, Any]", value)
            if key in _MODELS:
                inside = {**inside, "model_type": key}
        for name, item in inside.items():
            if found.get(str(name), item) != item:
                raise ConfigError(f"{where}: '{name}' is said twice, as {found[str(name)]} and {item}. Keep one.")
            found[str(name)] = item
    known = [name for key in _KEYS for name in key.names]
    for key in found:
        for other, keys in _OTHERS.items():
            if key in keys:
                _refuse_other(other, f"'{key}' is a key of {other}", where)
        if key not in (*known, *_DIMS, *_IGNORED):
            raise ConfigError(f"{where}: unknown key '{key}'. {did_you_mean(key, [*known, *_DIMS, *_IGNORED])}")
    return found


def _refuse_other(other: str, why: str, where: str) -> None:
    raise ConfigError(
        f"{where}: {why}, which is not offered; configurations of its VAE and RealNVP are taken over. Train "
        f"{_INSTEAD[other]} in its place; `noumena recipes` lists recipes."
    )


def _spelt(key: _Key, found: Mapping[str, Any], where: str) -> tuple[str, Any] | None:
    """The spelling of a key in the file and its value; null is as good as nothing."""
    there = [name for name in key.names if found.get(name) is not None]
    if len(there) > 1:
        raise ConfigError(f"{where}: '{there[0]}' and '{there[1]}' say the same. Keep one.")
    return (there[0], found[there[0]]) if there else None


def _value(key: _Key, name: str, value: Any, where: str) -> Any:
    """The value if it is of the key's kind and in its range."""
    if key.kind == "text":
        fits = isinstance(value, str) and bool(value.strip())
        numbers: list[Any] = []
    else:
        several = key.kind == "widths"
        numbers = cast("list[Any]", value) if several and isinstance(value, list) else [value]
        fits = several == isinstance(value, list) and bool(numbers)
        fits = fits and all(_is_number(item, whole=key.kind != "number") for item in numbers)
    if not fits:
        raise ConfigError(f"{where}: '{name}': expected {_WORDS[key.kind]}, got {value!r} ({type(value).__name__}).")
    if numbers and min(numbers) < key.least:
        raise ConfigError(f"{where}: '{name}': expected at least {key.least:g}, got {value}.")
    return value


def _is_number(value: Any, *, whole: bool) -> bool:
    """Neither true for 1, nor infinity for a number."""
    kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return kind and abs(value) <= sys.float_info.max


def _kind(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> Model:
    """Which model it is: by its name, else by the keys that one of them alone has."""
    if (name := said.get("model_type")) is not None:
        plain = str(name).lower().replace("-", "").replace("_", "")
        for other in _OTHERS:
            if other.lower() in plain:
                _refuse_other(other, f"'{name}' is a {other}", where)
        if plain not in _MODELS:
            raise ConfigError(f"{where}: unknown model '{name}'. {did_you_mean(plain, _MODELS)}")
        return _MODELS[plain]
    has: list[Model] = sorted({key.only for key in _KEYS if key.only is not None and key.names[0] in said})
    if len(has) == 1:
        return has[0]
    why = "It has keys of both" if has else f"None of its keys ({', '.join(list(found)[:5])}) tells"
    raise ConfigError(
        f"{where}: is it a VAE (latent_dim, beta) or a RealNVP (num_layers)? {why}. Add model_type: vae, or realnvp."
    )


# Sections of the recipe


def _vae(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    latent = values.get("latent_dim", _LATENT.get(_task(values)))
    if latent is None:
        raise ConfigError(
            f"{where}: latent_dim is missing, and the task tells none. The published files have 8 for hopper, 10 for "
            "halfcheetah and walker2d."
        )
    return {
        "name": "density/vae",
        "hidden_dims": values["hidden_dims"],
        "latent_dim": latent,
        "beta": float(values["beta"]),
        "decoder_scale": "fixed",
        "scoring": "reconstruction",
        "standardize": False,
    }


def _flow(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "density/flow",
        "architecture": "original",
        "transforms": values["num_layers"],
        "hidden_dims": values["hidden_dims"],
        "standardize": False,
        "dequantise": False,
    }


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "episodes",
        **({"path": values["data_path"]} if "data_path" in values else {}),
        "row": "next_observation+action",
        "split": "time",
        "val_fraction": float(values["val_ratio"]),
        "test_fraction": float(values["test_ratio"]),
        "seed": values["seed"],
    }


def _fit(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "max_epochs": values["epochs"],
        "batch_size": values["batch_size"],
        "lr": float(values["lr"]),
        "lr_schedule": "plateau",
        "lr_factor": 0.5,
        "lr_patience": values["patience"] // 2,
        "patience": values["patience"],
        "seed": values["seed"],
    }


def _task(values: Mapping[str, Any]) -> str:
    """``hopper`` of ``hopper-medium-v2``."""
    return re.split(r"[-_]", str(values.get("task", "")).lower())[0]


# Notes


def _notes(kind: Model, values: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """What is done otherwise than in the original, and what a user should know of what is not."""
    notes = [
        "data.split=time, as in the original: validation and test are the last rows, which in mixed data come from "
        "another policy than the first, and so does the threshold. data.split=trajectory is better.",
        "the rows are not standardised and the model is the original's; noumena fit density/hopper is a better one.",
        "half of the validation rows choose the weights, the best of which are restored, and the other half sets the "
        "threshold; the original used all of them for both and kept the last weights.",
    ]
    if kind == "vae":
        notes.append(
            "scores are those of the posterior mean, and validation losses draw the same latents in every epoch; the "
            "original drew new ones each time."
        )
        if "latent_dim" not in said:
            notes.append("latent_dim is that of the published file for the task.")
    else:
        notes.append(
            "training stops, and the learning rate falls, when the validation loss rises; in the original they did so "
            "when it fell. Nor is 0.001 added to the rows in training, which was absent when scoring."
        )
    path = said.get("data_path")
    if path is None:
        task = f"'{said['task']}' " if "task" in said else "its data "
        notes.append(f"the original took {task}from d4rl; data.path=FILE names a D4RL or Minari file.")
    elif str(path).lower().endswith((".pkl", ".pickle")):
        notes.append(
            f"{path} is a pickle, which can run code when it is opened and is not read: save its arrays "
            "(observations, actions, next_observations, terminals) as .npz and name that by data.path=FILE."
        )
    if "seed" not in said:
        notes.append(f"seed={values['seed']}, the default of the original's command line.")
    return notes


def _ignored(found: Mapping[str, Any], where: str) -> list[str]:
    """A sentence for each key without effect."""
    notes = [f"{key}={found[key]} has no effect: {why}." for key, why in _IGNORED.items() if key in found]
    sizes = {key: _size(key, found[key], where) for key in _DIMS if found.get(key) is not None}
    if len(sizes) == len(_DIMS) and sizes["obs_dim"] + sizes["action_dim"] != sizes["input_dim"]:
        raise ConfigError(
            f"{where}: input_dim={sizes['input_dim']} is not obs_dim={sizes['obs_dim']} plus "
            f"action_dim={sizes['action_dim']}. Correct or remove them; sizes are read from the data."
        )
    return notes + [f"{key}={size} has no effect: sizes are read from the data." for key, size in sizes.items()]


def _size(key: str, value: Any, where: str) -> int:
    """One positive integer, however many brackets are around it: 11, [[11]], or the text ``((11,),)``."""
    match = re.fullmatch(r"[\s\[\](),]*([0-9]{1,9})[\s\[\](),]*", str(value)[:100])
    if match is None or int(match[1]) < 1:
        raise ConfigError(f"{where}: '{key}': expected one positive integer, got {value!r}. Remove it.")
    return int(match[1])
