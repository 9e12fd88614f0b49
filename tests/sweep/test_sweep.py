import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from noumena.config import compose
from noumena.core.errors import ArtifactError, ConfigError, TrainingInterrupted
from noumena.experiment import resume_run, start_run
from noumena.sweep import worker
from noumena.sweep.alive import Heartbeat
from noumena.sweep.plan import JOURNAL, make_plan
from noumena.sweep.run import open_sweep, run_sweep
from noumena.sweep.study import Sweep
from noumena.sweep.summary import BEST, TABLE

TINY = ["data.n=200", "fit.max_epochs=3", "fit.progress=false"]
SPACE = "model.latent_dim: {low: 1, high: 3}\nfit.lr: {low: 1e-4, high: 1e-1, log: true}\n"


def plan_of(folder, text=SPACE, overrides=(), **options):
    path = folder / "space.yaml"
    path.write_text(text)
    return make_plan("density/synthetic", [*TINY, *overrides], path, **options)


def table(out):
    with (out / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of four runs by one worker."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep = open_sweep(plan_of(folder), folder / "out")
    run_sweep(sweep, 4, reports=False)
    return sweep


def without_training(monkeypatch, value=lambda claim: claim.values["fit.lr"]):
    """Runs whose value is at once a function of what was chosen."""

    def train(sweep, claim, on_epoch, reports):
        for epoch, loss in enumerate([value(claim)] * 3):
            on_epoch(epoch, {"val_loss": loss})
        return 3, value(claim)

    monkeypatch.setattr(worker, "_train", train)


def test_runs_are_run_folders_and_the_table_and_the_best_agree_with_them(finished):
    rows = table(finished.out)
    assert [row["state"] for row in rows] == ["complete"] * 4
    for number, row in enumerate(rows):
        folder = finished.folder(number)
        with (folder / "metrics.csv").open(newline="") as file:
            losses = [float(entry["val_loss"]) for entry in csv.DictReader(file)]
        assert float(row["val_loss"]) == min(losses)
        assert (folder / "model" / "manifest.json").is_file()
        assert (folder / "evaluation.json").is_file()
    best = finished.best()
    assert best is not None
    assert best.value == min(float(row["val_loss"]) for row in rows)


def test_the_best_recipe_reaches_the_value_of_the_best_run(finished, tmp_path):
    best = finished.best()
    assert best is not None
    result = start_run(compose(str(finished.out / BEST)), tmp_path / "run", report=False)
    assert min(result.history["val_loss"]) == best.value
    assert result.config.fit["lr"] == best.values["fit.lr"]


def test_the_journal_is_lines_of_json_and_nothing_else_is_kept(finished):
    for line in (finished.out / JOURNAL).read_text().splitlines():
        assert isinstance(json.loads(line), dict)
    assert {path.name for path in finished.out.iterdir()} == {
        *("sweep.json", "journal.log", "trials", "trials.csv", "best.yaml", ".workers")
    }
    assert list((finished.out / ".workers").iterdir()) == []


def test_a_finished_sweep_does_nothing_more_and_a_larger_n_goes_on(finished, monkeypatch, tmp_path):
    size = (finished.out / JOURNAL).stat().st_size
    run_sweep(finished, 4)
    assert (finished.out / JOURNAL).stat().st_size == size
    without_training(monkeypatch)
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    run_sweep(sweep, 2)
    run_sweep(Sweep(sweep.out, sweep.plan), 5)
    assert [run.number for run in sweep.runs()] == [0, 1, 2, 3, 4]


def test_same_seed_same_choices_however_often_it_is_called(monkeypatch, tmp_path):
    without_training(monkeypatch)
    plan = plan_of(tmp_path, seed=7)
    once = open_sweep(plan, tmp_path / "once")
    run_sweep(once, 14)  # past the ten random ones with which the sampler begins
    for n in (1, 3, 14):
        often = open_sweep(plan, tmp_path / "often")
        run_sweep(often, n)
    assert [run.values for run in often.runs()] == [run.values for run in once.runs()]
    other = open_sweep(plan_of(tmp_path, seed=8), tmp_path / "other")
    run_sweep(other, 2)
    assert other.runs()[0].values != once.runs()[0].values


def test_the_sampler_learns_from_finished_runs(monkeypatch, tmp_path):
    without_training(monkeypatch, lambda claim: float(abs(claim.values["model.latent_dim"] - 30)))
    sweep = open_sweep(plan_of(tmp_path, "model.latent_dim: {low: 1, high: 100}"), tmp_path / "out")
    run_sweep(sweep, 30)
    values = [run.value or 0.0 for run in sweep.runs()]
    assert sum(values[15:]) < 0.6 * sum(values[:15])


def test_hopeless_runs_are_pruned_and_say_so(monkeypatch, tmp_path):
    without_training(monkeypatch, lambda claim: float(claim.number))
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    run_sweep(sweep, 8)
    states = [run.state for run in sweep.runs()]
    assert states == ["complete"] * 5 + ["pruned"] * 3
    assert table(sweep.out)[7]["epochs"] == "1"
    kept = open_sweep(plan_of(tmp_path, pruner="none"), tmp_path / "kept")
    run_sweep(kept, 8)
    assert {run.state for run in kept.runs()} == {"complete"}


def test_pruning_by_a_maximised_metric_looks_at_the_validation_loss(tmp_path):
    plan = plan_of(tmp_path, metric="auroc", direction="maximize", pruner="median")
    sweep = open_sweep(plan, tmp_path / "out")
    assert sweep.watched({"val_loss": 3.0}) == -3.0
    assert sweep.watched({"train_loss": 3.0}) is None


def test_a_pruned_training_leaves_a_run_that_can_be_resumed(tmp_path):
    sweep = open_sweep(plan_of(tmp_path, pruner="none"), tmp_path / "out")
    with Heartbeat(sweep.out / ".workers") as heartbeat:
        claim = sweep.claim(1, heartbeat)
        assert claim is not None
        claim.trial.should_prune = lambda: len(claim.trial.study.trials[0].intermediate_values) == 2
        worker._do(sweep, claim, reports=False)
    assert sweep.runs()[0].state == "pruned"
    assert sweep.runs()[0].facts["epochs"] == 2
    assert resume_run(sweep.folder(0), report=False).history.epochs == 3


def test_a_value_that_the_model_refuses_fails_its_run_only(tmp_path):
    sweep = open_sweep(plan_of(tmp_path, "model.latent_dim: {choices: [-1, 2]}", sampler="grid"), tmp_path / "out")
    run_sweep(sweep, 2, reports=False)
    failed, complete = sweep.runs()
    assert failed.state == "failed"
    assert "latent_dim" in (failed.error or "")
    assert "latent_dim" in table(sweep.out)[0]["error"]
    assert complete.state == "complete"


def test_a_sweep_in_which_everything_fails_stops_and_says_why(tmp_path):
    plan = plan_of(tmp_path, "model.latent_dim: {low: -9, high: -1}")
    sweep = open_sweep(plan, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"first 3 runs failed.*latent_dim"):
        run_sweep(sweep, 20)
    assert len(sweep.runs()) == 3


def test_an_unknown_metric_names_the_nearest(tmp_path):
    plan = plan_of(
        tmp_path, "model.latent_dim: {choices: [2]}", sampler="grid", metric="val_lost", direction="minimize"
    )
    with pytest.raises(ConfigError, match="Did you mean 'val_loss'"):
        run_sweep(open_sweep(plan, tmp_path / "out"), 1, reports=False)


def test_a_grid_takes_every_combination_once_in_order(monkeypatch, tmp_path):
    without_training(monkeypatch, lambda claim: float(claim.number))
    text = "model.latent_dim: {choices: [1, 2]}\nmodel.hidden_dims: {choices: [[4], [8, 4]]}\n"
    sweep = open_sweep(plan_of(tmp_path, text, sampler="grid", pruner="none"), tmp_path / "out")
    run_sweep(sweep, 99)
    assert [tuple(run.values.values()) for run in sweep.runs()] == [(1, [4]), (1, [8, 4]), (2, [4]), (2, [8, 4])]


def test_ctrl_c_gives_the_run_back_and_calling_again_continues_it(monkeypatch, tmp_path):
    sweep = open_sweep(plan_of(tmp_path, overrides=["data.n=2000", "fit.batch_size=32"]), tmp_path / "out")
    watched = Sweep.watched

    def press(self, row):
        os.kill(os.getpid(), signal.SIGINT)
        return watched(self, row)

    monkeypatch.setattr(Sweep, "watched", press)
    with pytest.raises(TrainingInterrupted):
        run_sweep(sweep, 1, reports=False)
    monkeypatch.setattr(Sweep, "watched", watched)
    (lost,) = sweep.runs()
    assert lost.state == "lost"
    assert table(sweep.out)[0]["state"] == "lost"
    run_sweep(sweep, 1, reports=False)
    (run,) = sweep.runs()
    assert run.state == "complete"
    assert run.values == lost.values
    whole = start_run(compose(str(sweep.out / BEST)), tmp_path / "whole", report=False)
    assert min(whole.history["val_loss"]) == run.value


def test_what_a_dead_worker_was_doing_is_done_by_the_next(monkeypatch, tmp_path):
    without_training(monkeypatch)
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    dead = Heartbeat(sweep.out / ".workers")
    dead.__enter__()
    lost = sweep.claim(3, dead)
    assert lost is not None
    lost.trial.report(0.5, 0)
    dead._stop.set()  # as by a kill: its file stays
    sign = sweep.out / ".workers" / dead.name
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    sign.write_text(json.dumps({**json.loads(sign.read_text()), "pid": gone.pid}))
    run_sweep(sweep, 3)
    runs = sweep.runs()
    assert [run.state for run in runs] == ["complete"] * 3
    assert runs[0].values == lost.values
    # The dead one wakes up: what it says does not count any more.
    sweep.finish(lost, "complete", 1e-9, {}, None)
    assert sweep.runs()[0].value == runs[0].value


def test_a_living_worker_keeps_its_run(monkeypatch, tmp_path):
    without_training(monkeypatch)
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    with Heartbeat(sweep.out / ".workers") as other:
        kept = sweep.claim(2, other)
        run_sweep(sweep, 2, minutes=0.05)
        assert [run.state for run in sweep.runs()] == ["running", "complete"]
        assert kept is not None
        assert sweep.is_mine(kept.trial)


def test_a_worker_on_another_machine_is_dead_when_it_has_been_silent(tmp_path):
    with Heartbeat(tmp_path) as here, Heartbeat(tmp_path) as there:
        sign = tmp_path / there.name
        sign.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "start": "1"}))
        assert not here.is_dead(there.name)
        os.utime(sign, (1e9, 1e9))
        assert here.is_dead(there.name)
        assert here.is_dead("../../etc/passwd")


