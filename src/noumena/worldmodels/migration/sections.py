"""Experiments of the study of moving dots as sections of a recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from noumena.core.errors import ConfigError
from noumena.worldmodels.migration.settings import (
    RSSMSettings,
    SimCLRSettings,
    StudyConfig,
    VICRegSettings,
    read_study_config,
)

Method = Literal["vicreg", "simclr", "idm", "rssm", "supervised", "random"]

IMAGES = "sample:patches"
_ENCODERS = ("menet5", "resnet18")
_RESNET_SIZE = 512
_PREDICTORS = {"rnn": "gru", "id": "none"}
_ARRANGEMENTS = {"Single": "single", "Multiple": "multiple"}
# The study's optimiser of VICReg, SimCLR and IDM: facts of its code that its files do not hold.
_LARS = {
    "optimizer": "lars",
    "weight_decay": 1e-6,
    "lr_schedule": "cosine",
    "warmup_epochs": 10,
    "lr_floor": 0.001,
    "schedule_start": 1,
}
_ADAM_EPSILON = 1e-8
_CLIP = 1000.0


@dataclass(frozen=True)
class Experiment:
    """What a file of the study asks for.

    Attributes:
        method: name of the method in the study.
        model, data, fit, evaluate: sections of a recipe.
        notes: sentences on what is done otherwise than in the study, and why.
    """

    method: Method
    model: dict[str, Any]
    data: dict[str, Any]
    fit: dict[str, Any]
    evaluate: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()

    def sections(self, source: str) -> dict[str, Any]:
        """The recipe; its description names the file ``source`` and holds the notes."""
        lines = [f"{self.method} of {source} (Sobal et al. 2022)", *(f"- {note}" for note in self.notes)]
        named = {name: getattr(self, name) for name in ("model", "data", "fit", "evaluate")}
        return {"description": "\n".join(lines), **named}


def recipe_sections(path: str | Path) -> dict[str, Any]:
    """The sections of a recipe that run what a configuration file of the study describes, with notes in words.

    Raises:
        ConfigError: the file cannot be read, or asks for what this library does not have.
    """
    return experiment(read_study_config(path), str(path)).sections(Path(path).name)


def experiment(config: StudyConfig, where: str) -> Experiment:
    """What a configuration of the study asks for; ``where`` is its name in messages.

    Raises:
        ConfigError: something of it has no counterpart here; the message names the key.
    """
    method = _method(config, where)
    if method == "rssm":
        model, fit = _rssm_section(config.rssm, where), _adam(config.rssm.learning_rate, config.rssm.epochs)
        fit["gradient_clip"] = _CLIP
    elif method in ("supervised", "random"):
        part = _part(config)
        model = {"name": f"worldmodels/{method}", **_networks(part, where, config)}
        if method == "random" and model.pop("backbone_mlp"):
            raise ConfigError(f"{where}: backbone_mlp: an untrained model has no layers behind the encoder. Remove it.")
        fit = _adam(config.probing_cfg.lr, config.probing_cfg.epochs if method == "supervised" else 1)
    else:
        part = _part(config)
        model = jepa_section(config, where)
        fit = {**_LARS, "lr": part.base_lr, "max_epochs": part.epochs, "schedule_epochs": part.epochs}
    batch = _batch_size(config, method)
    fit |= {"batch_size": batch, "keep": "last", "patience": None, "seed": config.seed}
    return Experiment(
        method, model, data_section(config, where, batch), fit, {"probe": "ridge"}, _notes(config, method)
    )


def jepa_section(config: StudyConfig, where: str) -> dict[str, Any]:
    """The ``model`` section of VICReg, SimCLR and IDM.

    Raises:
        ConfigError: an RSSM, or something without a counterpart.
    """
    part = _part(config)
    model = {"name": "worldmodels/jepa", **_networks(part, where, config), "projector": _projector(part, where, config)}
    model["idm"] = part.action_coeff
    _refuse_rest(part, where, config)
    if isinstance(part, SimCLRSettings):
        return {**model, "objective": "simclr", "temperature": part.loss_temp, "normalize": part.normalize_z}
    if part.sim_coeff == part.std_coeff == part.cov_coeff == 0.0:
        if part.action_coeff == 0.0:
            raise ConfigError(f"{where}: vicreg: every coefficient is 0, so that nothing would be trained.")
        return {**model, "objective": "idm"}
    return {
        **model,
        "objective": "vicreg",
        "sim": part.sim_coeff,
        "std": part.std_coeff,
        "cov": part.cov_coeff,
        "skip_first": part.skip_first_step_vc,
    }


def data_section(config: StudyConfig, where: str, batch: int) -> dict[str, Any]:
    """The ``data`` section: whole batches of ``batch`` sequences are an epoch.

    Raises:
        ConfigError: an unknown arrangement of dots, or a batch larger than an epoch.
    """
    if config.dataset_type not in _ARRANGEMENTS:
        raise ConfigError(f"{where}: dataset_type: expected Single or Multiple, got '{config.dataset_type}'.")
    if not config.dataset_normalize:
        raise ConfigError(
            f"{where}: dataset_normalize: models here always standardise frames, actions and positions; as the "
            "study's 144 configurations do. Set it to true."
        )
    if not 1 <= batch <= config.val_dataset_size:
        raise ConfigError(
            f"{where}: a batch of {batch} in an epoch of {config.val_dataset_size} (val_dataset_size) sequences: "
            "expected at least 1, and no more than an epoch has."
        )
    active = config.rssm if config.model_type == "RSSM" else _part(config)
    return {
        "kind": "dots",
        "dots": _ARRANGEMENTS[config.dataset_type],
        "channels": active.channels,
        "steps": config.n_steps,
        "noise": "structured" if config.dataset_structured_noise else "uniform",
        "fixed": config.dataset_static_noise,
        "changing": config.dataset_noise,
        "drift": config.dataset_static_noise_speed,
        **({"images": IMAGES} if config.dataset_structured_noise else {}),
        "sequences": config.val_dataset_size // batch * batch,
        "dot_std": config.dataset_dot_std,
        "seed": config.seed,
    }


def _method(config: StudyConfig, where: str) -> Method:
    probing = config.probing_cfg
    if config.load_checkpoint_path is not None:
        raise ConfigError(
            f"{where}: load_checkpoint_path: take the checkpoint over with `noumena import jepa-ssl` and evaluate the "
            "model that it makes, or set it to null."
        )
    if probing.prober_arch:
        raise ConfigError(f"{where}: probing_cfg.prober_arch: probes are linear; expected '', as published.")
    if config.eval_only and config.model_type == "RSSM":
        raise ConfigError(f"{where}: eval_only: an untrained or supervised RSSM is not offered; use VICReg or SimCLR.")
    if config.eval_only:
        return "supervised" if probing.full_finetune else "random"
    if probing.full_finetune:
        raise ConfigError(
            f"{where}: probing_cfg.full_finetune: training on positions after pre-training is not offered. Set "
            "eval_only to true for training on positions alone, or full_finetune to false."
        )
    if config.model_type == "RSSM":
        return "rssm"
    if config.model_type == "SimCLR":
        return "simclr"
    part = config.vicreg
    return "idm" if part.sim_coeff == part.std_coeff == part.cov_coeff == 0.0 else "vicreg"


def _part(config: StudyConfig) -> VICRegSettings | SimCLRSettings:
    if config.model_type == "RSSM":
        raise ConfigError("an RSSM is no joint-embedding model.")
    return config.vicreg if config.model_type == "VICReg" else config.simclr


def _networks(part: VICRegSettings | SimCLRSettings, where: str, config: StudyConfig) -> dict[str, Any]:
    section = config.model_type.lower()
    if part.predictor not in _PREDICTORS:
        raise ConfigError(
            f"{where}: {section}.predictor: expected rnn or id, got '{part.predictor}', with which the study's code "
            "stops, too."
        )
    return {
        **_encoder(part, where, section),
        "backbone_mlp": _widths(part.backbone_mlp or "id", f"{where}: {section}.backbone_mlp"),
        "predictor": _PREDICTORS[part.predictor],
        "predictor_layers": part.rnn_layers,
    }


def _encoder(part: VICRegSettings | SimCLRSettings | RSSMSettings, where: str, section: str) -> dict[str, Any]:
    if part.arch not in _ENCODERS:
        raise ConfigError(f"{where}: {section}.arch: expected {' or '.join(_ENCODERS)}, got '{part.arch}'.")
    if part.action_dim != 2:
        raise ConfigError(f"{where}: {section}.action_dim: actions of dots have 2 numbers, got {part.action_dim}.")
    if part.rnn_burnin != 1:
        raise ConfigError(f"{where}: {section}.rnn_burnin: predictions start from one frame; expected 1.")
    if part.arch == "resnet18":  # has one size
        return {"encoder": "resnet18", "width": 1, "latent_dim": _RESNET_SIZE}
    return {"encoder": part.arch, "width": part.backbone_width_factor, "latent_dim": part.embedding_size}


def _projector(part: VICRegSettings | SimCLRSettings, where: str, config: StudyConfig) -> list[int]:
    section = config.model_type.lower()
    widths = _widths(part.projector, f"{where}: {section}.projector")
    if part.random_projector and widths:
        raise ConfigError(f"{where}: {section}.random_projector: projectors are trained here. Set it to false.")
    if isinstance(part, VICRegSettings) and widths and part.repr_loss_after_projector:
        raise ConfigError(
            f"{where}: vicreg.repr_loss_after_projector: predictions are held against encodings, before the "
            "projector. Set it to false, or the projector to id."
        )
    return widths


def _refuse_rest(part: VICRegSettings | SimCLRSettings, where: str, config: StudyConfig) -> None:
    for name in ("decoding_coeff", "encoding_std_coeff", "encoding_cov_coeff"):
        if getattr(part, name, 0.0) != 0.0:
            raise ConfigError(
                f"{where}: {config.model_type.lower()}.{name}: this term of the loss is not offered; expected 0, as "
                f"in all published configurations, got {getattr(part, name)}."
            )


def _widths(text: str, where: str) -> list[int]:
    """``512-512`` as a list; ``id`` is none."""
    if text == "id":
        return []
    parts = text.split("-")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{where}: expected id, or widths such as 512-512, got '{text}'.")
    return [int(part) for part in parts]


def _rssm_section(part: RSSMSettings, where: str) -> dict[str, Any]:
    if part.rssm_adam_epsilon != _ADAM_EPSILON:
        raise ConfigError(
            f"{where}: rssm.rssm_adam_epsilon: expected {_ADAM_EPSILON:g}, as published, got {part.rssm_adam_epsilon}."
        )
    sizes = _encoder(part, where, "rssm")
    sizes["deter"] = sizes.pop("latent_dim")
    return {"name": "worldmodels/rssm", "variant": "study", **sizes, "min_var": part.min_var}


def _adam(rate: float, epochs: int) -> dict[str, Any]:
    return {"optimizer": "adam", "lr": rate, "lr_schedule": "constant", "max_epochs": epochs}


def _batch_size(config: StudyConfig, method: Method) -> int:
    """The probing section's own one is for what is trained in probing."""
    if method == "supervised" and config.probing_cfg.batch_size is not None:
        return config.probing_cfg.batch_size
    return config.dataset_batch_size


