"""From a run folder to its explorer."""

from collections.abc import Sequence
from pathlib import Path

from noumena import experiment
from noumena.core.data import Splits
from noumena.core.errors import NotSupportedError
from noumena.core.exploring import Explorer
from noumena.core.model import LatentModel
from noumena.explore.service import About, Service
from noumena.registry import families, family, model_name, resolve


def open_run(source: str | Path, arguments: Sequence[str] = (), *, limit: int = 20_000, device: str = "cpu") -> Service:
    """The explorer of a run or a model.

    Args:
        source: a run folder or a model folder.
        arguments: as ``noumena evaluate`` takes them: other data, ``key=value``.
        limit: points of the map at most.
        device: where to compute.

    Raises:
        NoumenaError: the model or the data cannot be opened, or the family has no explorer.
    """
    source = Path(source)
    model, config, splits = experiment.load_with_data(source, arguments, device=device)
    return Service(make_explorer(model, splits, limit), About(source.resolve().name, config.model_name))


def make_explorer(model: LatentModel, splits: Splits, limit: int = 20_000) -> Explorer:
    """What the family of a model shows of it and its data.

    Raises:
        NotSupportedError: the family has no explorer.
    """
    name = model_name(type(model))
    place = family(name.partition("/")[0]).explore
    if not place:
        known = ", ".join(entry.name for entry in families() if entry.explore) or "none"
        raise NotSupportedError(
            f"{name}: its family has no explorer. Families that have one: {known}. The report of the run, "
            "report.html, has its pictures."
        )
    return resolve(place)(model, splits, limit=limit)