def test_a_run_that_kills_its_worker_three_times_has_failed(monkeypatch, tmp_path):
    without_training(monkeypatch)
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    with Heartbeat(sweep.out / ".workers") as heartbeat:
        for _ in range(3):
            claim = sweep.claim(1, heartbeat)
            assert claim is not None
            sweep.lose(claim.trial._trial_id, "died")
        assert sweep.claim(1, heartbeat) is None
    assert sweep.runs()[0].error == "its worker died 3 times"


def test_a_half_written_line_is_cut_off(monkeypatch, tmp_path):
    without_training(monkeypatch)
    plan = plan_of(tmp_path)
    sweep = open_sweep(plan, tmp_path / "out")
    run_sweep(sweep, 1)
    with (sweep.out / JOURNAL).open("a") as file:
        file.write('{"op_code": 6, "wor')
    again = open_sweep(plan, tmp_path / "out")
    run_sweep(again, 2)
    assert [run.state for run in again.runs()] == ["complete"] * 2


def test_a_damaged_journal_is_refused(finished, tmp_path):
    plan = plan_of(tmp_path)
    out = tmp_path / "out"
    open_sweep(plan, out)
    (out / JOURNAL).write_text("no journal\n")
    with pytest.raises(ArtifactError, match="damaged"):
        open_sweep(plan, out)