def _notes(config: StudyConfig, method: Method) -> tuple[str, ...]:
    """What is done otherwise than in the study."""
    probing = config.probing_cfg
    notes: list[str] = []
    if probing.batch_size is not None:
        used = "it is the batch size here" if method == "supervised" else "it is not used"
        notes.append(
            f"probing_cfg.batch_size={probing.batch_size} is no key of the study's code, which cannot load this file; "
            f"{used} (dataset_batch_size is {config.dataset_batch_size})."
        )
    if config.dataset_structured_noise:
        named = config.dataset_structured_noise_path or "its cache"
        notes.append(
            f"structured noise is made of {IMAGES} instead of CIFAR-10 ({named}); data.images=PATH names other images."
        )
    if config.dataset_size != config.val_dataset_size:
        notes.append(
            f"dataset_size={config.dataset_size} has no effect, as in the study's code: val_dataset_size sizes epochs."
        )
    if config.val_n_steps != config.n_steps:
        notes.append(f"val_n_steps={config.val_n_steps}: the evaluation has n_steps={config.n_steps} frames, too.")
    if method == "rssm":
        notes.append("the learning rate stays: the study's step at epoch 36 went to an optimiser that was not used.")
    if method == "supervised":
        notes.append(
            "batch norm is in evaluation mode when measured (the study left it in training mode), and the map to "
            "positions has a bias."
        )
    if method == "random":
        notes.append("nothing is trained; the epoch gives the statistics that frames are standardised with.")
    if config.quick_debug or config.probe_mpc:
        notes.append("quick_debug and probe_mpc have no effect; evaluate.plan_episodes=N plans.")
    notes.append(
        f"positions are read by a closed-form ridge probe with bias from 4,800 sequences; evaluate.probe=sgd adds one "
        f"trained by Adam. The study trained a linear map without bias for {probing.epochs} epochs of "
        f"{config.val_dataset_size:,} sequences."
    )
    notes.append(
        "wandb, run_name, run_group, output_path, safe_every_n_epochs and eval_at_the_end_only have no effect: the run "
        "folder has weights, metrics and report; fit.logger=wandb logs there, too."
    )
    return tuple(notes)
