"""Models trained with the code of GORMPO (Tumay et al., arXiv 2605.24405), as models of this library."""

import hashlib
import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.density.detector import Detector
from noumena.density.flow import Flow
from noumena.density.gormpo.files import SavedFiles, find_files, read_metadata, read_tensors
from noumena.density.model import VAE
from noumena.readers.checks import column_names

log = logging.getLogger("noumena")

_MOST_SHOWN = 5
# What the metadata may say, in the original's words; sizes have to agree with the tensors.
_SIZES = ("input_dim", "latent_dim", "hidden_dims", "num_layers")
_SCORES = {"mean": "score_mean", "std": "score_std", "threshold": "threshold"}
_CANDIDATES = "threshold_candidates"
_IGNORED = ("device",)
_KINDS = {"encoder.fc_mu.weight": "vae", "coupling_layers.0.mask": "realnvp"}


def import_gormpo(path: str | Path, *, actions: int | None = None) -> Detector:
    """A model with the weights of a VAE or RealNVP of GORMPO, which computes what the original does.

    Sizes are those of the tensors. The threshold is taken over, and what else the metadata say of scores (mean and
    standard deviation of those of the training rows, other thresholds) stands in ``model.schema["gormpo"]``. Nothing
    calibrates the model: ``model.calibrate(rows)`` gives p-values and a threshold of its own.

    The score of a VAE is deterministic here: minus the squared error of the decoded posterior mean. The original drew
    from the posterior, so that its scores, and the threshold made of them, are lower.

    Args:
        path: ``BASE``, where ``BASE_model.pth`` and ``BASE_meta_data.pkl`` are the files, one of the two, or a folder
            with one such pair. The former is read as weights alone, the latter without unpickling it, see
            :func:`~noumena.density.gormpo.pickled.read_plain_pickle`.
        actions: how many of a row's columns, the last ones, are the action, the others being the next observation; a
            file of episodes can then be scored as it is (3 of Hopper, 6 of HalfCheetah and Walker2d). Default: rows are
            those of a table.

    Returns:
        :class:`~noumena.density.model.VAE` or :class:`~noumena.density.flow.Flow`, in evaluation mode.

    Raises:
        ArtifactError: there is no such file, it is damaged, names code, or its parts contradict each other.
        ConfigError: ``actions`` is not a number of columns less than those of a row.
        NotSupportedError: a model of another family (KDE, NeuralODE, diffusion).
    """
    files = find_files(Path(path).expanduser())
    tensors = read_tensors(files.weights)
    metadata = read_metadata(files.metadata)
    model = _MODELS[_kind(files.weights, tensors)](files.weights, tensors)
    _check_sizes(files, metadata, model)
    facts = _scores(files.metadata, metadata)
    if "threshold" in facts:
        model.threshold.fill_(facts["threshold"])
    _tell(files, model, metadata, facts)
    model.schema = {**_layout(model, actions), "gormpo": {"name": files.name, **facts}}
    # Says that there is nothing to prepare before further training.
    model.data_fingerprint = _fingerprint(tensors)
    return model.eval()


# Networks


