"""What ``noumena score`` writes: scores, in one process or several, and what the model's calibration says of them."""

import logging
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena.core.errors import ConfigError, NotSupportedError, NoumenaError

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("noumena")


class Verdicts:
    """Columns that follow from scores, chunk by chunk, and their counts.

    Attributes:
        facts: counts to print: rows, and anomalies and selected rows where they are columns.
        settings: what they rest on.
    """

    def __init__(self, model: Any, false_alarm_rate: float | None, fdr: float | None) -> None:
        """
        Raises:
            ConfigError: a rate is no share.
            NotSupportedError: a rate needs calibration scores that the model does not have.
        """
        self._model = model
        self._fdr = fdr
        self.facts: dict[str, int] = {"rows": 0}
        self.settings: dict[str, float] = {}
        self.calibrated = bool(getattr(model, "calibration_rows", 0))
        for option, rate in (("--false-alarm-rate", false_alarm_rate), ("--fdr", fdr)):
            if rate is not None:
                _check_calibrated(option, rate, self.calibrated)
        self._threshold = self._chosen_threshold(false_alarm_rate)
        if self._threshold is not None:
            self.facts["anomalies"] = 0
            self.settings["threshold"] = self._threshold
        if false_alarm_rate is not None:
            self.settings["false_alarm_rate"] = false_alarm_rate
        if self.calibrated:
            self.settings["calibration_rows"] = model.calibration_rows

    def _chosen_threshold(self, false_alarm_rate: float | None) -> float | None:
        if false_alarm_rate is not None:
            return self._model.threshold_at(false_alarm_rate)
        threshold = getattr(self._model, "threshold", None)
        return None if threshold is None or bool(threshold.isnan()) else float(threshold)

    def columns(self, scores: Iterator["np.ndarray"]) -> Iterator[Mapping[str, "np.ndarray"]]:
        """The columns of each chunk of scores; with a rate of false discoveries all scores are awaited first."""
        return map(self._judged, scores) if self._fdr is None else self._selected(scores, self._fdr)

    def _judged(self, scores: "np.ndarray") -> dict[str, "np.ndarray"]:
        found = {"score": scores}
        self.facts["rows"] += len(scores)
        if self._threshold is not None:
            found["is_anomaly"] = self._model.is_anomaly(scores, self._threshold)
            self.facts["anomalies"] += int(found["is_anomaly"].sum())
        if self.calibrated:
            found["p_value"] = self._model.p_value_of(scores)
        return found

    def _selected(self, scores: Iterator["np.ndarray"], fdr: float) -> Iterator[Mapping[str, "np.ndarray"]]:
        """Of all rows only the scores are kept; how often each p-value occurs says up to which one to choose."""
        import numpy as np

        from noumena.density.selection import fewest_chosen, largest_chosen

        values = self._model.calibration_rows + 1
        counts = np.zeros(values, dtype=np.int64)
        kept: list[np.ndarray] = []
        for chunk in scores:
            kept.append(chunk)
            ranks = np.rint(self._model.p_value_of(chunk) * values).astype(np.int64)
            counts += np.bincount(ranks - 1, minlength=values)
        last = largest_chosen(np.arange(1, values + 1) / values, counts, fdr)
        self.facts["selected"] = 0
        self.settings["fdr"] = fdr
        if last == 0.0:
            least = fewest_chosen(int(counts.sum()), values - 1, fdr)
            self.settings["least_selected"] = least
            log.warning(
                "--fdr %g: no row is selected. With %d calibration rows it takes at least %d of these %d rows below "
                "all of them. Calibrate on more rows, or choose among fewer.",
                *(fdr, values - 1, least, counts.sum()),
            )
        for chunk in kept:
            found = self._judged(chunk)
            found["selected"] = found["p_value"] <= last
            self.facts["selected"] += int(found["selected"].sum())
            yield found


def _check_calibrated(option: str, rate: float, calibrated: bool) -> None:
    from noumena.density.calibration import check_rate

    check_rate(option, rate)
    if not calibrated:
        raise NotSupportedError(
            f"{option} needs calibration scores, which this model does not have. Fit a model of the density family "
            "with validation rows, or call its calibrate(rows) and save it again."
        )


def check_workers(workers: int, device: str) -> None:
    """Refuse several processes on one accelerator.

    Raises:
        ConfigError: the device is no CPU.
    """
    if workers and device.partition(":")[0] != "cpu":
        raise ConfigError(f"--workers shares the work among CPU cores; leave it out with --device {device}.")


def scored_by_workers(source: Path, family: str, batches: Iterator[Any], workers: int) -> Iterator["np.ndarray"]:
    """The scores of rows in their order, float64 chunks of shape (rows,).

    Args:
        source: where the model was saved, for other processes to load it.
        family: the model's.
        batches: what was read.
        workers: processes that score beside this one, which reads; each has one thread and a model of its own. The
            scores are those of one thread here, and of any number of them as far as the model's do not depend on it.

    Raises:
        NotSupportedError: the rows are no tensors.
        NoumenaError: what a worker raised, or that it was ended.
    """
    from torch import Tensor

    from noumena.generation import one_thread_each

    waiting: deque[Future[np.ndarray]] = deque()
    with (
        one_thread_each(),
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent
        ) as pool,
    ):
        try:
            for batch in batches:
                if not isinstance(batch, Tensor):
                    raise NotSupportedError(f"--workers is for tables, not for the {family} family. Leave it out.")
                waiting.append(pool.submit(_scores, str(source), batch.numpy()))
                # Few chunks ahead, so that memory does not grow where reading is faster than scoring.
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise NoumenaError(
                "a worker process was ended from outside, perhaps for want of memory. Use fewer --workers or smaller "
                "--chunk-rows."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@cache
def _loaded(source: str) -> Any:
    from noumena.artifact import load

    return load(source, device="cpu")


def _scores(source: str, rows: "np.ndarray") -> "np.ndarray":
    """In a worker: the scores of rows (rows, columns); the model is loaded with the first."""
    import torch

    model = _loaded(source)
    with torch.inference_mode():
        return model.score_samples(torch.from_numpy(rows))
