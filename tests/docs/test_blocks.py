"""Every code block and every command of the README and the documentation does what the page says."""

import shlex

import pytest
from matplotlib.figure import Figure

from noumena.core.model import LatentModel
from tests.artifact.fake_hub import hub_server as server
from tests.docs.blocks import ROOT, blocks_of, name_of, pages, said_in_passing
from tests.docs.commands import parsed
from tests.docs.pages import PAGES, Page
from tests.docs.quick import one_epoch, quick
from tests.docs.session import Broken, Session

# Blocks that say they are not run. A new one has to have a reason that is as good.
NOT_RUN = 1

__all__ = ["server"]  # a fixture

RUN = {"python", "bash", "console", "yaml"}


def _cases():
    for path in pages():
        name = name_of(path)
        page = PAGES.get(name, Page())
        if page.elsewhere is None and any(block.language in RUN for block in blocks_of(path)):
            yield pytest.param(path, page, id=name, marks=[pytest.mark.slow] if page.slow else [])


_savefig = Figure.savefig


def _empty(_, *places, **options):
    options.pop("bbox_inches", None)
    _savefig(Figure(figsize=(1, 1)), *places, **{**options, "dpi": 10})


@pytest.fixture
def page_folder(tmp_path, monkeypatch, server):
    """Where the blocks of a page are run: nothing is fetched, drawn on a screen or kept."""
    monkeypatch.setattr(LatentModel, "fit", one_epoch(LatentModel.fit))
    # Drawing the figures of a report takes longer than everything else; other tests look at them.
    monkeypatch.setattr(Figure, "savefig", _empty)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.docs
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("path", "page"), list(_cases()))
def test_the_blocks_of_a_page_run(path, page, page_folder):
    session = Session(page_folder, page.prepare(page_folder), quick, page.replace)
    broken: list[str] = []
    for block in blocks_of(path):
        try:
            if block.reason is None:
                session.run(block)
        except Broken as error:
            broken.append(str(error))
    assert not broken, "\n\n".join(broken)
    assert session.used == set(page.replace), "text that the page no longer has is replaced"


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_commands_that_a_page_names_have_these_verbs_and_options(path):
    wrong = {said: parsed(shlex.split(said)[1:], whole=False) for said in said_in_passing(path)}
    assert not {said: problem for said, problem in wrong.items() if problem}


def test_pages_that_need_something_exist():
    assert all((ROOT / name).is_file() for name in PAGES)
    assert all((ROOT / page.elsewhere).is_file() for page in PAGES.values() if page.elsewhere)


def test_blocks_that_are_not_run_are_few_and_have_a_reason():
    found = [block for path in pages() for block in blocks_of(path) if block.reason is not None]
    assert len(found) <= NOT_RUN, [f"{block.place}: {block.reason}" for block in found]
