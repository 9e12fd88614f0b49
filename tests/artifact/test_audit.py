"""What loading does to the interpreter, watched from inside it by an audit hook in a fresh process."""

import json
import os
import pickle
import subprocess
import sys

import pytest

from tests.artifact.folders import change_config, sign, small_model

WATCHED = """
import json, sys
events = []
warm, folders = sys.argv[1] == "warm", sys.argv[2:]
import noumena
if warm:
    import noumena.artifact, noumena.density.model
watching = None

def watch(event, args):
    if watching is None:
        return
    if event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork",
                 "socket.connect", "exec", "compile"):
        place = args[0].co_filename if event == "exec" else str(args[1]) if event == "compile" else ""
        events.append([event, place])
    if event == "open" and str(args[0]).startswith(watching) and "w" in str(args[1] or "r"):
        events.append(["write", str(args[0])])

sys.addaudithook(watch)
seen = []
for folder in folders:
    before, events, outcome = set(sys.modules), [], "loaded"
    watching = folder
    try:
        noumena.load(folder)
    except Exception as error:
        outcome = type(error).__name__
    watching = None
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    made = ("_sysconfigdata_", "_cython_", "cython_runtime")  # modules without a package: Python's and numpy.random's
    third = sorted(name for name in imported if name not in sys.stdlib_module_names and not name.startswith(made))
    seen.append({"outcome": outcome, "events": events, "imported": third})
print(json.dumps(seen))
"""

ALLOWED = {"noumena", "torch", "safetensors", "numpy", "pydantic"}
# What these import themselves: typing helpers, pydantic's core and torch's own dependencies. Where dill is installed
# (smact brings it along), torch imports it, only to switch its hooks off.
ALLOWED_BY_THEM = {
    "pydantic_core", "typing_extensions", "typing_inspection", "annotated_types", "torchgen", "functorch",
    "sympy", "mpmath", "packaging", "filelock", "jinja2", "markupsafe", "networkx", "fsspec", "dateutil", "six", "yaml",
    "tqdm", "dill", "__mp_main__",
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    small_model().save(tmp_path / "model")
    return tmp_path / "model"


def watch_loads(folders, *, warm):
    """What each load did, all in one fresh process; ``warm``: after the library was imported."""
    command = [sys.executable, "-c", WATCHED, "warm" if warm else "cold", *map(str, folders)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folders[0].parent)
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


def watch_load(folder, *, warm):
    return watch_loads([folder], warm=warm)[0]


def test_loading_imports_nothing_that_an_artifact_does_not_need(saved):
    seen = watch_load(saved, warm=False)
    assert seen["outcome"] == "loaded"
    assert set(seen["imported"]) - ALLOWED - ALLOWED_BY_THEM == set()
    assert "pytorch_lightning" not in seen["imported"]


def test_loading_starts_no_process_and_unpickles_nothing(saved):
    events = {name for name, _ in watch_load(saved, warm=False)["events"]}
    assert events.isdisjoint({"pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.fork", "write"})
    assert "socket.connect" not in events


def test_once_the_library_is_imported_loading_compiles_and_executes_no_code_of_the_artifact(saved):
    seen = watch_load(saved, warm=True)
    assert seen["outcome"] == "loaded"
    own_code = (sys.prefix, sys.base_prefix, "<frozen", "<attrs", "<string>")
    for event, place in seen["events"]:
        assert event not in ("pickle.find_class", "os.system", "subprocess.Popen", "os.fork"), seen["events"]
        assert str(saved) not in place
        if event in ("exec", "compile"):
            assert place.startswith(own_code) or "/noumena/" in place, (event, place)


MARKER = "open('executed', 'w').close()"
POISONS = {
    "a function as model": lambda folder: sign(folder, model="os:system"),
    "a builtin as model": lambda folder: sign(folder, model="builtins/eval"),
    "a class path as model": lambda folder: sign(folder, model="noumena.density.model:VAE"),
    "a path as model": lambda folder: sign(folder, model="density/../../evil"),
    "a module beside as model": lambda folder: sign(folder, model="evil/model"),
    "a target in the configuration": lambda folder: change_config(
        folder, lambda config: config | {"_target_": "os.system", "_args_": ["touch executed"]}
    ),
    "a target as hyperparameter": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(_target_="os.system")
    ),
    "a target inside a hyperparameter": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(hidden_dims={"_target_": "os.system"})
    ),
    "an import path as activation": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(activation="evil.Activation")
    ),
    "code as activation": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(activation=f"__import__('os').system('{MARKER}')")
    ),
    "code as a number": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(beta=f"eval({MARKER!r})")
    ),
    "a method as hyperparameter": lambda folder: change_config(
        folder, lambda config: config["hyperparameters"].update(__class__="evil.Model", self=1)
    ),
}


def a_pickle_as_weights(folder):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch executed",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    sign(folder)


POISONS["a pickle as weights"] = a_pickle_as_weights


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """What happened at the loading of each poisoned artifact, and the folder in which they were loaded."""
    place = tmp_path_factory.mktemp("poisoned")
    (place / "evil.py").write_text(MARKER)  # importable: the current folder comes first in sys.path
    folders = [place / f"model_{number}" for number in range(len(POISONS))]
    for folder, poison in zip(folders, POISONS.values(), strict=True):
        small_model().save(folder)
        (folder / "evil.py").write_text(MARKER)
        poison(folder)
    return dict(zip(POISONS, watch_loads(folders, warm=True), strict=True)), place


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_artifact_with_right_hashes_is_refused_and_executes_nothing(poisoned, poison):
    loads, place = poisoned
    seen = loads[poison]
    assert seen["outcome"] == "ArtifactError"
    assert "evil" not in seen["imported"]
    assert {name for name, _ in seen["events"]}.isdisjoint(
        {"pickle.find_class", "os.system", "subprocess.Popen", "os.fork", "write"}
    )
    assert not list(place.rglob("executed"))
