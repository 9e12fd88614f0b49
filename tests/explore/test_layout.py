from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.explore.figures import themed
from noumena.explore.layout import page
from noumena.explore.parts import shown
from noumena.explore.service import About, Service
from tests.explore.curves import Curves


class Strips(Curves):
    wide = True


def classes(explorer):
    service = Service(explorer, About("run", "curves/pca"))
    found = [getattr(part, "className", None) for part in page(service)._traverse()]
    service.close()
    return found


def test_strips_stand_below_each_other_and_other_drawings_beside():
    beside, below = classes(Curves()), classes(Strips())
    assert beside.count("columns pair") == below.count("columns pair") + 1


def test_the_tables_of_a_pair_are_not_below_their_narrow_figures():
    service = Service(Curves(), About("run", "curves/pca"))
    main = page(service)
    service.close()
    (tables,) = (part for part in main._traverse() if getattr(part, "className", None) == "tables")
    assert [child.id for child in tables.children] == ["original-table", "rebuilt-table", "details"]
    for name in ("original", "rebuilt"):
        (figure,) = (part for part in main._traverse() if getattr(part, "role", None) == "figure" and name in str(part))
        assert f"{name}-table" not in str(figure)


def test_a_table_far_from_its_figure_says_whose_it_is():
    drawing = Drawing(table=Table("Steps", ("step",), [[1]]))
    assert "Original: Steps" in str(shown(drawing, whose="Original"))
    assert "Original" not in str(shown(drawing))


def test_only_figures_with_numbers_on_their_axes_have_room_for_them():
    def left(layout):
        return themed({"layout": layout})["layout"]["margin"]["l"]

    assert left({"xaxis": {"title": {"text": "x"}}}) > 40
    assert left({}) > 40
    assert left({"scene": {}}) < 10
    assert left({"xaxis": {"visible": False}, "yaxis": {"visible": False}}) < 10
    assert left({"scene": {}, "xaxis": {}}) > 40
