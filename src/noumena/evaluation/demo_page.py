"""One page for all that ``noumena demo`` trained, made from what its folders hold."""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noumena.artifact.manifest import read_small
from noumena.core.errors import ArtifactError
from noumena.core.family import Family, Headline
from noumena.evaluation.pages import template
from noumena.evaluation.report import format_number, format_seconds
from noumena.evaluation.runs import FINISHED, Run, read_run
from noumena.files import write_text

RECORD = ".demo"
"""Name of the file by which a folder is known to be a demo's."""

STARTED, DONE, FAILED, MISSING = "started", "done", "failed", "missing"
_STATES = (STARTED, DONE, FAILED, MISSING)
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Record:
    """What a demo notes about one family, in its folder.

    Attributes:
        state: ``started`` (and no more: it was stopped), ``done``, ``failed`` or ``missing`` (a package is).
        seconds: from reading the data to the finished report.
        samples: of the training, or ``None`` where nothing tells.
        parameters: of the model.
        message: the error of a demo that failed, or what is missing and the command that installs it.
    """

    state: str
    seconds: float | None = None
    samples: int | None = None
    parameters: int | None = None
    message: str = ""

    def write(self, folder: Path) -> None:
        """Write it into the family's folder."""
        write_text(folder / RECORD, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read what :meth:`write` wrote.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        path = folder / RECORD
        try:
            found: dict[str, Any] = json.loads(read_small(path))
            record = cls(**found)
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{path} is no record of a demo: {error}. Delete the folder of the demo.") from error
        numbers = [found.get(name) for name in ("seconds", "samples", "parameters")]
        whole = all(n is None or (isinstance(n, int | float) and not isinstance(n, bool)) for n in numbers)
        if not whole or found["state"] not in _STATES or not isinstance(found.get("message", ""), str):
            raise ArtifactError(f"{path} is no record of a demo: a value is impossible. Delete the folder of the demo.")
        return record


@dataclass(frozen=True)
class Shown:
    """A family's number, and the baseline's where there is one.

    Attributes:
        says, against: what the two are.
        value, baseline: as measured; ``None`` where it was not measured or not finite.
        text, baseline_text: the same with units, as people read them.
        better: which way is better.
    """

    says: str
    value: float | None
    text: str
    against: str = ""
    baseline: float | None = None
    baseline_text: str = ""
    better: str = "lower"

    @property
    def verdict(self) -> str:
        """How the model does beside the baseline, in words; empty where there is none."""
        if not self.against:
            return ""
        if self.value is None or self.baseline is None:
            return "Not measured in this run."
        if self.text == self.baseline_text:  # compared as shown
            return f"The same as {self.against}."
        ahead = self.value < self.baseline if self.better == "lower" else self.value > self.baseline
        return f"Better than {self.against}." if ahead else f"Worse than {self.against} after this short training."


@dataclass(frozen=True)
class Result:
    """One family of a demo.

    Attributes:
        family: what it is.
        folder: of its run.
        record: what the demo noted.
        run: what the folder tells about itself; ``None`` where it holds no run.
        shown: its number; ``None`` without a finished run.
    """

    family: Family
    folder: Path
    record: Record
    run: Run | None
    shown: Shown | None

    @property
    def is_finished(self) -> bool:
        """Whether there is a whole run, be it finished by the demo or resumed later."""
        return self.shown is not None

    @property
    def report(self) -> Path | None:
        """The full report, if it was written."""
        path = self.folder / "report.html"
        return path if self.is_finished and path.is_file() else None

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        facts: dict[str, Any] = {
            "family": self.family.name,
            "state": DONE if self.is_finished else self.record.state,
            "run": str(self.folder),
            "report": None if self.report is None else str(self.report),
            "seconds": self.record.seconds,
            "samples": self.record.samples,
            "parameters": self.record.parameters,
            "epochs": 0 if self.run is None else self.run.history.epochs,
            "headline": None,
        }
        if self.shown is not None:
            line = self.family.headline
            names = {"metric": line.metric, "baseline": line.baseline} if line else {"metric": "val_loss"}
            measured = {"value": self.shown.value, "baseline_value": self.shown.baseline}
            facts["headline"] = {**names, **measured, "better": self.shown.better, "verdict": self.shown.verdict}
        if not self.is_finished and self.record.message:
            facts["message"] = self.record.message
        return facts


def read_results(out: Path, families: Sequence[Family]) -> list[Result]:
    """What a demo's folder holds, in the order of ``families``; a folder that is no demo's is left out."""
    return [read_result(out / entry.name, entry) for entry in families if (out / entry.name / RECORD).is_file()]


def read_result(folder: Path, entry: Family) -> Result:
    """The family's result in ``folder``.

    Raises:
        ArtifactError: its record is damaged.
    """
    record = Record.read(folder)
    run = read_run(folder) if (folder / "config.yaml").is_file() else None
    finished = run is not None and run.state == FINISHED and record.state != FAILED
    return Result(entry, folder, record, run, shown(entry, run) if run is not None and finished else None)


def shown(entry: Family, run: Run) -> Shown:
    """The number of a finished run by which the family is shown."""
    line = entry.headline
    if line is None:
        value = run.all_metrics().get("best_epoch/val_loss")
        return Shown("lowest validation loss", value, format_number(value))
    value, baseline = (run.metrics.get(name) for name in (line.metric, line.baseline))
    return Shown(line.says, value, _text(value, line), line.against, baseline, _text(baseline, line), line.better)


def _text(value: float | None, line: Headline) -> str:
    """Three digits and the unit."""
    if value is None:
        return format_number(None)
    if line.unit == "%":
        return f"{100 * value:.1f} %"
    digits = f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 1e4 else format_number(value)
    return f"{digits} {line.unit}".rstrip().replace("-", "−")


def write_demo_page(path: Path, results: Sequence[Result], places: Mapping[str, str]) -> Path:
    """Write the page of a demo, whole or not at all.

    The file needs nothing but a browser: its pictures are inside it, it asks for nothing and runs no script. Its links
    lead to the reports beside it.

    Args:
        path: of the page, in the folder that holds those of the families.
        results: see :func:`read_results`.
        places: for each family's name how its commands call the run, as a shell reads it.

    Returns:
        ``path``.

    Raises:
        ArtifactError: the file cannot be written.
    """
    finished = [result for result in results if result.is_finished]
    seconds = [result.record.seconds for result in finished if result.record.seconds is not None]
    page = template("demo.html.j2").render(
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        total=format_seconds(sum(seconds)) if seconds else "",
        cards=[_card(result, path.parent, places[result.family.name]) for result in results],
        finished=len(finished),
    )
    write_text(path, page)
    return path


def _card(result: Result, out: Path, place: str) -> dict[str, Any]:
    entry, record = result.family, result.record
    line = entry.headline
    return {
        "name": entry.name,
        "purpose": entry.purpose or f"{entry.summary[:1].upper()}{entry.summary[1:]}.",
        "state": DONE if result.is_finished else record.state,
        "message": "" if result.is_finished else record.message,
        "resume": f"noumena fit --resume {place}" if result.run is not None else "",
        "shown": result.shown,
        "picture": _picture(result),
        "shows": line.shows if line is not None else "",
        "facts": _facts(result),
        "report": None if result.report is None else result.report.relative_to(out).as_posix(),
        "tries": [(command.replace("{run}", place), words) for command, words in entry.tries.items()],
    }


def _facts(result: Result) -> list[tuple[str, str]]:
    record, run = result.record, result.run
    facts: dict[str, Any] = {
        "model": None if run is None else run.model,
        "recipe": None if run is None else run.recipe,
        "training samples": record.samples,
        "parameters": record.parameters,
        "epochs": None if run is None or not run.history.epochs else run.history.epochs,
        "time taken": None if record.seconds is None else format_seconds(record.seconds),
    }
    return [(name, format_number(value)) for name, value in facts.items() if value]


def _picture(result: Result) -> dict[str, Any] | None:
    """The family's picture, or of a family that names none the first of the alphabet but the training curves."""
    if not result.is_finished:
        return None
    line = result.family.headline
    figures = result.folder / "figures"
    named = figures / f"{line.picture}.png" if line is not None and line.picture else None
    others = sorted(path for path in figures.glob("*.png") if path.stem != "training_curves")
    path = named if named is not None and named.is_file() else next(iter(others), None)
    if path is None:
        return None
    content = path.read_bytes()
    width, height = _size(content, path)
    # Drawn at twice the resolution at which pages show them.
    data = base64.b64encode(content).decode("ascii")
    return {"name": path.stem.replace("_", " "), "width": width // 2, "height": height // 2, "data": data}


def _size(png: bytes, path: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    if len(png) < 24 or not png.startswith(_PNG):
        raise ArtifactError(f"{path} is no PNG picture. Run `noumena demo` again.")
    width, height = struct.unpack(">II", png[16:24])
    return width, height
