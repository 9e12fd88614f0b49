import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.observations import as_observations, from_arrays
from tests.multimodal.files import arrays, surface

NAMES = ("pose", "force", "shape")


def data(**options):
    return {name: arrays(**options)[name] for name in NAMES}


def refused(words, **options):
    with pytest.raises((ConfigError, DataError)) as caught:
        from_arrays(**{"arrays": data(), **options})
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_modality_reads_back_as_it_was_given():
    given = data(missing=True)
    found = from_arrays(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert found.has(name).tolist() == (~np.isnan(array).all(1)).tolist()
    assert torch.isfinite(found.values).all()


def test_rows_are_missing_by_mask_whatever_their_numbers():
    given = data()
    mask = np.arange(43) % 3 > 0
    given["pose"][~mask] = np.inf
    found = from_arrays(given, masks={"pose": mask})
    assert found.has("pose").tolist() == mask.tolist()
    assert (found.values[~torch.from_numpy(mask), :6] == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_refused_by_row_and_column(dtype, value):
    given = {"pose": np.zeros((5, 6), dtype)}
    given["pose"][3, 2] = value
    refused(["'pose'", "row 13", "'x_2'", f"{value:g}"], arrays=given, first_row=10)


def test_a_number_beyond_float32_is_refused():
    given = {"pose": np.zeros((5, 6))}
    given["pose"][1, 5] = 1e39
    refused(["row 1", "'x_5'", "1e+39", "float32"], arrays=given)


def test_a_row_that_is_nan_in_part_is_refused_by_row_and_column():
    given = data()
    given["force"][4, 3:] = np.nan
    refused(["'force'", "row 4", "'x_3'", "NaN"], arrays=given)


def test_a_row_without_any_modality_is_refused():
    given = data()
    for array in given.values():
        array[7] = np.nan
    refused(["row 7", "none of the modalities"], arrays=given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arrays": {"pose": np.zeros((4, 6)), "force": np.zeros((5, 6))}}, ["'pose' has 4", "'force' has 5"]),
        ({"arrays": {"pose": np.zeros(4)}}, ["'pose'", "(rows, size)"]),
        ({"arrays": {"pose": np.array([["a"]])}}, ["'pose'", "text"]),
        ({"arrays": {"pose": [[1, 2], [3]]}}, ["'pose'", "equal length"]),
        ({"arrays": {"a.b": np.zeros((4, 6))}}, ["a.b", "Rename"]),
        ({"kinds": {"pse": "pose"}}, ["kinds", "Did you mean 'pose'"]),
        ({"kinds": {"pose": "pos"}}, ["pose", "Did you mean 'pose'"]),
        ({"kinds": {"shape": "wrench"}}, ["shape", "6 numbers", "12"]),
        ({"columns": {"pose": ["a", "b"]}}, ["2 column names for 6"]),
        ({"columns": {"pose": list("abcdea")}}, ["differ"]),
        ({"units": {"pose": ["mm"] * 5}}, ["5 units for 6"]),
        ({"masks": {"psoe": np.ones(43, bool)}}, ["mask", "Did you mean 'pose'"]),
        ({"masks": {"pose": np.ones(4, bool)}}, ["mask", "43"]),
        ({"masks": {"pose": np.arange(43)}}, ["mask", "row 2", "is 2"]),
        ({"groups": np.arange(4)}, ["groups", "43"]),
        ({"groups": [*range(42), float("nan")]}, ["row 42", "no group"]),
        ({"groups": ["a", ""] * 21 + ["b"]}, ["row 1", "no group"]),
        ({"side": {"energy": np.full(43, np.inf)}}, ["'energy'", "row 0", "infinite"]),
        ({"side": {"energy": np.zeros(3)}}, ["'energy'", "43"]),
        ({"surface": Surface.of(*surface())}, ["4 points", "displacement"]),
    ],
)
def test_arrays_and_options_that_do_not_fit_are_refused_in_words(options, words):
    refused(words, **options)


def test_groups_are_numbered_in_their_own_order_whatever_their_type():
    numbers = np.array([30, 4, 30, 200])
    rows = {"a": np.zeros((4, 2))}
    for groups in (numbers, numbers.astype(str), numbers.astype(float), torch.from_numpy(numbers)):
        assert from_arrays(rows, groups=groups).groups.tolist() == [1, 0, 1, 2]
    assert from_arrays(rows, groups=["b", "a", "b", "c"]).groups.tolist() == [1, 0, 1, 2]


def test_axes_beyond_the_second_are_flattened_point_by_point():
    points = np.arange(24.0).reshape(2, 4, 3)
    found = from_arrays({"shape": points}, kinds={"shape": "displacement"}, surface=Surface.of(*surface()))
    assert found.values.tolist() == points.reshape(2, 12).tolist()
    assert found.modalities[0].columns[:4] == ("ux0", "uy0", "uz0", "ux1")


def test_data_are_arranged_for_a_model_that_knows_other_modalities():
    given = from_arrays(data(), kinds={"shape": "displacement"}, surface=Surface.of(*surface()), groups=np.arange(43))
    wanted = (Modality.of_size("speed", 2), Modality.of_size("force", 6, kind="wrench"), Modality.of_size("pose", 6))
    found = as_observations(given, wanted)
    assert found.names == ("speed", "force", "pose")
    assert torch.equal(found["force"], given["force"])
    assert not found.has("speed").any()
    assert found.surface is None
    assert torch.equal(found.groups, given.groups)
    with pytest.raises(DataError, match="'pose' has 6 numbers, the model was made for 7"):
        as_observations(given, [Modality.of_size("pose", 7)])
    with pytest.raises(DataError, match="at least one of speed"):
        as_observations(given, wanted[:1])


def test_a_modality_survives_json():
    for modality in (
        Modality.of_size("a", 6, kind="pose"),
        Modality.of_size("b", 12, kind="displacement", units="mm"),
        Modality.of_size("c", 2, columns=["u", "v"], units=["m", "s"]),
    ):
        assert Modality.from_json(modality.to_json()) == modality


def test_the_fingerprint_knows_values_and_what_is_missing_but_not_groups():
    prints = {
        from_arrays(data()).fingerprint(),
        from_arrays(data(seed=1)).fingerprint(),
        from_arrays(data(missing=True)).fingerprint(),
    }
    assert len(prints) == 3
    assert from_arrays(data(), groups=np.arange(43)).fingerprint() in prints


@pytest.mark.parametrize(
    ("nodes", "triangles", "words"),
    [
        (np.zeros((4, 2)), None, "shape"),
        (np.full((4, 3), np.nan), None, "node 0"),
        (np.zeros((4, 3)), np.array([[1, 2, 4]]), "Count from 0"),
        (np.zeros((4, 3)), np.array([[0.5, 1, 2]]), "integer"),
    ],
)
def test_a_surface_that_cannot_be_is_refused(nodes, triangles, words):
    with pytest.raises(DataError, match=words):
        Surface.of(nodes, triangles)
