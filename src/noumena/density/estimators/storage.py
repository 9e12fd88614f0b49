"""Estimators as folders: ``estimator.json`` beside the artifacts of their models. Reading one executes nothing."""

import inspect
import json
import math
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from noumena.core.errors import ArtifactError, ConfigError
from noumena.density.estimators.base import DensityEstimator

_FILE = "estimator.json"
_FORMAT = 1
_SINGLE = {"VAEDetector": "vae", "FlowDetector": "flow", "GMMDetector": "gmm", "KNNDetector": "knn"}
"""Estimators that may be parameters of another one, by name, with the module of each."""

E = TypeVar("E", bound=DensityEstimator)


def save(estimator: DensityEstimator, folder: Path, *, overwrite: bool) -> None:
    """See :meth:`DensityEstimator.save`."""
    parameters = _plain("", estimator)["parameters"]
    if folder.exists():
        if not overwrite:
            raise ArtifactError(f"{folder} exists already. Choose another folder, or pass overwrite=True.")
        if not (folder / _FILE).is_file():
            raise ArtifactError(f"{folder} holds no estimator, so it is not overwritten. Choose another folder.")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        names = getattr(estimator, "feature_names_in_", None)
        content = {
            "format": _FORMAT,
            "estimator": type(estimator).__name__,
            "parameters": parameters,
            "n_features_in": estimator.n_features_in_,
            "feature_names_in": None if names is None else [str(name) for name in names],
            "offset": estimator.offset_,
            "state": estimator._write_state(folder),
        }
        # Last, so that a folder with this file is whole.
        (folder / _FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror}. Choose another folder.") from error


def load(kind: type[E], folder: Path) -> E:
    """See :meth:`DensityEstimator.load`."""
    content = _read(folder / _FILE)
    where = f"{folder / _FILE}"
    if content.get("format") != _FORMAT:
        raise ArtifactError(f"{where}: expected format {_FORMAT}, found {content.get('format')!r}. Update noumena.")
    if content.get("estimator") != kind.__name__:
        raise ArtifactError(
            f"{where} holds a {content.get('estimator')}, not a {kind.__name__}: call {content.get('estimator')}.load."
        )
    estimator = kind(**_parameters(kind, content.get("parameters"), where))
    estimator.n_features_in_ = _integer(content, "n_features_in", where)
    names = content.get("feature_names_in")
    if names is not None:
        if not isinstance(names, list) or len(cast(list[Any], names)) != estimator.n_features_in_:
            raise ArtifactError(f"{where}: 'feature_names_in' does not name {estimator.n_features_in_} columns.")
        estimator.feature_names_in_ = np.array([str(name) for name in cast(list[Any], names)], dtype=object)
    estimator.offset_ = finite_number(content, "offset", where)
    state = content.get("state")
    if not isinstance(state, dict):
        raise ArtifactError(f"{where}: 'state' is missing. Save the estimator again.")
    estimator._read_state(folder, cast(dict[str, Any], state))
    return estimator


def finite_number(content: Mapping[str, Any], key: str, where: str) -> float:
    """A finite number of a JSON object.

    Raises:
        ArtifactError: it is something else.
    """
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArtifactError(f"{where}: '{key}' is {value!r}, expected a finite number. Save the estimator again.")
    return float(value)


def _integer(content: Mapping[str, Any], key: str, where: str) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArtifactError(f"{where}: '{key}' is {value!r}, expected a positive integer. Save the estimator again.")
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{file.parent}: no {file.name} here. Give a folder that `save` wrote.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}. Save the estimator again.") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{file}: expected a JSON object. Save the estimator again.")
    return cast(dict[str, Any], content)


def _parameters(kind: type[DensityEstimator], found: Any, where: str) -> dict[str, Any]:
    """Keyword arguments of ``kind`` from JSON: lists become the tuples they were."""
    known = inspect.signature(kind).parameters
    if not isinstance(found, dict):
        raise ArtifactError(f"{where}: 'parameters' is missing. Save the estimator again.")
    values = cast(dict[str, Any], found)
    if unknown := sorted(set(values) - set(known)):
        raise ArtifactError(f"{where}: {kind.__name__} has no parameter '{unknown[0]}'. Update noumena.")
    return {name: _revived(value, where) for name, value in values.items()}


def _plain(name: str, value: Any) -> Any:
    """A parameter as JSON holds it."""
    if isinstance(value, DensityEstimator):
        parameters = value.get_params(deep=False)
        return {
            "estimator": type(value).__name__,
            "parameters": {key: _plain(key, parameter) for key, parameter in parameters.items()},
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_plain(name, part) for part in cast(tuple[Any, ...], value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ConfigError(
        f"{name}: a {type(value).__name__} cannot be written. Set a plain value, e.g. random_state=0, and fit."
    )


def _revived(value: Any, where: str) -> Any:
    """The reverse of :func:`_plain`; of estimators only the family's own, by name."""
    if isinstance(value, list):
        return tuple(_revived(part, where) for part in cast(list[Any], value))
    if not isinstance(value, dict):
        return value
    content = cast(dict[str, Any], value)
    name = content.get("estimator")
    if name not in _SINGLE:
        raise ArtifactError(f"{where}: no estimator is called {name!r}. Save the estimator again.")
    kind = getattr(import_module(f"noumena.density.estimators.{_SINGLE[name]}"), name)
    return kind(**_parameters(kind, content.get("parameters"), where))
