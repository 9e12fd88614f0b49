"""Commands of a page made cheap: the same verb, recipe and options, with smaller numbers behind them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from noumena.config import find_recipe
from noumena.config.compose import parse_overrides

_DETECTOR = ("evaluate.baselines=false", "evaluate.samples=30", "evaluate.ood_rows=60")
_DOTS = ("data.sequences=16", "data.test_sequences=16")
_PROBES = ("evaluate.probe_train_sequences=16", "evaluate.probe_sequences=16", "evaluate.baselines=false")
_CRYSTALS = ("evaluate.structures=4", "evaluate.samples=3", "evaluate.baselines=false", "evaluate.workers=1")

# Of each model: what makes it small.
_MODELS = {
    "density/vae": ("fit.max_epochs=1", "model.hidden_dims=[16]", *_DETECTOR),
    "density/flow": ("fit.max_epochs=1", "model.hidden_dims=[16]", "model.transforms=2", *_DETECTOR),
    "density/gmm": ("model.components=2", *_DETECTOR),
    "density/knn": _DETECTOR,
    "multimodal/mvae": (
        *("fit.max_epochs=1", "model.z_dim=4", "model.hidden_dims=[16]", "model.components=8"),
        *("evaluate.baselines=false", "evaluate.traversals=1"),
    ),
    "crystals/vae": (
        *("fit.max_epochs=1", "model.width=16", "model.heads=2", "model.encoder_layers=1", "model.decoder_layers=1"),
        *("model.vector_dim=8", *_CRYSTALS),
    ),
    "crystals/prior": (
        *("fit.max_epochs=1", "model.width=16", "model.layers=1", "model.heads=2", "model.formula_width=16"),
        *("model.formula_layers=1", "model.formula_heads=2", "model.steps=2", *_CRYSTALS),
    ),
    "crystals/property": ("fit.max_epochs=1", "model.width=8", "model.members=2", *_CRYSTALS),
    "molecules/vae": (
        *("fit.max_epochs=1", "model.width=16", "model.blocks=1", "model.mixture=2"),
        *("evaluate.baselines=false", "evaluate.samples=20"),
    ),
    "worldmodels/jepa": ("fit.max_epochs=1", "fit.batch_size=8", *_PROBES, "evaluate.plan_episodes=0"),
    "worldmodels/rssm": ("fit.max_epochs=1", "fit.batch_size=8", *_PROBES),
    "worldmodels/supervised": ("fit.max_epochs=1", "fit.batch_size=8", *_PROBES),
    "worldmodels/random": ("fit.max_epochs=1", "fit.batch_size=8", *_PROBES),
}
# Of some readers: fewer data.
_READERS = {"dots": _DOTS, "two-rooms": _DOTS}

# Of other verbs: options that are said once more, with a smaller number.
_VERBS = {
    ("sample",): ("-n", "3"),
    ("plan",): ("-n", "2", "--walks", "32", "--horizon", "2"),
    ("data", "collect"): ("--episodes", "6", "--max-steps", "20"),
    ("data", "conformers"): ("--n", "12"),
    ("data", "softrobot"): ("--paths", "2", "--turns", "8", "--layers", "1", "--levels", "2", "--workers", "1"),
    ("data", "md"): ("--steps", "40", "--stride", "4"),
    ("sweep",): ("-n", "2", "--workers", "1", "--no-reports"),
}


def quick(words: list[str], folder: Path) -> list[str]:
    """The words behind ``noumena``, made cheap."""
    for verb, smaller in _VERBS.items():
        if tuple(words[: len(verb)]) == verb:
            words = [*words, *_fitting(smaller, words)]
    if words[:1] == ["evaluate"] and "data.kind=dots" in words:
        return [*words, *_DOTS, *_PROBES]
    if words[:1] in (["fit"], ["sweep"]):
        recipe, overrides = _recipe(words)
        if recipe is not None and "--dry-run" not in words:
            return _with_overrides(words, _small(recipe, overrides, folder), folder)
    return words


def _fitting(smaller: tuple[str, ...], words: list[str]) -> tuple[str, ...]:
    # A grid has as many runs as it has entries.
    return ("--no-reports",) if "grid" in words else smaller


def _recipe(words: list[str]) -> tuple[str | None, list[str]]:
    free = [
        word
        for before, word in pairwise(words)
        if not word.startswith("-") and (not before.startswith("-") or before in ("--json", "--reports"))
    ]
    return (free[0], [word for word in free[1:] if "=" in word]) if free else (None, [])


def _small(recipe: str, overrides: list[str], folder: Path) -> tuple[str, ...]:
    name = str(folder / recipe) if recipe.endswith((".yaml", ".yml")) else recipe
    content: dict[str, Any] = find_recipe(name).content
    said = parse_overrides(overrides)
    model = said.get("model", {}).get("name", content["model"]["name"])
    kind = said.get("data", {}).get("kind", content["data"]["kind"])
    return (*_MODELS[model], *_READERS.get(kind, ()))


def _with_overrides(words: list[str], more: tuple[str, ...], folder: Path) -> list[str]:
    space = folder / words[words.index("--space") + 1] if "--space" in words else None
    # What a sweep varies cannot be set for all of its runs.
    varied = tuple(f"{key}=" for key in yaml.safe_load(space.read_text())) if space and space.is_file() else ()
    return [*words, *(one for one in more if not one.startswith(varied or ("=",)))]


def one_epoch(fit: Callable[..., Any]) -> Callable[..., Any]:
    """``LatentModel.fit`` that ends after an epoch, for models that are trained in Python."""

    def short(model: Any, *data: Any, **options: Any) -> Any:
        if model.trains_by_gradient:  # else it is solved at once, without epochs
            options["max_epochs"] = 1
        return fit(model, *data, **options)

    return short
