import pytest


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """The test's own folder as the working directory, so that file names stand alone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small files have several."""
    monkeypatch.setattr("noumena.readers.common.BLOCK_BYTES", 500)
