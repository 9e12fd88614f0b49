"""The study in the journal: who does which trial, what came of it, and what is to be done again.

A *run* of a sweep is one choice of values, numbered from 0, with the folder ``trials/0000``. A run whose worker died or
was interrupted is given to the next worker, which goes on from its checkpoint; to optuna that is another trial, with
the same values, and the one before it has failed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.core.seeding import fold
from noumena.sweep.alive import Heartbeat
from noumena.sweep.plan import JOURNAL, TRIALS, VAL_LOSS, Plan
from noumena.sweep.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_NAME = "noumena"
_MOST_DEATHS = 3
_STARTUP = 5  # finished trials before one is pruned


@dataclass(frozen=True)
class Run:
    """One choice of values and what came of it.

    Attributes:
        number: of the run, from 0.
        state: ``running``, ``complete``, ``pruned``, ``failed`` or ``lost`` (to be done again).
        values: of the varied keys.
        value: of the metric; ``None`` unless complete.
        error: why it failed.
        facts: epochs, seconds.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    value: float | None
    error: str | None
    facts: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state in ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Claim:
    """A run that is this worker's to do.

    Attributes:
        trial: optuna's.
        number: of the run.
        values: of the varied keys.
        earlier: what an attempt before this one had reported, by epoch.
    """

    trial: "Trial"
    number: int
    values: Mapping[str, Any]
    earlier: Mapping[int, float]


