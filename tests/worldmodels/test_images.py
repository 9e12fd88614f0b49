"""Photographs for structured noise: reading, cutting and dividing them."""

import builtins

import numpy as np
import pytest
from PIL import Image

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.worldmodels.dots.images import load_images


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rows(tensor) -> set[bytes]:
    return {bytes(row) for row in tensor.numpy()}


def test_the_shipped_photographs_are_divided_by_photograph():
    images = load_images("sample:patches", 28)
    assert 600 <= len(images.train) + len(images.test) <= 1000
    assert 0.15 <= images.about["test_share"] <= 0.2
    assert images.about["rule"] == "by photograph"
    assert not rows(images.train) & rows(images.test)


def test_a_patch_is_the_upper_left_corner(tmp_path):
    pictures = noise(20, 32, 32)
    np.savez(tmp_path / "a.npz", train=pictures[:15], test=pictures[15:])
    images = load_images(tmp_path / "a.npz", 28)
    assert np.array_equal(images.train.view(15, 28, 28), pictures[:15, :28, :28])
    assert np.array_equal(images.test.view(5, 28, 28), pictures[15:, :28, :28])


def test_larger_images_are_cut_into_tiles_of_32(tmp_path):
    picture = noise(70, 100)
    np.savez(tmp_path / "a.npz", train=picture[None], test=picture[None])
    patches = load_images(tmp_path / "a.npz", 28).train
    tiles = [picture[y : y + 28, x : x + 28].tobytes() for y in (0, 32) for x in (0, 32, 64)]
    assert [bytes(row) for row in patches.numpy()] == tiles


def test_larger_frames_take_larger_tiles(tmp_path):
    picture = noise(130, 64)
    np.savez(tmp_path / "a.npz", train=picture[None], test=picture[None])
    patches = load_images(tmp_path / "a.npz", 64).train
    assert [bytes(row) for row in patches.numpy()] == [picture[:64].tobytes(), picture[64:128].tobytes()]


def test_no_photograph_is_on_both_sides(tmp_path):
    names = np.repeat([f"photo {i}" for i in range(30)], 10)
    pictures = noise(300, 28, 28)
    np.savez(tmp_path / "a.npz", images=pictures, source=names)
    images = load_images(tmp_path / "a.npz", 28)
    of = {bytes(picture): name for picture, name in zip(pictures, names, strict=True)}
    train, test = ({of[row] for row in rows(part)} for part in (images.train, images.test))
    assert not train & test
    assert len(train | test) == 30
    assert 0.15 <= len(images.test) / 300 <= 0.2


def test_of_two_photographs_the_smaller_one_is_the_test(tmp_path):
    np.savez(tmp_path / "a.npz", images=noise(5, 28, 28), source=["a", "a", "b", "b", "b"])
    assert load_images(tmp_path / "a.npz", 28).about["test_share"] == 0.4


def test_the_division_depends_on_names_alone(tmp_path):
    pictures, names = noise(40, 28, 28), np.repeat([f"photo {i}" for i in range(20)], 2)
    order = np.random.default_rng(1).permutation(40)
    np.savez(tmp_path / "a.npz", images=pictures, source=names)
    np.savez(tmp_path / "b.npz", images=pictures[order], source=names[order])
    first, second = (load_images(tmp_path / f"{name}.npz", 28) for name in "ab")
    assert rows(first.test) == rows(second.test)


def test_a_folder_is_read_as_grey(tmp_path):
    colours = noise(10, 32, 32, 3)
    for number, colour in enumerate(colours):
        folder = tmp_path / f"inner {number % 3}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(colour).save(folder / f"{number}.png")
    images = load_images(tmp_path, 28)
    luma = (colours @ np.array([0.299, 0.587, 0.114])).round()[:, :28, :28].reshape(10, -1)
    found = np.concatenate([images.train.numpy(), images.test.numpy()]).astype(float)
    distance = np.abs(found[:, None] - luma[None]).max(-1)
    assert distance.min(1).max() <= 1
    assert sorted(distance.argmin(1)) == list(range(10))
    assert len(images.test) == 2


def test_a_folder_may_have_parts_of_its_own(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        (tmp_path / part / "cat").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(noise(32, 32, seed=number)).save(tmp_path / part / "cat" / f"{number}.png")
    images = load_images(tmp_path, 28)
    assert (len(images.train), len(images.test)) == (3, 2)


def test_the_fingerprint_is_of_the_pixels(tmp_path):
    pictures = noise(20, 28, 28)
    np.savez(tmp_path / "a.npz", images=pictures)
    np.savez_compressed(tmp_path / "b.npz", images=pictures)
    pictures[0, 0, 0] ^= 1
    np.savez(tmp_path / "c.npz", images=pictures)
    a, b, c = (load_images(tmp_path / f"{name}.npz", 28).fingerprint for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": noise(3, 32, 32)}, "expected arrays 'train' and 'test', or 'images'.*found pictures"),
        ({"images": noise(3, 32, 32, 3)}, r"expected grey images, uint8 of shape.*\(3, 32, 32, 3\)"),
        ({"images": np.zeros((3, 32, 32))}, "found float64"),
        ({"images": noise(3, 20, 32)}, "at least 28 x 28 pixels, got 32 x 20"),
        ({"images": noise(0, 32, 32)}, "holds no image"),
        ({"images": noise(1, 32, 32)}, "one photograph"),
        ({"images": noise(3, 32, 32), "source": np.array(["a", "b"])}, r"'source' has shape \(2,\)"),
        ({"images": np.array([{}, {}], dtype=object)}, "expected grey images"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, arrays: dict[str, np.ndarray], words: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_images(tmp_path / "a.npz", 28)


def test_small_deep_and_damaged_files_are_refused(tmp_path):
    def refused(words: str) -> None:
        with pytest.raises(DataError, match=words):
            load_images(tmp_path, 28)

    refused("a folder without any .png")
    file = tmp_path / "a.png"
    Image.fromarray(noise(20, 40)).save(file)
    refused(r"a.png: expected images of at least 28 x 28 pixels, got 40 x 20")
    Image.fromarray(noise(40, 40).astype(np.uint16) * 256).save(file)
    refused("a.png: expected 8 bits per channel, found mode I;16")
    file.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    refused("a.png: cannot be read")
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n")
    refused("a.png: cannot be read")


def test_pickled_batches_are_refused_in_words(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=r"pickles.*save the images as files"):
        load_images(tmp_path, 28)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_images(tmp_path / "a.npz", 28)
    with pytest.raises(ConfigError, match="sample:patches"):
        load_images("sample:cifar", 28)


def test_a_folder_without_pillow_says_what_to_install(tmp_path, monkeypatch):
    Image.fromarray(noise(32, 32)).save(tmp_path / "a.png")
    load = builtins.__import__

    def without(name: str, *rest: object, **named: object):
        if name == "PIL":
            raise ImportError(name)
        return load(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotSupportedError, match=r"pip install 'noumena\[worldmodels\]'"):
        load_images(tmp_path, 28)
