import numpy as np
import pytest

from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.jepa import JEPA
from tests.cli.test_cli import run

TINY = ("data.sequences=8", "data.steps=4", "data.test_sequences=8", "model.latent_dim=8", "fit.batch_size=4")
FAST = ("evaluate.probe_train_sequences=8", "evaluate.probe_sequences=8", "evaluate.baselines=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from typer.testing import CliRunner

    from noumena.cli.main import app

    folder = tmp_path_factory.mktemp("dots") / "run"
    arguments = ["fit", "worldmodels/dots", *TINY, *FAST, "fit.max_epochs=1", "fit.accelerator=cpu", "--out", folder]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    data = open_dots(sequences=8, test_sequences=0, steps=4)
    model = JEPA(latent_dim=8)
    model.prepare(data.train)
    folder = tmp_path_factory.mktemp("bare") / "model"
    model.save(folder)
    return folder


def test_a_run_on_made_data_is_evaluated_under_other_noise(trained, capfd):
    code, out, err = run(capfd, "evaluate", trained, "data.fixed=2", "--json")
    assert code == 0, err
    assert '"rmse"' in out


def test_a_file_for_a_run_on_made_data_is_refused_with_what_to_do(trained, tmp_path, capfd):
    code, _, err = run(capfd, "evaluate", trained, tmp_path / "mine.npz")
    assert code == 2
    assert "of kind 'dots', are made and have no file" in err
    assert "data.kind=KIND" in err


def test_a_file_of_frames_that_fit_is_taken_when_its_kind_is_said(trained, tmp_path, capfd):
    rng = np.random.default_rng(0)
    frames = rng.random((6, 4, 28, 28, 1), np.float32)
    np.savez(tmp_path / "mine.npz", frames=frames, actions=rng.random((6, 3, 2), np.float32))
    code, out, err = run(
        capfd, "evaluate", trained, tmp_path / "mine.npz", "data.kind=episodes", "data.steps=4", *FAST, "--json"
    )
    assert code == 0, err
    assert '"slow_index"' in out
    assert run(capfd, "encode", trained, tmp_path / "mine.npz", "-o", tmp_path / "z.csv")[0] == 0
    assert len((tmp_path / "z.csv").read_text().splitlines()) == 1 + 6 * 4


def test_a_model_without_its_run_is_evaluated_on_data_that_are_made(bare, capfd):
    code, _, err = run(capfd, "evaluate", bare)
    assert code == 2
    assert "such as data.seed=0" in err
    code, out, err = run(
        capfd, "evaluate", bare, "data.fixed=1", "data.test_sequences=8", "data.steps=4", *FAST, "--json"
    )
    assert code == 0, err
    assert '"rmse"' in out


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (("reconstruct", "frames.npz"), "has no decoder; use `encode`"),
        (("score", "frames.npz"), "has no score"),
        (("sample", "-n", "2"), "cannot generate"),
        (("export", "-o", "model.onnx"), "cannot be exported"),
        (("encode", "nothing.npz"), "no such file"),
        (("encode", "grey.npz"), "give grey frames an axis of one channel"),
    ],
)
def test_what_a_jepa_cannot_do_is_refused_in_words(bare, tmp_path, monkeypatch, capfd, verb, words):
    monkeypatch.chdir(tmp_path)
    np.savez("frames.npz", frames=np.zeros((2, 4, 28, 28, 1), np.float32))
    np.savez("grey.npz", frames=np.zeros((2, 6, 28, 28), np.float32))
    code, _, err = run(capfd, verb[0], bare, *verb[1:])
    assert code in (2, 3)
    assert words in err
