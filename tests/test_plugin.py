"""A family from another package: installed beside the library, by nothing but its entry point."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from noumena import plugins, registry
from noumena.config import find_recipe, recipes
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError

PLUGIN = Path(__file__).parent / "plugin"
PAGE = (Path(__file__).parents[1] / "docs" / "new_family.md").read_text(encoding="utf-8")

# Runs commands and snippets one after another in one process, and tells what each gave.
DRIVER = """
import contextlib, io, json, sys
from noumena.cli.main import main

results = []
for kind, what in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if kind == "python":
                exec(what, {})
            else:
                sys.argv = what
                main()
        except SystemExit as stop:
            code = stop.code or 0
    results.append({"what": what, "code": code, "out": out.getvalue(), "err": err.getvalue()})
json.dump(results, sys.__stdout__)
"""

# What the explorer's page asks of a family.
EXPLORED = """
import json
from pathlib import Path
from noumena.explore.opening import open_run

service = open_run(Path("run"), [], limit=20, device="cpu")
explorer = service.explorer
z = explorer.positions(3)
drawn = [explorer.original(3), explorer.reconstruction(3), explorer.moved(3, z), *explorer.path(3, 4, 2)]
drawn += explorer.samples(1, 0)
service.close()
print(json.dumps({
    "names": explorer.points.names,
    "curves": [one.figure["data"][0]["y"] for one in drawn],
    "files": [one.file().decode() for one in drawn],
}))
"""


def install(site, name, entries, *, requires=(), package=None, files=None):
    """What an installer leaves in a folder of packages: the package, and metadata with its entry points."""
    site.mkdir(exist_ok=True)
    about = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    about.mkdir()
    needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n{needed}")
    lines = "".join(f"{family} = {module}\n" for family, module in entries.items())
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{lines}")
    if package is not None:
        (site / package.name).symlink_to(package, target_is_directory=True)
    for path, text in (files or {}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


def install_spectra(site):
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"][plugins.GROUP]
    install(site, project["name"], entries, requires=project["dependencies"], package=PLUGIN / "noumena_spectra")


def blocks(language):
    """The page's blocks of a language, each after the name of a file or after nothing, with that name."""
    found, file = [], None
    for match in re.finditer(r"^## [^\n]*$|^`([\w/.]+)`$|^```(\w+)\n(.*?)^```$", PAGE, re.S | re.M):
        if match[0].startswith("##"):
            file = None
        elif match[1]:
            file = match[1]
        elif match[2] == language:
            found.append((file, match[3]))
    return found


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Everything the page tells its reader to run, in its order, and a few things more."""
    folder = tmp_path_factory.mktemp("session")
    install_spectra(folder / "site")
    steps = []
    for match in re.finditer(r"^```(bash|python)\n(.*?)^```$", PAGE.partition("## 8.")[2], re.S | re.M):
        if match[1] == "python":
            steps.append(("python", match[2]))
        else:
            steps += [("noumena", shlex.split(line)) for line in match[2].splitlines()]
    more = [
        "models --json",
        "recipes --json",
        "verify run",
        "export run -o run.onnx",
        "score run run/log.txt -o none.csv",
    ]
    steps += [("noumena", ["noumena", *line.split()]) for line in more]
    steps.append(("python", EXPLORED))
    path = os.pathsep.join([str(folder / "site"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        **{"cwd": folder, "env": {**os.environ, "PYTHONPATH": path}, "input": json.dumps(steps)},
        **{"capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return folder, {r["what"] if isinstance(r["what"], str) else shlex.join(r["what"][1:]): r for r in results}


def test_what_the_page_says_can_be_run(session):
    _, results = session
    said = [line for _, block in blocks("bash") for line in block.splitlines()]
    assert len(said) == 11
    for line in said:
        result = results[line.removeprefix("noumena ")]
        assert result["code"] == 0, (line, result["err"])


def test_the_family_and_its_recipes_are_listed_beside_the_others(session):
    _, results = session
    models = json.loads(results["models --json"]["out"])
    assert {"density/vae", "spectra/vae"} <= set(models)
    assert "spectra/peaks" in json.loads(results["recipes --json"]["out"])
    assert "spectra/vae" in results["recipes spectra/peaks"]["out"]
    assert results["models --json"]["err"] == ""


def test_a_run_of_it_has_everything(session):
    folder, _ = session
    names = {path.name for path in (folder / "run").iterdir()}
    assert {"config.yaml", "metrics.csv", "checkpoints", "model", "figures", "report.html"} <= names
    assert (folder / "run" / "figures" / "reconstructions.png").stat().st_size > 10_000
    assert {"reconstruction_rmse", "pca_rmse"} <= set(json.loads((folder / "run" / "evaluation.json").read_text()))


def test_its_explorer_draws_what_the_page_asks_for(session):
    _, results = session
    assert results[EXPLORED]["code"] == 0, results[EXPLORED]["err"]
    told = json.loads(results[EXPLORED]["out"])
    assert len(told["names"]) == 20
    original, rebuilt, moved, start, end, sample = told["curves"]
    assert len(original) == len(sample) == 128
    assert original != rebuilt != end
    # Where the sliders stand for a sample and where a path begins is the sample's reconstruction.
    assert moved == start == pytest.approx(rebuilt, abs=1e-5)
    assert all(text.startswith("axis,intensity\n") and text.count("\n") == 128 for text in told["files"])


def test_every_row_of_a_file_is_encoded_reconstructed_and_scored(session):
    folder, _ = session
    heads = {"latents": "z0", "reconstructed": "400", "scores": "score"}
    for name, first in heads.items():
        lines = (folder / f"{name}.csv").read_text().splitlines()
        assert len(lines) == 41
        assert lines[0].split(",")[0] == f'"{first}"'
    assert len((folder / "samples.csv").read_text().splitlines()) == 6


def test_what_it_cannot_do_is_said_in_words(session):
    folder, results = session
    export = results["export run -o run.onnx"]
    assert export["code"] == 2
    assert "spectra/vae model cannot be exported" in export["err"]
    assert not (folder / "run.onnx").exists()
    score = results["score run run/log.txt -o none.csv"]
    assert score["code"] == 3
    assert "Traceback" not in score["err"]


def test_a_model_of_a_family_that_is_not_installed_is_refused(session):
    import noumena

    folder, _ = session
    with pytest.raises(ArtifactError, match=r"unknown model 'spectra/vae'.*install"):
        noumena.load(folder / "run")


@pytest.mark.parametrize("language", ["toml", "python", "yaml"])
def test_the_pages_code_is_the_packages(language):
    compared = 0
    for file, block in blocks(language):
        if file is None:
            continue
        compared += 1
        source, place = (PLUGIN / file).read_text(), 0
        for piece in block.split("...\n"):
            assert piece in source[place:], (file, piece)
            place = source.index(piece, place) + len(piece)
    assert compared


def test_the_page_names_every_file_of_the_package():
    files = [path for path in PLUGIN.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in files:
        assert f"`{path.relative_to(PLUGIN)}`" in PAGE


# Plug-ins with faults


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages of this process; nothing of it is remembered afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    before = set(sys.modules)
    caches = (plugins.plugins, plugins.load)
    for cached in caches:
        cached.cache_clear()
    yield tmp_path / "site"
    for cached in caches:
        cached.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("bad", "noumena_spectra")):
            del sys.modules[name]


def family_file(name, **places):
    fields = {"models": {}, "data": {}, "stream": "", "evaluate": "", **places}
    words = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    return f"from noumena.core.family import Family\nFAMILY = Family(name={name!r}, summary='', {words})\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import a_package_that_is_not_there\n", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("raise RuntimeError('no licence')\n", "importing bad_one failed: RuntimeError: no licence"),
        ("def broken(:\n", "SyntaxError"),
        ("", "FAMILY: expected a noumena.core.family.Family, found nothing"),
        ("FAMILY = {'name': 'bad'}\n", "found dict"),
        (family_file("other"), "is called 'other', its entry point 'bad'"),
    ],
)
def test_a_broken_plug_in_is_listed_with_its_reason_and_breaks_nothing(site, text, words):
    install(site, "bad-one", {"bad": "bad_one"}, files={"bad_one/__init__.py": text})
    install_spectra(site)
    [broken] = registry.broken_families()
    assert (broken.name, broken.package) == ("bad", "bad-one")
    assert words in broken.reason
    assert [entry.name for entry in registry.families()] == [*registry.FAMILIES, "spectra"]
    assert {"density/hopper", "spectra/peaks"} <= {recipe.name for recipe in recipes()}
    with pytest.raises(NotSupportedError, match="pip uninstall bad-one") as caught:
        registry.family("bad")
    assert words in str(caught.value)


def test_a_plug_in_cannot_replace_a_built_in_family(site):
    install(site, "bad-one", {"density": "bad_one"}, files={"bad_one/__init__.py": family_file("density")})
    assert registry.family("density").models["vae"] == "noumena.density.model:VAE"
    [broken] = registry.broken_families()
    assert "is built in, and a plug-in cannot replace it" in broken.reason
    assert "bad_one" not in sys.modules


def test_two_plug_ins_of_one_name_are_both_refused(site):
    for package in ("bad-one", "bad-two"):
        file = f"{package.replace('-', '_')}/__init__.py"
        install(site, package, {"bad": package.replace("-", "_")}, files={file: family_file("bad")})
    assert [broken.package for broken in registry.broken_families()] == ["bad-one", "bad-two"]
    with pytest.raises(NotSupportedError, match="2 installed packages offer"):
        registry.family("bad")


@pytest.mark.parametrize(("name", "module"), [("Bad Name", "bad_one"), ("bad", "bad_one:FAMILY"), ("bad", "bad-one")])
def test_a_malformed_entry_point_is_a_fault(site, name, module):
    install(site, "bad-one", {name: module}, files={"bad_one/__init__.py": family_file("bad")})
    [broken] = registry.broken_families()
    assert "expected" in broken.reason


@pytest.mark.parametrize(
    ("requires", "command"),
    [
        (["numpy", "Absent-Package>=2; extra == 'fast'"], r"pip install 'bad-one\[fast\]'"),
        (["absent_package"], r"pip install 'bad-one'"),
        ([], "does not name among its requirements"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_plug_ins_own_command(site, requires, command):
    files = {
        "bad_one/__init__.py": family_file("bad", models={"vae": "bad_one.model:VAE"}),
        "bad_one/model.py": "import absent_package.parts\n",
    }
    install(site, "bad-one", {"bad": "bad_one"}, requires=requires, files=files)
    assert registry.broken_families() == []
    with pytest.raises(NotSupportedError, match=command) as caught:
        registry.model_class("bad/vae")
    assert "noumena[" not in str(caught.value)


@pytest.mark.parametrize("place", ["bad_one.nowhere:VAE", "bad_one:VAE"])
def test_a_place_that_is_not_there_is_the_plug_ins_fault(site, place):
    files = {"bad_one/__init__.py": family_file("bad", models={"vae": place})}
    install(site, "bad-one", {"bad": "bad_one"}, files=files)
    with pytest.raises(NotSupportedError, match=f"'bad' of the package 'bad-one' cannot be used: {place}"):
        registry.model_class("bad/vae")


def test_a_recipe_that_is_none_is_listed_as_such(site):
    files = {"bad_one/__init__.py": family_file("bad"), "bad_one/recipes/it.yaml": "model: [1\n"}
    install(site, "bad-one", {"bad": "bad_one"}, files=files)
    listed = {recipe.name: recipe.description for recipe in recipes()}
    assert listed["bad/it"].startswith("broken: bad/it is no valid YAML")
    assert listed["density/hopper"]
    with pytest.raises(ConfigError, match="no valid YAML"):
        find_recipe("bad/it")
