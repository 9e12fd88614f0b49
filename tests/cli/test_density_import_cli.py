import json
from pathlib import Path

import noumena
from tests.cli.test_cli import run
from tests.density.test_importing import METADATA, flow_state, rows, vae_state, write


def test_a_vae_of_gormpo_becomes_a_model_folder_that_scores_episodes(tmp_path, capfd):
    base = write(tmp_path, vae_state(columns=14), {**METADATA, "input_dim": 14})
    out = tmp_path / "model"
    code, said, _ = run(capfd, "import", "gormpo", base, "-o", out, "--actions", "3", "--json")
    assert code == 0
    facts = json.loads(said)
    assert (facts["model"], facts["columns"], facts["threshold"]) == ("density/vae", 14, -2.5)
    assert noumena.load(out).score_samples(rows(columns=14)).shape == (20,)
    assert run(capfd, "score", out, "sample:hopper", "-o", tmp_path / "scores.csv")[0] == 0


def test_the_folder_is_called_after_the_model_by_default(tmp_path, monkeypatch, capfd):
    write(tmp_path, flow_state())
    monkeypatch.chdir(tmp_path)
    assert "no threshold -> hopper" in run(capfd, "import", "gormpo", ".")[1]
    assert Path("hopper/manifest.json").is_file()
    code, _, said = run(capfd, "import", "gormpo", ".")
    assert code == 4
    assert "exists already" in said


def test_errors_are_said_in_words_with_the_code_of_their_kind(tmp_path, capfd):
    code, _, said = run(capfd, "import", "gormpo", tmp_path / "none", "-o", tmp_path / "model")
    assert code == 4
    assert "Check the path" in said
    base = write(tmp_path, vae_state(), METADATA)
    code, _, said = run(capfd, "import", "gormpo", base, "-o", tmp_path / "model", "--actions", "5")
    assert code == 2
    assert "actions: expected 1 to 4" in said
    assert not (tmp_path / "model").exists()