def test_another_plan_in_the_same_folder_is_refused(tmp_path):
    open_sweep(plan_of(tmp_path), tmp_path / "out")
    with pytest.raises(ConfigError, match="another space, seed"):
        open_sweep(plan_of(tmp_path, "model.latent_dim: {low: 1, high: 4}", seed=3), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not empty"):
        open_sweep(plan_of(tmp_path), tmp_path / "full")


def test_two_workers_share_a_study_and_one_may_be_killed(monkeypatch, tmp_path):
    sweep = open_sweep(plan_of(tmp_path), tmp_path / "out")
    codes = []

    def kill_the_first():
        while True:
            time.sleep(0.02)
            for trial in sweep.study.get_trials(deepcopy=False):
                name = trial.user_attrs.get("worker")
                number = trial.user_attrs.get("run")
                # In its run: a worker that dies while it claims leaves locks, for which the other waits a minute.
                if number is not None and (sweep.folder(number) / "config.yaml").exists():
                    os.kill(json.loads((sweep.out / ".workers" / name).read_text())["pid"], signal.SIGKILL)
                    return

    explain = worker._explain
    monkeypatch.setattr(worker, "_explain", lambda *facts: (codes.extend(facts[2]), explain(*facts)))
    thread = threading.Thread(target=kill_the_first, daemon=True)
    thread.start()
    run_sweep(sweep, 2, workers=2, reports=False)
    thread.join()
    assert sorted(codes) == [-signal.SIGKILL, 0]
    assert [run.state for run in sweep.runs()] == ["complete"] * 2
    assert [trial.user_attrs.get("lost") for trial in sweep.study.get_trials()].count("died") == 1
