"""``noumena push``, and ``hf://`` wherever the command line takes a model."""

import json

import numpy as np
import pytest

from noumena.artifact import store
from tests.artifact.fake_hub import hub_server as server
from tests.artifact.folders import rows, small_model
from tests.cli.test_cli import run

REPO = "ada/tiny"
__all__ = ["server"]  # a fixture


@pytest.fixture
def folder(tmp_path):
    store.save(small_model(), tmp_path / "model", metrics={"auroc": 0.9})
    return tmp_path / "model"


def test_push_prints_how_to_load_it(server, folder, capfd):
    code, out, err = run(capfd, "push", folder, REPO, "--message", "first", "--license", "mit", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["repo"] == REPO
    assert facts["load"] == f"hf://{REPO}@{facts['commit']}"
    assert server.repos[REPO].messages[-1] == "first"
    code, out, _ = run(capfd, "verify", facts["load"])
    assert (code, out[:2]) == (0, "ok")
    code, out, _ = run(capfd, "push", folder, REPO, "--revision", "v2")
    assert f'noumena.load("hf://{REPO}@' in out
    assert set(server.repos[REPO].branches) == {"main", "v2"}


def test_private_and_endpoint(server, folder, capfd, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, _, err = run(capfd, "push", folder, REPO, "--private", "--endpoint", server.url)
    assert code == 0, err
    assert server.repos[REPO].private


def test_verbs_take_a_model_of_the_hub(server, folder, tmp_path, capfd):
    run(capfd, "push", folder, REPO)
    np.save(tmp_path / "rows.npy", rows())
    for verb in ("score", "encode", "reconstruct"):
        code, _, err = run(capfd, verb, f"hf://{REPO}@main", tmp_path / "rows.npy", "-o", tmp_path / f"{verb}.csv")
        assert code == 0, err
        here, _, _ = run(capfd, verb, folder, tmp_path / "rows.npy", "-o", tmp_path / "here.csv")
        assert here == 0
        assert (tmp_path / f"{verb}.csv").read_text() == (tmp_path / "here.csv").read_text()


def test_a_model_of_the_hub_is_evaluated_on_data(server, folder, tmp_path, capfd):
    run(capfd, "push", folder, REPO)
    np.save(tmp_path / "rows.npy", rows())
    code, out, err = run(capfd, "evaluate", f"hf://{REPO}", tmp_path / "rows.npy", "--json")
    assert code == 0, err
    assert json.loads(out)


@pytest.mark.parametrize("verb", ["score", "encode", "reconstruct", "sample", "evaluate", "explore", "verify"])
def test_the_help_of_a_verb_names_the_hub(verb, capfd):
    _, out, _ = run(capfd, verb, "--help")
    assert "hf://OWNER/NAME" in out


def test_a_command_reads_one_revision_throughout(server, folder, capfd):
    run(capfd, "push", folder, REPO)
    server.requests.clear()
    code, _, _ = run(capfd, "verify", f"hf://{REPO}")
    assert code == 0
    # `verify` looks at the folder three times; the Hub is asked once what the newest commit is, then for it.
    assert len([path for _, path in server.requests if path.startswith("/api/models/")]) <= 3


def test_errors_are_one_block_with_an_exit_code(server, folder, capfd, monkeypatch):
    code, out, err = run(capfd, "encode", "hf://ada/nothing", "rows.npy")
    assert (code, out) == (4, "")
    assert err.startswith("ArtifactError: hf://ada/nothing: no such repository")
    assert "Traceback" not in err
    code, _, err = run(capfd, "push", folder, "tiny")
    assert code == 2
    assert "OWNER/NAME" in err
    code, _, err = run(capfd, "push", folder / "none", REPO)
    assert code == 4
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = run(capfd, "push", folder, REPO)
    assert code == 4
    assert "hf auth login" in err
