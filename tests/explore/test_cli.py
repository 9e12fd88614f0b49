import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from importlib import util

import numpy as np
import pytest

import noumena
from noumena.explore import server
from tests.cli.test_cli import run

OPTIONS = ["data.label=y", "fit.max_epochs=1", "model.hidden_dims=[8]", "model.latent_dim=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run of the density family, and the table it was trained on."""
    folder = tmp_path_factory.mktemp("explore")
    random = np.random.default_rng(0)
    rows = random.normal(size=(120, 3))
    lines = [f"{a},{b},{c},{int(i % 10 == 0)}\n" for i, (a, b, c) in enumerate(rows)]
    table = folder / "table.csv"
    table.write_text("height,width,mass,y\n" + "".join(lines))
    noumena.run_recipe("density/table", [f"data.path={table}", *OPTIONS], out=folder / "run")
    return folder / "run", table


@pytest.fixture
def no_server(monkeypatch):
    """The verb without its last step; what it would have answered with."""
    asked = []
    monkeypatch.setattr(server.Server, "serve", lambda self: asked.append(self.url) or self.close())
    return asked


def test_it_says_where_the_page_is(trained, no_server, capfd):
    code, out, err = run(capfd, "explore", trained[0], "--port", 0, "--no-browser", "--limit", 12, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == {"url": no_server[0], "port": told["port"], "points": 12}
    assert told["url"] == f"http://127.0.0.1:{told['port']}/"


def test_other_data_are_explored_like_they_are_evaluated(trained, no_server, capfd):
    folder, table = trained
    for source in (folder, folder / "model"):
        code, out, err = run(capfd, "explore", source, table, "data.label=y", "--port", 0, "--no-browser")
        assert code == 0, err
        assert no_server[-1] in out


@pytest.mark.parametrize("what", ["evaluate", "explore"])
def test_it_takes_the_same_arguments_as_evaluate_and_refuses_the_same(trained, what, capfd):
    folder, table = trained
    for arguments, expected in (
        ((folder / "model",), (2, "is a model without its run")),
        ((folder, table, table), (2, "one DATA path at most")),
        ((folder, "fit.lr=1"), (2, "data and evaluate only")),
        ((folder, "nowhere.csv"), (3, "nowhere.csv")),
        ((folder.parent,), (4, "")),
    ):
        code, _, err = run(capfd, what, *arguments)
        assert (code, expected[1] in err) == (expected[0], True), err
        assert "Traceback" not in err


def broken(trained, tmp_path, change):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda run: shutil.rmtree(run / "model"), 4, "manifest.json"),
        (lambda run: (run / "model" / "model.safetensors").write_bytes(b"x"), 4, "model.safetensors"),
        (
            lambda run: (run / "config.yaml").write_text(
                (run / "config.yaml").read_text().replace("table.csv", "moved.csv")
            ),
            3,
            "moved.csv",
        ),
    ],
    ids=["no model", "damaged model", "data moved"],
)
def test_a_broken_run_is_an_error_in_words(trained, tmp_path, capfd, change, code, words):
    found, _, err = run(capfd, "explore", broken(trained, tmp_path, change), "--port", 0, "--no-browser")
    assert found == code, err
    assert words in err
    assert "Traceback" not in err


def test_a_family_without_explorer_is_refused_with_those_that_have_one(trained, capfd, monkeypatch):
    from dataclasses import replace

    from noumena.explore import opening

    plain = opening.family
    monkeypatch.setattr(opening, "family", lambda name: replace(plain(name), explore=""))
    code, _, err = run(capfd, "explore", trained[0], "--port", 0, "--no-browser")
    assert code == 2
    assert "density/vae: its family has no explorer. Families that have one: " in err


def test_a_port_that_is_taken_is_an_error_in_words(trained, capfd):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = run(capfd, "explore", trained[0], "--port", port, "--no-browser")
    assert code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in err


def test_without_dash_the_message_has_the_command(capfd, monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "dash" else util.find_spec(name))
    code, _, err = run(capfd, "explore", "anything")
    assert code == 2
    assert "pip install 'noumena[explore]'" in err


def test_ctrl_c_ends_it(trained):
    start = "import sys; from noumena.cli.main import main; sys.argv[0] = 'noumena'; main()"
    command = [sys.executable, "-c", start, "explore", str(trained[0]), "--port", "0", "--no-browser", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"react-entry-point" in answer.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, 130)
    assert "Traceback" not in err
