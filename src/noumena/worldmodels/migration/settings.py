"""Configuration files of the study of moving dots (Sobal et al. 2022, arXiv 2211.10831): keys, types and defaults."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from noumena.core.errors import ConfigError, did_you_mean

MODEL_TYPES = ("VICReg", "SimCLR", "RSSM")
_LARGEST_FILE = 1 << 20  # bytes; the published ones have 2,000
_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class VICRegSettings:
    """The ``vicreg`` section, as the study's code knows it."""

    projector: str = "512-512-512"
    random_projector: bool = False
    predictor: str = "515-512-512"
    backbone_mlp: str | None = None
    sim_coeff: float = 25.0
    std_coeff: float = 25.0
    cov_coeff: float = 1.0
    encoding_std_coeff: float = 0.0
    encoding_cov_coeff: float = 0.0
    decoding_coeff: float = 0.0
    action_coeff: float = 0.0
    prediction_diff_coeff: float = 0.0
    arch: str = "resnet18"
    epochs: int = 100
    base_lr: float = 0.2
    repr_loss_after_projector: bool = True
    skip_first_step_vc: bool = False
    embedding_size: int = 64
    action_dim: int = 2
    rnn_layers: int = 1
    backbone_width_factor: int = 1
    rnn_burnin: int = 1
    channels: int = 1


@dataclass(frozen=True, kw_only=True)
class SimCLRSettings:
    """The ``simclr`` section."""

    projector: str = "512-512-512"
    random_projector: bool = False
    predictor: str = "rnn"
    backbone_mlp: str | None = None
    epochs: int = 100
    base_lr: float = 0.2
    decoding_coeff: float = 0.0
    action_coeff: float = 0.0
    arch: str = "menet5"
    embedding_size: int = 64
    action_dim: int = 2
    rnn_layers: int = 1
    rnn_burnin: int = 1
    backbone_width_factor: int = 1
    normalize_z: bool = False
    loss_temp: float = 1.0
    channels: int = 1


@dataclass(frozen=True, kw_only=True)
class RSSMSettings:
    """The ``rssm`` section."""

    backbone_width_factor: int = 1
    action_coeff: float = 0.0
    arch: str = "resnet18"
    epochs: int = 100
    learning_rate: float = 1e-3
    embedding_size: int = 64
    action_dim: int = 2
    min_var: float = 0.1
    rssm_adam_epsilon: float = 1e-8
    log_recontructed_image: bool = True
    channels: int = 1
    rnn_burnin: int = 1


@dataclass(frozen=True, kw_only=True)
class ProbingSettings:
    """The ``probing_cfg`` section.

    ``batch_size`` stands in 12 published files although the study's code has no such key and refuses them.
    """

    full_finetune: bool = False
    lr: float = 1e-3
    epochs: int = 3
    epochs_enc: int = 3
    schedule: str | None = None
    prober_arch: str = ""
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A whole file. ``model_type`` has no default; everything else is as in the study's code."""

    model_type: str
    n_steps: int = 17
    val_n_steps: int = 17
    dataset_size: int = 10_000
    dataset_noise: float = 0.0
    val_dataset_size: int = 10_000
    wandb: bool = True
    run_name: str | None = None
    run_group: str | None = None
    output_path: str | None = None
    safe_every_n_epochs: int = 10
    eval_mpcs: int = 20
    quick_debug: bool = False
    seed: int = 42
    load_checkpoint_path: str | None = None
    eval_only: bool = False
    probe_mpc: bool = False
    dataset_static_noise: float = 0.0
    dataset_structured_noise: bool = False
    dataset_structured_noise_path: str | None = None
    dataset_batch_size: int = 128
    dataset_static_noise_speed: float = 0.0
    dataset_dot_std: float = 1.3
    dataset_normalize: bool = False
    eval_at_the_end_only: bool = False
    dataset_type: str = "Single"
    vicreg: VICRegSettings = field(default_factory=VICRegSettings)
    rssm: RSSMSettings = field(default_factory=RSSMSettings)
    simclr: SimCLRSettings = field(default_factory=SimCLRSettings)
    probing_cfg: ProbingSettings = field(default_factory=ProbingSettings)


def read_study_config(path: str | Path) -> StudyConfig:
    """A configuration file of the study.

    Args:
        path: the YAML file. Interpolations (``${...}``) are not resolved.

    Raises:
        ConfigError: no such file, no YAML, an unknown key (with the nearest known one) or a value of a wrong type.
    """
    return study_config(_yaml(Path(path).expanduser()), str(path))


def study_config(values: Mapping[str, Any], where: str) -> StudyConfig:
    """The settings of a parsed file; ``where`` is its name in messages.

    Raises:
        ConfigError: see :func:`read_study_config`.
    """
    found = _settings(StudyConfig, values, where, "")
    if found.model_type not in MODEL_TYPES:
        raise ConfigError(
            f"{where}: unknown model_type '{found.model_type}'. {did_you_mean(found.model_type, MODEL_TYPES)}"
        )
    return found


def _yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(f"{path}: has more than {_LARGEST_FILE:,} bytes and is no configuration of the study.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}.") from error
    try:
        found = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a mapping of keys such as model_type, got a {type(found).__name__}.")
    return {str(key): value for key, value in found.items()}


_T = TypeVar("_T")


def _settings(cls: type[_T], values: Mapping[str, Any], where: str, section: str) -> _T:
    """``values`` as an instance of the dataclass ``cls``, whose annotations say what they may be."""
    kinds = get_type_hints(cls)
    known = {item.name: item for item in fields(cast("Any", cls))}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{section}{key}'. {did_you_mean(key, known)}")
    for key, item in known.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{where}: '{section}{key}' is missing; it is one of {', '.join(MODEL_TYPES)}.")
    return cls(**{key: _value(kinds[key], value, where, f"{section}{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str, key: str) -> Any:
    """``value`` if it is of the annotated kind: whole numbers are numbers too, and numbers may stand for text."""
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: '{key}': expected a section of keys, got {value!r}.")
        section = {str(name): item for name, item in cast("Mapping[Any, Any]", value).items()}
        return _settings(cast("type[Any]", kind), section, where, f"{key}.")
    optional = kind in (str | None, int | None)
    if value is None and optional:
        return None
    wanted: type = get_args(kind)[0] if optional else kind
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if wanted is str and number:  # backbone_mlp: 512
        return str(value)
    if wanted is float and number:
        return float(cast("float", value))
    # Neither true for 1, nor infinity for a number.
    if not isinstance(value, wanted) or (wanted in (int, float) and not number):
        words = _WORDS[wanted] + (" or null" if optional else "")
        raise ConfigError(f"{where}: '{key}': expected {words}, got {value!r} ({type(value).__name__}).")
    return value