class Sweep:
    """A study on disk, as one process sees it."""

    def __init__(self, out: Path, plan: Plan) -> None:
        """
        Raises:
            NotSupportedError: optuna is not installed.
            ArtifactError: the journal is damaged, or cannot be written.
        """
        self.out = out.resolve()
        self.plan = plan
        self.space: Space = plan.checked_space(str(out))
        self.grid = self.space.grid() if plan.sampler == "grid" else None
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
        except ModuleNotFoundError as error:
            raise NotSupportedError("a sweep needs the package 'optuna': pip install 'noumena[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = self.out / JOURNAL
        # A file opened exclusively is a lock on every file system, NFS from version 3 on included. The lock of a
        # process that died is broken after 30 s.
        self._journal_lock = JournalFileOpenLock(str(journal))
        self._claim_lock = JournalFileOpenLock(str(self.out / "claim"))
        try:
            with self._held(self._journal_lock):
                _mend(journal)
            # The backend writes and reads lines of JSON and has no snapshots, which would be pickled.
            self.storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=self._journal_lock))
            self.study: Study = optuna.create_study(
                storage=self.storage,
                study_name=_NAME,
                direction=plan.direction,
                load_if_exists=True,
                pruner=self._pruner(),
                sampler=self._sampler(0),
            )
        except OSError as error:
            raise ArtifactError(f"cannot write {journal}: {error.strerror or error}. Choose another --out.") from error
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{journal} is damaged: {error}. Begin another sweep in another folder.") from error

    def folder(self, number: int) -> Path:
        """The run folder of a run."""
        return self.out / TRIALS / f"{number:04d}"

    @contextmanager
    def _held(self, lock: Any) -> Iterator[None]:
        lock.acquire()
        try:
            yield
        finally:
            try:
                lock.release()
            except RuntimeError as error:
                raise ArtifactError(
                    f"{self.out}: the lock of this process was broken by another one, which waited for 30 seconds. "
                    "The folder answers too slowly for a sweep; choose a faster one."
                ) from error

    # What is there

    def runs(self) -> list[Run]:
        """All runs by number, each as its last attempt left it."""
        return [self._run(number, attempts) for number, attempts in sorted(self._attempts().items())]

    def _attempts(self) -> "dict[int, list[FrozenTrial]]":
        found: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            number = trial.user_attrs.get("run")
            if isinstance(number, int):
                found.setdefault(number, []).append(trial)
        return found

    def _run(self, number: int, attempts: "list[FrozenTrial]") -> Run:
        last = attempts[-1]
        state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(last.state.name, "running")
        error = last.user_attrs.get("error")
        if state == "failed" and "lost" in last.user_attrs:
            deaths = sum(trial.user_attrs.get("lost") == "died" for trial in attempts)
            state = "lost" if deaths < _MOST_DEATHS else "failed"
            error = f"its worker died {deaths} times" if state == "failed" else None
        values = self.space.values(last.params)
        value = last.value if state == "complete" else None
        return Run(number, state, values, value, error, last.user_attrs.get("facts", {}))

    def count(self, wanted: int) -> int:
        """How many runs ``-n wanted`` asks for: a grid has no more than its combinations."""
        return wanted if self.grid is None else min(wanted, len(self.grid))

    def best(self) -> Run | None:
        """The complete run with the best value; the first of equal ones."""
        complete = [run for run in self.runs() if run.value is not None]
        sign = 1.0 if self.plan.direction == "minimize" else -1.0
        return min(complete, key=lambda run: sign * (run.value or 0.0), default=None)

    # Giving out runs

    def claim(self, wanted: int, heartbeat: Heartbeat) -> Claim | None:
        """A run for this worker: one that somebody lost, or a new one; ``None`` if none is to be had now."""
        with self._held(self._claim_lock):
            self.bury(heartbeat)
            attempts = self._attempts()
            for number, trials in sorted(attempts.items()):
                if self._run(number, trials).state == "lost":
                    return self._again(number, trials[-1], heartbeat)
            number = len(attempts)
            return self._new(number, heartbeat) if number < self.count(wanted) else None

    def bury(self, heartbeat: Heartbeat) -> None:
        """Mark as lost what dead workers were doing."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING" and heartbeat.is_dead(trial.user_attrs.get("worker")):
                self.lose(trial._trial_id, "died")

    def lose(self, trial_id: int, why: str) -> None:
        """Give a run back, to be done again: its worker ``died``, or was ``interrupted``."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self.storage.set_trial_user_attr(trial_id, "lost", why)
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return  # somebody else has seen it, or it ended in this moment

    def _again(self, number: int, before: "FrozenTrial", heartbeat: Heartbeat) -> Claim:
        self._enqueue(before.params)
        trial = self._ask(number, heartbeat)
        for epoch, value in before.intermediate_values.items():
            trial.report(value, epoch)
        return Claim(trial, number, self.space.values(trial.params), dict(before.intermediate_values))

    def _new(self, number: int, heartbeat: Heartbeat) -> Claim:
        # A seed for each run: what a sweep chooses does not depend on how often it was interrupted.
        self.study.sampler = self._sampler(number)
        if self.grid is not None:
            self._enqueue(self.grid[number])
        trial = self._ask(number, heartbeat)
        return Claim(trial, number, self.space.values(trial.params), {})

    def _enqueue(self, labels: Mapping[str, Any]) -> None:
        self._drop_waiting()
        self.study.enqueue_trial(dict(labels))

    def _drop_waiting(self) -> None:
        """Nothing waits while nobody claims; what does was left by a process killed while it claimed."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _ask(self, number: int, heartbeat: Heartbeat) -> "Trial":
        trial = self.study.ask(fixed_distributions=self.space.distributions())
        trial.set_user_attr("worker", heartbeat.name)
        # Last: a trial with a number has its values, whenever its process is killed.
        trial.set_user_attr("run", number)
        return trial

    def _sampler(self, number: int) -> "BaseSampler":
        from optuna.samplers import RandomSampler, TPESampler

        seed = fold(self.plan.seed, number) % 2**32
        # The liar keeps workers that choose at the same time apart.
        return TPESampler(seed=seed, constant_liar=True) if self.plan.sampler == "tpe" else RandomSampler(seed=seed)

    def _pruner(self) -> Any:
        from optuna.pruners import MedianPruner, NopPruner

        if self.plan.pruner == "none":
            return NopPruner()
        epochs = int(self.plan.base.get("fit", {}).get("max_epochs", 100))
        return MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=epochs // 5)

    # What came of them

    def watched(self, row: Mapping[str, float]) -> float | None:
        """What pruning looks at, such that optuna's direction applies: the metric, or the validation loss."""
        if self.plan.metric in row:
            return row[self.plan.metric]
        sign = 1.0 if self.plan.direction == "minimize" else -1.0
        return sign * row[VAL_LOSS] if VAL_LOSS in row else None

    def is_mine(self, trial: "Trial") -> bool:
        """Whether nobody has taken a trial over, as happens to a process that was asleep."""
        return self.storage.get_trial(trial._trial_id).state.name == "RUNNING"

    def finish(
        self, claim: Claim, state: str, value: float | None, facts: Mapping[str, Any], error: str | None
    ) -> None:
        """Record the end of a run: ``complete`` with a value, ``pruned`` or ``failed`` with an error."""
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        if not self.is_mine(claim.trial):
            return
        claim.trial.set_user_attr("facts", dict(facts))
        if error is not None:
            claim.trial.set_user_attr("error", error)
        self.study.tell(claim.trial, value, state=states[state], skip_if_finished=True)

    def refuse_if_all_fail(self) -> None:
        """Stop a sweep whose every run fails.

        Raises:
            ConfigError: three runs have finished, or all, and none but failed.
        """
        runs = self.runs()
        finished = [run for run in runs if run.is_finished]
        if len(finished) >= 3 and all(run.state == "failed" for run in finished):
            raise ConfigError(
                f"{self.out}: all of the first {len(finished)} runs failed, the last one with: {finished[-1].error}"
            )

    def importance(self) -> dict[str, float]:
        """How much each key decides about being among the best, shares of 1; empty below ten complete runs."""
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
        from optuna.trial import TrialState

        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < 10 or len(self.space.entries) < 2:
            return {}
        return get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())


def _mend(journal: Path) -> None:
    """Cut off a last line that a kill or a full disk left half written; the next line would be appended to it."""
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
    for line in content[:whole].splitlines():
        if not isinstance(json.loads(line), dict):
            raise ValueError(f"{line[:40]!r} is no entry")
