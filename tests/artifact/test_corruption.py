import random
import shutil

import pytest

import noumena
from noumena.core.errors import ArtifactError
from tests.artifact.folders import FILES, small_model

CASES_PER_FILE = 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "model"
    small_model().save(folder)
    return folder


def damages(raw, seed, cases=CASES_PER_FILE):
    """Flipped bits, replaced bytes, truncations, additions and cut-out pieces of ``raw``, each different from it."""
    rng = random.Random(seed)
    for case in range(cases):
        damaged = bytearray(raw)
        place = rng.randrange(len(raw))
        kind = case % 5
        if kind == 0:
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[place] ^= rng.randrange(1, 256)
        elif kind == 2:
            del damaged[place:]
        elif kind == 3:
            damaged += bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
        else:
            del damaged[place : place + rng.randrange(1, 9)]
        yield f"case {case} at byte {place}", bytes(damaged)


@pytest.mark.parametrize("name", FILES)
def test_every_damage_to_a_file_is_refused(whole, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    raw = (folder / name).read_bytes()
    for case, damaged in damages(raw, seed=FILES.index(name)):
        (folder / name).write_bytes(damaged)
        try:
            noumena.load(folder)
        except ArtifactError:
            continue
        pytest.fail(f"{name}: {case} was not noticed")
    (folder / name).write_bytes(raw)
    noumena.load(folder)


def test_every_single_flipped_byte_of_the_manifest_is_refused(whole, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    raw = (folder / "manifest.json").read_bytes()
    for place in range(len(raw)):
        for mask in (0x01, 0x20):  # 0x20 turns upper into lower case
            damaged = bytearray(raw)
            damaged[place] ^= mask
            (folder / "manifest.json").write_bytes(damaged)
            with pytest.raises(ArtifactError):
                noumena.load(folder)


def test_two_files_that_were_exchanged_are_refused(whole, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    card, config = ((folder / name).read_bytes() for name in ("card.md", "config.json"))
    (folder / "card.md").write_bytes(config)
    (folder / "config.json").write_bytes(card)
    with pytest.raises(ArtifactError):
        noumena.load(folder)
