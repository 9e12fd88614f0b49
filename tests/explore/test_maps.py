import sys
import time

import numpy as np
import pytest
from sklearn.decomposition import PCA

from noumena.core.errors import NotSupportedError
from noumena.core.exploring import Points
from noumena.explore import maps
from noumena.explore.figures import map_figure, marked
from noumena.explore.maps import Embedding, pca


def vectors(n=300, size=6, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, size)) @ random.standard_normal((size, size)) + 7.0).astype(np.float32)


@pytest.mark.parametrize("exact", [1024, 1], ids=["eigenvectors", "leading directions"])
def test_the_map_is_the_principal_components_up_to_sign(exact, monkeypatch):
    monkeypatch.setattr(maps, "_EXACT_SIZE", exact)
    rows = vectors()
    found, model = pca(rows), PCA(2).fit(rows)
    expected = model.transform(rows)
    signs = np.sign((found.coordinates * expected).sum(0))
    np.testing.assert_allclose(found.coordinates * signs, expected, atol=2e-3)
    shares = [f"{share:.1%} of the variance" for share in model.explained_variance_ratio_]
    assert [axis.partition("(")[2].rstrip(")") for axis in found.axes] == shares


def test_the_map_does_not_depend_on_the_signs_of_the_directions():
    rows = vectors()
    again = pca(rows.copy())
    np.testing.assert_array_equal(pca(rows).coordinates, again.coordinates)


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.ones((1, 5)), np.arange(6.0)[:, None]], ids=str)
def test_points_that_span_no_plane_have_a_map_too(rows):
    found = pca(rows.astype(np.float32))
    assert found.coordinates.shape == (len(rows), 2)
    assert np.isfinite(found.coordinates).all()
    assert not found.coordinates[:, 1].any()


def test_without_umap_the_message_has_the_command(monkeypatch):
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[umap\]'"):
        Embedding(vectors()).get()


def test_umap_of_a_handful_of_points_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(maps, "find_spec", lambda name: object())
    with pytest.raises(NotSupportedError, match="at least 5 points"):
        Embedding(vectors(4)).get()


WORKERS = {
    "works": "import numpy as np; f = sys.argv[1]; np.save(f + '/plane.npy', np.load(f + '/vectors.npy')[:, :2])",
    "fails": "raise MemoryError('too many points')",
    "hangs": "import time; time.sleep(600)",
}


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Replaces the process that computes: ``worker(name)``."""
    monkeypatch.setattr(maps, "find_spec", lambda name: object())

    def use(name):
        script = tmp_path / "worker.py"
        script.write_text(f"import sys\nsys.argv = sys.argv[2:]\n{WORKERS[name]}\n")
        start = maps.subprocess.Popen

        def popen(command, **options):
            return start([sys.executable, str(script), *command[1:]], **options)

        monkeypatch.setattr(maps.subprocess, "Popen", popen)

    return use


def result_of(embedding):
    for _ in range(600):
        found = embedding.get()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("no result")


def test_umap_is_computed_in_the_background_and_kept(worker):
    worker("works")
    rows = vectors()
    embedding = Embedding(rows)
    assert embedding.get() is None
    assert embedding.done is None
    found = result_of(embedding)
    np.testing.assert_array_equal(found.coordinates, rows[:, :2])
    assert embedding.get() is found is embedding.done


def test_a_umap_that_fails_says_why(worker):
    worker("fails")
    with pytest.raises(NotSupportedError, match="UMAP failed: MemoryError: too many points"):
        result_of(Embedding(vectors()))


def test_closing_ends_a_computation_under_way(worker):
    worker("hangs")
    embedding = Embedding(vectors())
    embedding.get()
    process = embedding._process
    embedding.close()
    assert process.poll() is not None


def positions_of(figure):
    return sorted(i for trace in figure["data"] for i in trace["customdata"])


def colours():
    kinds = np.asarray(["a", "b", "<b>c</b>"])[np.arange(300) % 3]
    numbers = np.linspace(0.0, 1.0, 300)
    gaps = np.where(np.arange(300) % 2, numbers, np.nan)
    return {"kinds": kinds, "numbers": numbers, "gaps": gaps, "many": np.asarray([f"k{i % 40}" for i in range(300)])}


@pytest.mark.parametrize(("colour", "traces"), [("kinds", 3), ("numbers", 1), ("gaps", 2), ("many", 13), ("", 1)])
def test_every_point_is_in_the_map_once_whatever_its_colour(colour, traces):
    points = Points(vectors(), [f"row {i}" for i in range(300)], colours())
    plane = pca(points.vectors)
    figure = map_figure(points, plane, colour, {})
    assert positions_of(figure) == list(range(300))
    assert len(figure["data"]) == traces
    for trace in figure["data"]:
        x = np.frombuffer(__import__("base64").b64decode(trace["x"]["bdata"]), np.float32)
        np.testing.assert_array_equal(x, plane.coordinates[trace["customdata"], 0])
        assert [text.partition("<br>")[0] for text in trace["hovertext"]] == [f"row {i}" for i in trace["customdata"]]


def test_names_of_the_data_are_no_markup():
    points = Points(
        vectors(3), ["<a href='http://example.org'>x</a>", "b", "c"], {"kinds": np.asarray(["<i>", "b", "c"])}
    )
    figure = map_figure(points, pca(points.vectors), "kinds", {})
    texts = [text for trace in figure["data"] for text in [*trace["hovertext"], trace["name"]]]
    assert not [text for text in texts if "<a" in text or "<i" in text]


def test_marks_of_one_point_are_one_ring_with_all_words():
    plane = pca(vectors())
    layout = marked(plane, {"start": 4, "end": 9, "chosen": 4})
    assert [note["text"] for note in layout["annotations"]] == ["start, chosen", "end"]
    assert len(layout["shapes"]) == 2
