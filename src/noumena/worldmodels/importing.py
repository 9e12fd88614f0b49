"""Models trained with the code of the study of moving dots (Sobal et al. 2022), as models of this library."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, did_you_mean
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.migration.checkpoint import Checkpoint, read_checkpoint
from noumena.worldmodels.migration.sections import IMAGES, data_section, jepa_section
from noumena.worldmodels.migration.settings import StudyConfig, read_study_config

log = logging.getLogger("noumena")

Inputs = Literal["dots", "normalised"]

FRAME_SIZE = 28
# Actions were divided by this: 0.4102 of the longest step, 4 px.
ACTION_SCALE = 0.4102 * 4.0
# Sequences whose pixels stand for the 100 batches that the study took mean and deviation from.
_STATISTICS_SEQUENCES = 1024
_STATISTICS = ("pixels.", "action_scale.", "background", "drift", "quantile")
_SIZES = ("width", "latent_dim", "backbone_mlp", "projector", "predictor", "predictor_layers")


def import_jepa_ssl(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    inputs: Inputs | None = None,
    images: str = IMAGES,
) -> JEPA:
    """A model with the weights of a checkpoint of JEPA_SSL_NeurIPS_2022, which computes what the original does.

    VICReg, SimCLR and IDM are taken over, trained or not. The head that reads actions comes along where the
    configuration gives it a weight; the optimiser's state does not. The original normalised frames and actions outside
    of its models, by statistics that are not in its checkpoints.

    Args:
        checkpoint: the .ckpt file. Nothing but tensors and plain values is unpickled; the name of a function in the
            optimiser's state is replaced, not imported.
        config: the YAML file of the training. Default: that of the same name beside the checkpoint, else config.yaml
            there. Without one the sizes are those of the tensors, and the weights of the objective this library's.
        inputs: what the model is to take. ``dots``, the default where there is a configuration: frames and actions in
            the units of this library's dots, standardised by their statistics under the configuration's noise, and
            three dots as one of them was. ``normalised``, the default without: as the original's networks take them.
        images: what structured noise is made of, for ``inputs="dots"``; see
            :func:`noumena.worldmodels.dots.data.open_dots`.

    Returns:
        The model, in evaluation mode.

    Raises:
        ArtifactError: the file is no such checkpoint, is damaged, names other code, or contradicts the configuration.
        ConfigError: the configuration cannot be read, or has no counterpart here; or ``dots`` without one.
        NotSupportedError: the checkpoint of an RSSM.
    """
    if inputs not in (None, *get_args(Inputs)):
        raise ConfigError(f"inputs: unknown '{inputs}'. {did_you_mean(str(inputs), get_args(Inputs))}")
    path = Path(checkpoint).expanduser()
    where = _config_file(path, config)
    settings = None if where is None else read_study_config(where)
    if settings is not None and settings.model_type == "RSSM":
        raise NotSupportedError(
            f"{path}: checkpoints of VICReg, SimCLR and IDM are taken over, not of RSSM. Train it again: noumena fit "
            "worldmodels/dots --study-config FILE.yaml"
        )
    if inputs == "dots" and settings is None:
        raise ConfigError(f"inputs: 'dots' needs the configuration of the training, and none is beside {path}.")
    found = read_checkpoint(path)
    model = JEPA(**_hyperparameters(found, settings, path, where))
    _load(model, found)
    model.data_fingerprint = _fingerprint(found.tensors)
    if settings is None or inputs == "normalised":
        model.schema = _normalised_schema(model, settings)
        log.warning(
            "%s: the model takes frames and actions as the original normalised them, since %s.",
            path,
            "no configuration tells what noise they had" if settings is None else "inputs are 'normalised'",
        )
    else:
        _take_dots(model, settings, str(where), images)
    return model.eval()


def _config_file(checkpoint: Path, given: str | Path | None) -> Path | None:
    if given is not None:
        return Path(given).expanduser()
    candidates = [checkpoint.with_suffix(ending) for ending in (".yaml", ".yml")] + [checkpoint.parent / "config.yaml"]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _hyperparameters(found: Checkpoint, settings: StudyConfig | None, path: Path, where: Path | None) -> dict[str, Any]:
    """Those of the configuration, which has to agree with the tensors; else the sizes of these."""
    sizes = found.sizes()
    shape = {"frame": (found.channels, FRAME_SIZE, FRAME_SIZE), "action_dim": found.action_dim}
    if settings is None:
        return {**shape, **sizes}
    model = jepa_section(settings, str(where))
    del model["name"]
    if model["encoder"] != "menet5":
        raise NotSupportedError(f"{path}: encoders menet5 are taken over, not {model['encoder']}.")
    for name in _SIZES:
        if name in sizes and model[name] != sizes[name]:
            raise ArtifactError(
                f"{path}: {where} says {name}={model[name]}, the tensors have {sizes[name]}. It is the configuration "
                "of another checkpoint."
            )
    return {**shape, **model}


def _load(model: JEPA, found: Checkpoint) -> None:
    """The weights; what a checkpoint does not hold, statistics of the data, stays as it is."""
    theirs, state = found.networks(with_inverse=model.idm > 0.0), model.state_dict()
    missing = [name for name in state if name not in theirs and not name.startswith(_STATISTICS)]
    if missing:
        raise ArtifactError(f"{found.path}: has no tensor for '{missing[0]}', which its configuration asks for.")
    try:
        model.load_state_dict({**state, **theirs})
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise ArtifactError(f"{found.path}: shapes that contradict each other. {lines}") from error


def _normalised_schema(model: JEPA, settings: StudyConfig | None) -> dict[str, Any]:
    """Sequences of no known world: whatever has the shapes."""
    assert model.frame is not None
    steps = StudyConfig(model_type="VICReg").n_steps if settings is None else settings.n_steps
    return {
        "kind": "episodes",
        "frame": list(model.frame),
        "steps": steps,
        "actions": ["dx", "dy"],
        "state": [],
        "state_dims": 2,
        "state_unit": "",
    }


def _take_dots(model: JEPA, settings: StudyConfig, where: str, images: str) -> None:
    """Make the model take frames in units of the dot's peak and actions in pixels."""
    data: dict[str, Any] = {
        **data_section(settings, where, settings.dataset_batch_size),
        "sequences": _STATISTICS_SEQUENCES,
    }
    del data["kind"]
    if "images" in data:
        data["images"] = images
    model.schema = dict(open_dots(**data).train.schema)
    dots = len(model.schema["state"])
    # The study normalised each dot's picture by itself before it summed them.
    data["channels"], channels = dots, data["channels"]
    pictures = open_dots(**data).train
    frames = pictures.batch(torch.arange(_STATISTICS_SEQUENCES)).frames
    mean, scale = frames.mean((0, 1, 3, 4)), frames.flatten(3).std((0, 1, 3), correction=0)
    if channels < dots:
        mean, scale = mean.sum(0, keepdim=True), scale.mean(0, keepdim=True)
    model.pixels.mean.copy_(mean)
    model.pixels.scale.copy_(scale)
    model.action_scale.scale.fill_(ACTION_SCALE)


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return f"jepa-ssl:{digest.hexdigest()}"
