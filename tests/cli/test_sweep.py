import json
import subprocess
import sys

import pytest

from noumena.cli.main import main

COMMAND = ("sweep", "density/synthetic", "data.n=200", "fit.max_epochs=2")


def run(capfd, *arguments):
    """Run the command line in this process; its exit code, output and error output."""
    old = sys.argv
    sys.argv = ["noumena", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = old
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("model.latent_dim: {choices: [1, 2]}\n")
    return path


def test_a_sweep_shows_its_runs_and_is_continued_by_its_folder_alone(space, tmp_path, capfd):
    out = tmp_path / "sweep"
    code, printed, err = run(capfd, *COMMAND, "--space", space, "-n", 1, "--out", out, "--no-reports")
    assert code == 0, err
    assert "best.yaml" in printed
    assert "complete" in printed
    code, printed, err = run(capfd, "sweep", "--out", out, "-n", 2, "--no-reports", "--json")
    assert code == 0, err
    facts = json.loads(printed)
    assert [entry["state"] for entry in facts["runs"]] == ["complete"] * 2
    assert facts["best"]["value"] == min(entry["value"] for entry in facts["runs"])
    assert not (out / "trials" / "0000" / "report.html").exists()


def test_wrong_use_is_one_readable_block(space, tmp_path, capfd):
    for arguments, words in (
        (COMMAND, "--space FILE"),
        ((*COMMAND, "--space", space), "-n N"),
        ((*COMMAND, "--space", tmp_path / "none.yaml", "-n", 1), "none.yaml"),
        (("sweep", "--json"), "--out DIR"),
        (("sweep", "--out", tmp_path / "sweep", "-n", 3, "--seed", 1), "--seed"),
    ):
        code, _, err = run(capfd, *arguments)
        assert code == 2
        assert words in err
        assert "Traceback" not in err


def test_help_imports_neither_optuna_nor_torch():
    script = (
        "import sys\nfrom noumena.cli.main import main\nsys.argv = ['noumena', 'sweep', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('optuna', 'torch', 'omegaconf') if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "--space" in shown
    assert shown.splitlines()[-1] == "[]"


def test_without_optuna_the_error_names_the_extra(space, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = run(capfd, *COMMAND, "--space", space, "-n", 1, "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'noumena[sweep]'" in err
