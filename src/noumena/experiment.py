"""From a recipe to a finished run: data, training, evaluation, report."""

import json
import logging
import math
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import noumena
from noumena.artifact import load, read_manifest, save
from noumena.artifact.store import model_folder
from noumena.config import Config, compose
from noumena.config.compose import check, parse_overrides
from noumena.config.recipes import read_yaml
from noumena.config.schema import configurable
from noumena.core.data import Splits
from noumena.core.errors import ArtifactError, ConfigError
from noumena.core.evaluation import Evaluation
from noumena.core.model import LatentModel
from noumena.files import busy, write_text
from noumena.registry import family, model_class, resolve
from noumena.training import FitSettings, History
from noumena.training.processes import is_main_process

if TYPE_CHECKING:
    from noumena.training.callbacks import OnEpoch

log = logging.getLogger("noumena")


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        config: the configuration it was made with.
        model: with its best weights.
        history: of the training.
        evaluation: of the model on the held-out data; ``None`` on the helper processes of distributed training.
        report: the HTML page; ``None`` on helper processes, and where none was wanted.
    """

    folder: Path
    config: Config
    model: LatentModel
    history: History
    evaluation: Evaluation | None
    report: Path | None


def run_recipe(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    files: Sequence[str | Path] = (),
    study: str | Path | None = None,
    out: str | Path | None = None,
) -> RunResult:
    """Train, evaluate and report what a recipe describes.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        overrides: ``key.path=value``.
        files: further YAML files, merged in order before the overrides.
        study: a configuration file of the study that the recipe's family comes from; see
            :func:`noumena.config.compose`.
        out: the run folder; ``runs/<family>-<recipe>-<time>`` when missing.

    With ``fit.devices`` above 1 the calling program is started again, from its beginning and with its arguments, for
    each further device; what it does before and after this call, it does in each. ``result.history.is_main`` tells
    the main one.

    Raises:
        NoumenaError: of the part that went wrong; see :mod:`noumena.core.errors`.
    """
    config = with_absolute_paths(compose(recipe, files, overrides, study=study))
    if study is not None:
        log.warning(config.description)
    return start_run(config, out)


def start_run(
    config: Config, out: str | Path | None = None, *, on_epoch: "OnEpoch | None" = None, report: bool = True
) -> RunResult:
    """Train, evaluate and report a configuration.

    Args:
        config: with absolute paths.
        out: see :func:`run_recipe`.
        on_epoch: see :func:`noumena.training.fit`.
        report: draw the figures and write ``report.html``; the metrics are written in any case.
    """
    return _run(config, new_run_folder(config, out), resume=False, on_epoch=on_epoch, report=report)


def resume_run(folder: str | Path, *, on_epoch: "OnEpoch | None" = None, report: bool = True) -> RunResult:
    """Continue a run that was stopped or killed, to the very weights it would have reached.

    Args:
        folder: of the run.
        on_epoch, report: see :func:`start_run`.

    Raises:
        ArtifactError: the folder is no run.
    """
    folder = Path(folder)
    config = run_config(folder)
    from noumena.training.engine import CHECKPOINT

    return _run(config, folder, resume=(folder / CHECKPOINT).is_file(), on_epoch=on_epoch, report=report)


def _run(config: Config, folder: Path, *, resume: bool, on_epoch: "OnEpoch | None", report: bool) -> RunResult:
    from noumena.training.engine import check_processes

    # Before anything is written: the next try finds the folder as it was.
    check_processes(FitSettings.from_options(config.fit), model_class(config.model_name))
    # Helper processes of a distributed training leave the mark to the main one.
    with busy(folder) if is_main_process() else nullcontext():
        return _run_all(config, folder, resume=resume, on_epoch=on_epoch, report=report)


def _run_all(config: Config, folder: Path, *, resume: bool, on_epoch: "OnEpoch | None", report: bool) -> RunResult:
    started = time.perf_counter()
    splits = open_data(config)
    timings = {"reading the data": time.perf_counter() - started}
    if is_main_process() and not (folder / "config.yaml").exists():
        write_text(folder / "config.yaml", f"# recipe: {config.recipe}\n{config.to_yaml()}")
    model = make_model(config)
    started = time.perf_counter()
    # Test losses are recorded beside those of the validation; without one the test is for the evaluation alone.
    test = None if splits.val is None else splits.test
    history = model.fit(splits.train, splits.val, test, run_dir=folder, resume=resume, on_epoch=on_epoch, **config.fit)
    timings["training"] = time.perf_counter() - started
    if not history.is_main:
        return RunResult(folder, config, model, history, None, None)
    log.info("trained; measuring it on held-out data and drawing the report")
    started = time.perf_counter()
    evaluation = evaluate(config, model, splits)
    timings["evaluation"] = time.perf_counter() - started
    save(model, folder / "model", overwrite=True, metrics=evaluation.metrics)
    write_metrics(folder / "evaluation.json", evaluation.metrics)
    page = write_run_report(folder, config, model, splits, history, evaluation, timings) if report else None
    return RunResult(folder, config, model, history, evaluation, page)


def open_data(config: Config) -> Splits:
    """The data of a configuration, split."""
    options = dict(config.data)
    return resolve(family(config.family).data[options.pop("kind")])(**options)


def make_model(config: Config) -> LatentModel:
    """The untrained model of a configuration."""
    options = dict(config.model)
    return model_class(options.pop("name"))(**options)


def evaluate(config: Config, model: LatentModel, splits: Splits) -> Evaluation:
    """What the family measures of ``model`` on ``splits``."""
    return resolve(family(config.family).evaluate)(model, splits, **config.evaluate)


def write_run_report(
    folder: Path,
    config: Config,
    model: LatentModel,
    splits: Splits,
    history: History,
    evaluation: Evaluation,
    timings: Mapping[str, float],
) -> Path:
    """Write ``figures/`` and ``report.html`` of a run."""
    from noumena.evaluation.report import save_figures, write_report

    save_figures(folder / "figures", evaluation, history)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return write_report(
        folder / "report.html",
        title=config.recipe,
        about=splits.about,
        history=history,
        evaluation=evaluation,
        config=config.to_yaml(),
        model_summary={"model": config.model_name, "parameters": parameters, **model.summary()},
        timings=timings,
        versions={
            "noumena": noumena.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        explorable=bool(family(config.model_name.partition("/")[0]).explore),
    )


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Metrics as JSON; a number that is not finite becomes null, which JSON has no other word for."""
    plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    write_text(path, json.dumps(plain, indent=2) + "\n")