def _kind(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """By what the tensors are called, never by the path."""
    for name, kind in _KINDS.items():
        if name in tensors:
            return kind
    raise NotSupportedError(
        f"{path}: VAE (encoder.fc_mu...) and RealNVP (coupling_layers...) are taken over; this has "
        f"{', '.join(list(tensors)[:3])}, ... and is perhaps a NeuralODE or a diffusion model. Train a flow in its "
        "place: noumena fit density/hopper-nsf data.path=FILE"
    )


def _vae(path: Path, tensors: Mapping[str, Tensor]) -> VAE:
    """The VAE of these weights: squared error, rows as they are."""
    layers = _layers(tensors, r"encoder\.encoder\.(\d+)\.weight")
    widths = [len(_matrix(path, tensors, f"encoder.encoder.{number}.weight")) for number in layers]
    columns = _matrix(path, tensors, "encoder.encoder.0.weight").shape[1]
    latent = len(_matrix(path, tensors, "encoder.fc_mu.weight"))
    _check_shapes(path, tensors, _vae_shapes(columns, widths, latent))
    model = VAE(
        input_dim=columns,
        hidden_dims=widths,
        latent_dim=latent,
        decoder_scale="fixed",
        standardize=False,
        scoring="reconstruction",
    )
    parts = ("weight", "bias")
    state = {f"encoder.trunk.{i}.{part}": tensors[f"encoder.encoder.{i}.{part}"] for i in layers for part in parts}
    state |= {
        f"decoder.net.{2 * i}.{part}": tensors[f"decoder.decoder.{2 * i}.{part}"]
        for i in range(len(widths) + 1)
        for part in parts
    }
    # Mean and log-variance come from one layer here.
    state |= {
        f"encoder.head.{part}": torch.cat([tensors[f"encoder.fc_mu.{part}"], tensors[f"encoder.fc_logvar.{part}"]])
        for part in parts
    }
    model.load_state_dict({**model.state_dict(), **state})
    return model


def _vae_shapes(columns: int, widths: list[int], latent: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of the original's VAE."""
    encoder, decoder = [columns, *widths], [latent, *widths[::-1], columns]
    sizes = {f"encoder.encoder.{2 * i}": (encoder[i + 1], encoder[i]) for i in range(len(widths))}
    sizes |= dict.fromkeys(("encoder.fc_mu", "encoder.fc_logvar"), (latent, encoder[-1]))
    sizes |= {f"decoder.decoder.{2 * i}": (decoder[i + 1], decoder[i]) for i in range(len(decoder) - 1)}
    return {f"{layer}.weight": size for layer, size in sizes.items()} | {
        f"{layer}.bias": size[:1] for layer, size in sizes.items()
    }


def _flow(path: Path, tensors: Mapping[str, Tensor]) -> Flow:
    """The RealNVP of these weights, rows as they are."""
    for number in _layers(tensors, r"coupling_layers\.(\d+)\.mask"):
        mask = tensors[f"coupling_layers.{number}.mask"]
        given = _matrix(path, tensors, f"coupling_layers.{number}.scale_net.network.0.weight").shape[1]
        if mask.ndim != 1 or not bool(((mask == 0) | (mask == 1)).all()) or int(mask.sum()) != given:
            raise ArtifactError(
                f"{path}: 'coupling_layers.{number}.mask' is no row of zeros and {given} ones, as its network takes. "
                "Get a fresh copy."
            )
    try:
        model = Flow(**Flow.original_sizes(tensors), dequantise=False)
        model.load_original(tensors)
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{path}: {' '.join(str(error).split())}") from error
    if bool((tensors["prior_std"] <= 0.0).any()):
        raise ArtifactError(f"{path}: 'prior_std' is not above 0 throughout. Get a fresh copy.")
    return model


_MODELS: Mapping[str, Callable[[Path, Mapping[str, Tensor]], Detector]] = {"vae": _vae, "realnvp": _flow}


def _layers(tensors: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Numbers of layers by the names of their tensors."""
    return sorted(int(match[1]) for name in tensors if (match := re.fullmatch(pattern, name)) and len(match[1]) < 5)


def _matrix(path: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != 2 or not all(tensor.shape):
        found = "it is missing" if tensor is None else f"its shape is {tuple(tensor.shape)}"
        raise ArtifactError(f"{path}: expected a matrix '{name}'; {found}. Get a fresh copy.")
    return tensor


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing, further = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or further:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{further[0]}' is unknown"
        raise ArtifactError(
            f"{path}: {wrong}. The VAE of GORMPO is taken over, whose decoder mirrors its encoder; not a variant of it."
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ArtifactError(
                f"{path}: '{name}' has shape {tuple(tensors[name].shape)}, the other tensors say {shape}. "
                "Get a fresh copy."
            )


# Metadata


def _check_sizes(files: SavedFiles, metadata: Mapping[str, Any], model: Detector) -> None:
    """What the metadata say of sizes has to be what there is."""
    for name in _SIZES:
        actual = getattr(model, "transforms" if name == "num_layers" else name, None)
        said = metadata.get(name)
        if said is None or actual is None:
            continue
        # Lists and arrays of sizes alike.
        agrees = isinstance(said, list | tuple | np.ndarray) and list(cast("list[Any]", said)) == list(actual)
        if not (agrees if isinstance(actual, tuple) else said == actual):
            raise ArtifactError(
                f"{files.metadata}: says {name}={_brief(said)}, the tensors of {files.weights.name} have {actual}. It "
                "belongs to other weights."
            )


def _scores(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata say of scores, by this library's names; what is not finite is left out with a warning."""
    found: dict[str, Any] = {}
    for theirs, ours in _SCORES.items():
        if metadata.get(theirs) is not None:
            found[ours] = _number(path, theirs, metadata[theirs])
    candidates = metadata.get(_CANDIDATES)
    if candidates is not None:
        if not isinstance(candidates, dict):
            raise ArtifactError(f"{path}: '{_CANDIDATES}': expected a dictionary, found {_brief(candidates)}.")
        percents = cast("dict[Any, Any]", candidates)
        # JSON knows keys of text alone.
        found[_CANDIDATES] = {
            f"{_number(path, _CANDIDATES, percent):g}": _number(path, _CANDIDATES, score)
            for percent, score in percents.items()
        }
    for name in [name for name, value in found.items() if isinstance(value, float) and not math.isfinite(value)]:
        log.warning("%s: '%s' is %s and is not taken over.", path, name, found.pop(name))
    return found


def _number(path: Path, name: str, value: Any) -> float:
    plain: Any = value.item() if isinstance(value, np.generic | np.ndarray) and value.size == 1 else value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ArtifactError(f"{path}: '{name}': expected a number, found {_brief(value)}.")
    return float(plain)


def _brief(value: Any) -> str:
    """A value of a file, for messages, whatever it is."""
    sizes = isinstance(value, list | tuple) and all(isinstance(part, int) for part in cast("list[Any]", value))
    return str(value)[:60] if sizes or isinstance(value, int | float | np.number) else f"a {type(value).__name__}"


def _tell(files: SavedFiles, model: Detector, metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """What a user has to know of the model that it cannot tell by itself."""
    known = (*_SIZES, *_SCORES, _CANDIDATES, *_IGNORED)
    if further := [name for name in metadata if name not in known]:
        log.warning("%s: not taken over: %s.", files.metadata, ", ".join(map(ascii, further[:_MOST_SHOWN])))
    if "threshold" in facts and isinstance(model, VAE):
        log.warning(
            "%s: the threshold %.4g was made of scores with a latent drawn at random; here they are deterministic and "
            "higher, so that it raises fewer alarms. model.calibrate(rows) sets one that keeps a rate of them.",
            files.metadata,
            facts["threshold"],
        )
    elif metadata and "threshold" not in facts:
        log.warning("%s: has no threshold. model.calibrate(rows) sets one.", files.metadata)


def _layout(model: Detector, actions: int | None) -> dict[str, Any]:
    """How the rows of files are made, in the words of the readers."""
    columns = model.input_dim
    assert columns is not None
    if actions is None:
        return {"kind": "table", "columns": list(column_names("x", columns))}
    if not 1 <= actions < columns:
        raise ConfigError(f"actions: expected 1 to {columns - 1} of the {columns} columns of a row, got {actions}.")
    names = (*column_names("next_obs", columns - actions), *column_names("action", actions))
    return {"kind": "episodes", "row": "next_observation+action", "columns": list(names)}


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return f"gormpo:{digest.hexdigest()}"
