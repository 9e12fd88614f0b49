"""The tables of a trained world model."""

import csv
import io
from collections.abc import Mapping, Sequence

from noumena.core.evaluation import Table
from noumena.worldmodels.diagnostics import WORDS
from noumena.worldmodels.probing.metrics import Errors

_PROBE = (
    "Root mean square Euclidean distance{unit}, over {count:,} held-out sequences. Latents of imagined futures: of the "
    "first frame, then of the open-loop roll-out; one linear probe for all steps. {fitted} Baselines other than the "
    "mean state are told the true first state."
)

# Methods with a column in the table of things; all of them would not fit on a page.
_COMPARED = ("", "sgd", "encoding", "untrained", "baseline_constant", "baseline_repeat", "baseline_regression")


def warning_table(text: str) -> Table:
    """What the diagnostics warn of, where nobody overlooks it."""
    return Table("Warning", ["the latents"], [[text]], "From the diagnostics below; no state was looked at.")


def probe_table(methods: Mapping[str, tuple[str, Errors]], unit: str, count: int, fitted: str) -> Table:
    """Error of the state: over all steps, of the first, a middle and the last one.

    Args:
        methods: label and errors by key.
        unit: of the state, or empty.
        count: sequences the errors are of.
        fitted: a sentence on what the probes were fitted to.
    """
    steps = max(len(one.per_step) for _, one in methods.values())
    chosen = sorted({0, (steps - 1) // 2, steps - 1})
    rows = [
        [label, one.rmse, *(float(one.per_step[i]) if i < len(one.per_step) else None for i in chosen), one.r2]
        for label, one in methods.values()
    ]
    columns = ["", "all steps", *(f"t = {i}" for i in chosen), "R²"]
    caption = _PROBE.format(unit=f" in {unit}" if unit else "", count=count, fitted=fitted)
    return Table("State read from latents", columns, rows, caption)


def things_table(methods: Mapping[str, tuple[str, Errors]], things: Sequence[str], unit: str) -> Table:
    """Error of each thing, one column per method; of the baselines the most telling ones."""
    shown = dict(methods[key] for key in _COMPARED if key in methods)
    rows = [[name, *(float(one.per_thing[i]) for one in shown.values())] for i, name in enumerate(things)]
    caption = f"Root mean square distance over all steps{f', in {unit}' if unit else ''}."
    return Table("Error of each part of the state", ["", *shown], rows, caption)


def diagnostics_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Diagnostics of the latents, one column per model."""
    rows = [[words, *(values.get(name) for values in columns.values())] for name, words in WORDS.items()]
    caption = (
        "Of latents of single held-out frames. A slow-feature index near 1 beside actions that cannot be read: the "
        "latent holds the background and nothing that moves. White noise would have an index of 1 / frames."
    )
    return Table("Diagnostics of the latents", ["", *columns], rows, caption)


def steps_file(methods: Mapping[str, tuple[str, Errors]]) -> bytes:
    """Error of each step as CSV: a column ``step``, and one per method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(key or "model" for key in methods)])
    steps = max(len(one.per_step) for _, one in methods.values())
    for step in range(steps):
        values = [float(one.per_step[step]) if step < len(one.per_step) else "" for _, one in methods.values()]
        writer.writerow([step, *values])
    return text.getvalue().encode()