def new_run_folder(config: Config, out: str | Path | None) -> Path:
    """The folder of a new run.

    Raises:
        ArtifactError: ``out`` holds something already.
    """
    if out is None:
        name = f"{config.recipe.replace('/', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
        if config.recipe.endswith((".yaml", ".yml")):
            name = f"{config.family}-{Path(config.recipe).stem}-{datetime.now():%Y%m%d-%H%M%S}"
        return _unused(Path("runs") / name)
    folder = Path(out)
    if is_main_process() and folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ArtifactError(f"{folder} is not empty. Choose another --out, or continue that run with --resume {folder}")
    return folder


def _unused(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def run_config(folder: str | Path) -> Config:
    """The configuration of a run.

    Raises:
        ArtifactError: the folder is no run.
        ConfigError: its configuration was edited into something impossible.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is no run folder: it has no config.yaml. Give the folder that `noumena fit` made."
        )
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    recipe = first.removeprefix("# recipe: ") if first.startswith("# recipe: ") else str(folder)
    return check(read_yaml(path), recipe)


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """A run's configuration with some keys of its ``data`` and ``evaluate`` sections replaced.

    Raises:
        ConfigError: a key of another section, or one that does not exist.
    """
    changes = parse_overrides(overrides)
    for section in changes:
        if section not in ("data", "evaluate"):
            raise ConfigError(f"'{section}': a trained model takes overrides of data and evaluate only.")
    merged = config.sections()
    for section, values in changes.items():
        base = merged.get(section, {})
        # Another kind of data has other options; those of the run's kind mean nothing to it.
        keep = values.get("kind", base.get("kind")) == base.get("kind")
        merged[section] = {**(base if keep else {}), **values}
    return with_absolute_paths(check(merged, config.recipe))


def open_all(config: Config) -> Splits:
    """The data of a configuration as one part, ``train``: every row; of data that are made, not read, the test part."""
    if not is_made(config):
        return open_data(replace(config, data={**config.data, "val_fraction": 0.0, "test_fraction": 0.0}))
    splits = open_data(config)
    return Splits(splits.test or splits.train, about=splits.about)


def is_made(config: Config) -> bool:
    """Whether the data are made by their reader, as those of a simulated world, and have no file."""
    return "path" not in configurable(resolve(family(config.family).data[config.data["kind"]]))


def bare_config(model: str, schema: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """A configuration for a model that came without its run: the reader its schema names, and ``overrides``."""
    data = {"kind": schema.get("kind"), **({"row": schema["row"]} if "row" in schema else {})}
    changes = parse_overrides(overrides)
    merged = {"model": {"name": model}, **changes, "data": {**data, **changes.get("data", {})}}
    return check(merged, model)


def load_with_data(
    source: str | Path, arguments: Sequence[str] = (), *, device: str = "cpu"
) -> tuple[LatentModel, Config, Splits]:
    """A trained model, and the data to look at it with.

    Args:
        source: a run folder or a model folder.
        arguments: ``KEY=VALUE`` of the ``data`` and ``evaluate`` sections, and one path of other data at most. The
            data are those of the run where nothing is said of them; of other data all rows are the ``test`` part.
        device: where to put the model.

    Returns:
        The model, the configuration with the arguments merged, and the data.

    Raises:
        ConfigError: the arguments fit neither the run nor the model.
        ArtifactError: the model is missing or damaged.
        DataError: the data are.
    """
    source = Path(source)
    paths = [argument for argument in arguments if "=" not in argument]
    overrides = [*(f"data.path={path}" for path in paths), *(entry for entry in arguments if "=" in entry)]
    if len(paths) > 1:
        raise ConfigError(f"one DATA path at most, got {', '.join(paths)}.")
    if not (source / "config.yaml").is_file():
        model = load(source, device=device)
        return model, *_data_of_model(source, model, overrides)
    trained = run_config(source)
    if paths and not any(entry.startswith("data.kind=") for entry in overrides):
        _check_has_file(source, trained, paths[0])
    model = load(source, device=device)
    config = with_overrides(trained, overrides)
    if not any(entry.startswith("data.") for entry in overrides):
        return model, config, open_data(config)
    other = open_all(config)
    return model, config, replace(other, train=open_data(trained).train, test=other.train)


def _data_of_model(source: Path, model: LatentModel, overrides: Sequence[str]) -> tuple[Config, Splits]:
    """Configuration and data for a model that came without its run."""
    if not overrides:
        raise ConfigError(
            f"{source} is a model without its run: give the DATA to use it on, or of data that are made one of "
            "their options, such as data.seed=0."
        )
    # Without the rows it was trained on there is nothing to fit a baseline to.
    name = read_manifest(model_folder(source)).model
    config = bare_config(name, model.schema, ["evaluate.baselines=false", *overrides])
    if is_made(config):
        return config, open_data(config)
    other = open_all(config)
    return config, replace(other, test=other.train)


def _check_has_file(run: Path, trained: Config, path: str) -> None:
    """Refuse a file where the run's data are made."""
    if is_made(trained):
        raise ConfigError(
            f"{run}: its data, of kind '{trained.data['kind']}', are made and have no file. Change them with "
            f"data.KEY=VALUE, or say of what kind {path} is with data.kind=KIND."
        )


# The keys of a configuration that hold a path; the value of any other may happen to be the name of a file.
_PATH_KEYS = ("path", "ood", "mesh", "topology", "val_path", "test_path", "draw_from", "exclude", "autoencoder")


def _absolute(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    if path.exists():
        return str(path.resolve())
    if "," in value:  # several files
        return ",".join(_absolute(part.strip()) for part in value.split(","))
    if any(mark in value for mark in "*?["):  # a pattern
        return str(Path.cwd() / path)
    return value


def with_absolute_paths(config: Config) -> Config:
    """Existing files by absolute path, ``~`` expanded, so that the run can be resumed from any folder."""

    def absolute(section: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(section)
        for key in _PATH_KEYS:
            value = section.get(key)
            if isinstance(value, list):
                found[key] = [_absolute(entry) for entry in value]
            elif value is not None:
                found[key] = _absolute(value)
        return found

    return replace(config, model=absolute(config.model), data=absolute(config.data), evaluate=absolute(config.evaluate))
