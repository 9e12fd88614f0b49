"""What a family of models tells the rest of the library about itself, without importing torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Headline:
    """The one number by which ``noumena demo`` shows a family, beside that of a plain baseline on the same samples.

    Attributes:
        metric, baseline: names in the metrics of the family's evaluation, for the model and for the baseline.
        says: what is measured, as a heading: "position error at step 16".
        against: what the baseline is: "one Gaussian".
        unit: of both numbers; ``"%"`` shows shares of 1 as percent.
        better: which way is better.
        picture: name of one of the evaluation's pictures.
        shows: a sentence or two on what is in the picture.
    """

    metric: str
    baseline: str
    says: str
    against: str
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    picture: str = ""
    shows: str = ""


@dataclass(frozen=True)
class Family:
    """One scientific modality. Places in code are written ``"module:attribute"`` and imported on first use.

    Attributes:
        name: the family, as in ``density/vae``.
        summary: one line for listings.
        models: model name to its :class:`~noumena.core.model.LatentModel` subclass.
        data: value of ``data.kind`` in a recipe to the function that opens the data; its signature is the
            schema of the ``data`` section and it returns :class:`~noumena.core.data.Splits`.
        stream: function that reads a file of any size in chunks, laid out as a trained model expects.
        evaluate: function that evaluates a trained model on ``Splits`` and returns an
            :class:`~noumena.core.data.Evaluation`; its extra keywords are the ``evaluate`` section.
        exports: ending of a file, without the dot, to the function that makes its content, called as
            ``function(model, **options)``. Its further parameters are the options of ``noumena export`` that the
            family takes, those without a default being required.
        writers: ending of a file, with the dot, to the function that writes it, for a family whose samples and
            reconstructions are no tables; called as ``function(path, chunks, schema)`` with chunks of what the model
            gives, as they come. Empty where they are tables (Parquet, CSV, NPZ).
        tables: ending or whole name of a file to the function that writes a table to it, beside those every family
            has; called as ``function(path, chunks, schema)`` with chunks of columns.
        features: name to the function that computes columns from the data alone, for ``noumena encode`` to add to the
            latents; called as ``function(rows, schema)``.
        importers: name of an original code to the function that makes a model from one of its files.
        study: function that translates a configuration file of the study the family comes from, for ``noumena fit
            --study-config``; called with the path, it returns sections of a recipe. Empty if there is none.
        explore: function that makes the :class:`~noumena.core.exploring.Explorer` of a trained model, called as
            ``function(model, splits, limit=n)``. Empty if ``noumena explore`` cannot show the family.
        demo: the recipe ``noumena demo`` trains and its overrides; empty if the family takes no part.
        demo_needs: packages that the demo imports late, so that one that is missing is named before the training.
        headline: what the demo's page shows of it; without one the validation loss and no baseline.
        purpose: a sentence or two for the demo's page on what the family is for; the summary where there is none.
        tries: commands to go on with after the demo, each with what it does; ``{run}`` stands for the demo's run.
    """

    name: str
    summary: str
    models: Mapping[str, str]
    data: Mapping[str, str]
    stream: str
    evaluate: str
    exports: Mapping[str, str] = field(default_factory=dict[str, str])
    writers: Mapping[str, str] = field(default_factory=dict[str, str])
    tables: Mapping[str, str] = field(default_factory=dict[str, str])
    features: Mapping[str, str] = field(default_factory=dict[str, str])
    importers: Mapping[str, str] = field(default_factory=dict[str, str])
    study: str = ""
    explore: str = ""
    demo: tuple[str, ...] = ()
    demo_needs: tuple[str, ...] = ()
    headline: Headline | None = None
    purpose: str = ""
    tries: Mapping[str, str] = field(default_factory=dict[str, str])
