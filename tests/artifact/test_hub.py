"""Pushing to and loading from the Hub, against a server of our own."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import noumena
from noumena.artifact import hub, store
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from tests.artifact.fake_hub import hub_server as server
from tests.artifact.folders import FILES, rows, small_model

REPO = "ada/tiny"
__all__ = ["server"]  # a fixture


@pytest.fixture
def folder(tmp_path):
    store.save(small_model(), tmp_path / "model", metrics={"auroc": 0.87654, "rows": 60.0})
    return tmp_path / "model"


def damage(server, name, change, revision="main"):
    """A commit of a stranger that changes one file."""
    server.repos[REPO].add(revision, {name: change(server.files(REPO, revision)[name])}, "changed")


def test_a_pushed_model_comes_back_bit_for_bit(server, folder):
    made = hub.push(folder, REPO)
    model, loaded = noumena.load(folder), noumena.load(f"hf://{REPO}")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert np.array_equal(model.score_samples(rows(seed=1)), loaded.score_samples(rows(seed=1)))
    assert made.address == f"hf://{REPO}@{made.commit}"
    assert {name: (folder / name).read_bytes() for name in FILES}.items() <= server.files(REPO).items()


def test_nothing_but_the_model_folder_is_uploaded_of_a_run(server, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "model")
    (run / "log.txt").write_text("of nobody else")
    (run / "model" / "notes.txt").write_text("mine")
    hub.push(run, REPO)
    assert set(server.files(REPO)) == {*FILES, "README.md", ".gitattributes"}


def test_nothing_but_the_model_folder_is_downloaded(server, folder):
    hub.push(folder, REPO)
    server.repos[REPO].add("main", {"setup.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}, "more")
    noumena.load(f"hf://{REPO}")
    assert server.downloads() == sorted(FILES)


def test_the_page_has_metadata_metrics_and_three_lines_that_load(server, folder):
    hub.push(folder, REPO, licence="apache-2.0")
    page = server.files(REPO)["README.md"].decode()
    _, metadata, text = page.split("---\n", 2)
    assert OmegaConf.to_container(OmegaConf.create(metadata)) == {
        "library_name": "noumena",
        "license": "apache-2.0",
        "tags": ["noumena", "density", "density-vae"],
    }
    assert "| auroc | 0.8765 |" in text
    assert "density family" in text
    assert "Not stated" not in text
    lines = [line for line in text.partition("```python\n")[2].partition("```")[0].splitlines() if line]
    assert len(lines) == 3
    names = {"data": rows()}
    exec("\n".join(lines), names)
    assert names["latents"].shape == (60, 2)


def test_without_a_licence_the_page_states_none(server, folder):
    hub.push(folder, REPO)
    page = server.files(REPO)["README.md"].decode()
    assert "license:" not in page
    assert "Not stated" in page


def test_a_commit_is_loaded_as_it_was_and_a_branch_as_it_is(server, folder, tmp_path):
    first = hub.push(folder, REPO)
    small_model(seed=1).save(tmp_path / "second")
    hub.push(tmp_path / "second", REPO, message="better")
    assert server.repos[REPO].messages[-1] == "better"
    old, new = noumena.load(first.address), noumena.load(f"hf://{REPO}@main")
    assert np.array_equal(old.score_samples(rows()), small_model().score_samples(rows()))
    assert np.array_equal(new.score_samples(rows()), small_model(seed=1).score_samples(rows()))


def test_a_revision_is_a_branch_of_its_own(server, folder):
    hub.push(folder, REPO, revision="v2")
    assert "manifest.json" not in server.files(REPO)
    assert noumena.load(f"hf://{REPO}@v2").latent_dim == 2


def test_a_cached_commit_asks_nobody(server, folder):
    made = hub.push(folder, REPO)
    noumena.load(made.address)
    asked = len(server.requests)
    noumena.load(made.address)
    assert len(server.requests) == asked


def test_after_a_download_the_network_may_be_gone(server, folder, caplog):
    hub.push(folder, REPO)
    noumena.load(f"hf://{REPO}")
    server.close()
    with caplog.at_level(logging.WARNING, "noumena"):
        model = noumena.load(f"hf://{REPO}")
    assert np.array_equal(model.score_samples(rows()), small_model().score_samples(rows()))
    assert "cannot be reached" in caplog.text


def test_a_server_in_trouble_is_like_no_network(server, folder, caplog):
    hub.push(folder, REPO)
    noumena.load(f"hf://{REPO}")
    server.trouble = 503
    with caplog.at_level(logging.WARNING, "noumena"):
        noumena.load(f"hf://{REPO}")
    assert "from the cache" in caplog.text


def test_a_copy_does_not_hide_that_the_repository_is_gone(server, folder):
    hub.push(folder, REPO)
    noumena.load(f"hf://{REPO}")
    del server.repos[REPO]
    with pytest.raises(ArtifactError, match="no such repository"):
        noumena.load(f"hf://{REPO}")


def test_without_a_network_and_a_copy_it_says_so(server):
    server.close()
    with pytest.raises(ArtifactError, match=r"hf://ada/tiny: the Hub cannot be reached .* Check the network"):
        noumena.load(f"hf://{REPO}")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "model.safetensors has changed"),
        ("model.safetensors", lambda data: data[:-8], "bytes instead of"),
        ("config.json", lambda data: data.replace(b"2", b"3", 1), "config.json has changed"),
        ("manifest.json", lambda data: data.replace(b"density/vae", b"density/gmm"), "does not match its hash"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_loaded(server, folder, name, change, words):
    hub.push(folder, REPO)
    damage(server, name, change)
    with pytest.raises(ArtifactError, match=words) as caught:
        noumena.load(f"hf://{REPO}")
    assert "delete that folder" in str(caught.value)


def test_a_copy_damaged_on_the_disk_is_refused_and_mended_as_the_error_says(server, folder, tmp_path):
    made = hub.push(folder, REPO)
    weights = hub.fetch(made.address) / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ArtifactError) as caught:
        noumena.load(made.address)
    place = Path(str(caught.value).partition("The copy is in ")[2].partition(";")[0])
    assert place.is_relative_to(tmp_path / "cache")
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    noumena.load(made.address)


def test_a_repository_without_a_model_is_refused(server, folder):
    hub.push(folder, REPO)
    server.repos["ada/other"] = type(server.repos[REPO])(private=False)
    server.repos["ada/other"].add("main", {"pytorch_model.bin": b"pickle"}, "theirs")
    with pytest.raises(ArtifactError, match=r"manifest\.json|no model folder"):
        noumena.load("hf://ada/other")


def test_a_missing_repository_and_a_missing_revision_are_named(server, folder):
    hub.push(folder, REPO)
    with pytest.raises(ArtifactError, match=r"hf://ada/nothing: no such repository.*HTTP 404"):
        noumena.load("hf://ada/nothing")
    with pytest.raises(ArtifactError, match=r"hf://ada/tiny@v9: the repository has no such revision"):
        noumena.load(f"hf://{REPO}@v9")


def test_a_private_repository_is_for_who_has_a_token(server, folder, monkeypatch):
    hub.push(folder, REPO, private=True)
    noumena.load(f"hf://{REPO}")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactError, match=r"HTTP 401.*hf auth login"):
        noumena.load(f"hf://{REPO}")


def test_pushing_needs_a_token_and_one_that_is_accepted(server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    with pytest.raises(ArtifactError, match=r"ada/tiny: the access token is not accepted \(HTTP 401\)"):
        hub.push(folder, REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactError, match="none is found"):
        hub.push(folder, REPO)
    assert not server.repos


def test_a_public_repository_is_not_taken_for_a_private_one(server, folder):
    hub.push(folder, REPO)
    before = dict(server.files(REPO))
    with pytest.raises(ConfigError, match="is public"):
        hub.push(folder, REPO, private=True)
    assert server.files(REPO) == before


def test_a_damaged_folder_is_not_pushed(server, folder):
    (folder / "card.md").write_text("other")
    with pytest.raises(ArtifactError, match=r"card\.md"):
        hub.push(folder, REPO)
    assert not server.requests


def test_pushing_to_a_server_that_is_gone_says_so(server, folder):
    server.close()
    with pytest.raises(ArtifactError, match="cannot be reached"):
        hub.push(folder, REPO)


@pytest.mark.parametrize("address", ["hf://tiny", "hf://a/b/c", "hf://ada/tiny@", "hf://ada/../x", "hf://a/b@../../x"])
def test_another_form_of_address_is_refused(address):
    with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
        noumena.load(address)


@pytest.mark.parametrize("licence", ["apache 2", "mit\ntags: [x]"])
def test_a_licence_is_an_identifier(folder, licence):
    with pytest.raises(ConfigError, match="identifier"):
        hub.push(folder, REPO, licence=licence)


def test_without_the_package_the_error_has_the_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[hub\]'"):
        noumena.load(f"hf://{REPO}")
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[hub\]'"):
        hub.push(folder, REPO)
