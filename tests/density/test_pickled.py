import math
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import ArtifactError
from noumena.density.gormpo.pickled import plain_value, read_plain_pickle

PROTOCOLS = range(6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=8) | st.binary()
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
VALUES = st.recursive(
    SCALARS | st.frozensets(KEYS, max_size=3) | st.sets(KEYS, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(6, dtype=">f8").reshape(3, 2),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(10, dtype=np.uint8)[::3],
    np.zeros((0, 4)),
    np.array(2.5),
    np.array([True, False, True]),
    np.float16([1.5, math.inf]),
]


def refusal(content):
    with pytest.raises(ArtifactError) as caught:
        plain_value(content, "meta.pkl")
    message = str(caught.value)
    assert message.startswith("meta.pkl: ")
    return message


# What is read


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from(PROTOCOLS))
def test_plain_values_come_out_as_python_reads_them(value, protocol):
    content = pickle.dumps(value, protocol)
    found = plain_value(content, "meta.pkl")
    # repr tells -0.0, NaN and types apart; sets have no order of their own.
    assert describe(found) == describe(pickle.loads(content)) == describe(value)


def describe(value):
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, value))
    if isinstance(value, (list, tuple)):
        return type(value), [describe(item) for item in value]
    if isinstance(value, dict):
        return [(repr(key), describe(item)) for key, item in value.items()]
    return repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_out_with_shape_type_and_numbers(array, protocol):
    found = plain_value(pickle.dumps({"a": array}, protocol), "meta.pkl")["a"]
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(found, array)
    assert found.flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "number", [np.float32(-171.69382), np.float64(0.1), np.int64(-7), np.uint8(200), np.True_, np.False_]
)
def test_numbers_of_numpy_come_out_as_such(number, protocol):
    found = plain_value(pickle.dumps([number, number], protocol), "meta.pkl")
    assert found == [number, number]
    assert [type(item) for item in found] == [type(number)] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_object_twice_stays_one(protocol):
    array, names = np.arange(3.0), ["a"]
    found = plain_value(pickle.dumps([array, names, array, names], protocol), "meta.pkl")
    assert found[0] is found[2]
    assert found[1] is found[3]


def test_files_of_numpy_1_name_its_core_as_it_was_called():
    content = pickle.dumps({"threshold": np.float32(1.5), "a": np.arange(3.0)}, 3)
    assert content.count(b"numpy._core") == 2
    found = plain_value(content.replace(b"numpy._core", b"numpy.core"), "meta.pkl")
    assert found["threshold"] == np.float32(1.5)
    assert found["a"].tolist() == [0.0, 1.0, 2.0]


def test_a_file_is_read_from_its_path(tmp_path):
    path = tmp_path / "x_meta_data.pkl"
    path.write_bytes(pickle.dumps({"threshold": -1.5}))
    assert read_plain_pickle(path) == {"threshold": -1.5}
    with pytest.raises(ArtifactError, match=r"x_meta_data.pkl: has [0-9]+ bytes; expected at most 10"):
        read_plain_pickle(path, largest=10)
    with pytest.raises(ArtifactError, match="there is no such file"):
        read_plain_pickle(tmp_path)


# What is refused


class Planted:
    """An object whose pickle calls what it is told to."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Stateful:
    """An ordinary object: its pickle names this class and sets a state."""

    def __init__(self):
        self.state = 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (Planted(os.system, ("touch {marker}",)), "posix.system"),
        (Planted(eval, ("open({marker!r}, 'w')",)), "eval"),
        (Planted(getattr, ("", "join")), "getattr"),
        (Planted(__import__, ("os",)), "__import__"),
        (Planted(np.load, ("{marker}",)), "load"),
        (Planted(bytearray, (10**12,)), "bytearray"),
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused_by_its_name(tmp_path, planted, name, protocol):
    marker = tmp_path / "marker"
    call, arguments = planted.reduced
    planted.reduced = call, tuple(a.format(marker=str(marker)) if isinstance(a, str) else a for a in arguments)
    message = refusal(pickle.dumps({"threshold": planted}, protocol))
    assert re.search(rf"asks for (\w+\.)*{name}\.", message)
    assert "nothing was executed" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    ("protocol", "name"), [(0, "copy_reg._reconstructor"), (5, "tests.density.test_pickled.State")]
)
def test_objects_of_a_class_are_refused_by_its_name(protocol, name):
    assert f"asks for {name}" in refusal(pickle.dumps(Stateful(), protocol))


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "the instruction STRING"),
        (b"(Vid\nios\nsystem\n.", "os.system"),
        (b"cbuiltins\ngetattr\n(cos\nsystem\n.", "builtins.getattr"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0dset.__class__\x93.", "builtins.set.__class__"),
        (b"\x80\x02\x82\x05.", "code 5 of Python's registry"),
        (b"\x80\x02\x83\x05\x01.", "code 261 of Python's registry"),
        (b"\x80\x02\x84\x05\x01\x00\x00.", "code 261 of Python's registry"),
        (b"Pthing\n.", "from outside of the file (PERSID)"),
        (b"K\x01Q.", "from outside of the file (BINPERSID)"),
        (b"\x80\x05\x97.", "from outside of the file (NEXT_BUFFER)"),
        (b"cbuiltins\nset\n)\x81.", "an object of a class (NEWOBJ)"),
        (b"(cbuiltins\nset\no.", "an object of a class (OBJ)"),
        (b"cnumpy\nndarray\n.", "numpy.ndarray as a value"),
        (b"cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
        (b"cnumpy\ndtype\n(Vf4\ntR.", "numpy.dtype as a value"),
        (b"cnumpy\ndtype\n(VO8\ntR.", "Python objects of the type numpy.dtype('O8')"),
        (b"cnumpy\ndtype\n(VV9999999999\ntR.", "numpy.dtype('V9999999999')"),
        (b"cnumpy\ndtype\n(Vf4\ntR(K\x03V<\nN(K\x01tNtb.", "a numpy.dtype of more than one number"),
        (b"}}(Vx\nK\x01ub.", "a state to be set on a dict (BUILD)"),
        (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "_codecs.encode of other than bytes"),
        (b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.", "bytes of a value"),
        (b"K\x01)R.", "a call of int"),
        (b"K\x010K\x02.", "the instruction POP"),
        (pickle.dumps(2**5000), "an integer of 5,001 bits"),
        (pickle.dumps({((1, (2,)), 3): 4}), "a tuple as a key"),
        (pickle.dumps(dict.fromkeys(range(10_001))), "more than 10,000 entries"),
    ],
)
def test_hand_made_pickles_are_refused_by_what_they_ask_for(content, asked):
    assert asked in refusal(content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_python_objects_are_refused(protocol):
    array = np.array([Planted(os.getcwd, ())], dtype=object)
    assert "Python objects of the type numpy.dtype('O8')" in refusal(pickle.dumps(array, protocol))


@pytest.mark.parametrize(
    "dtype", ["U5", "S3", "c8", "M8[s]", [("a", "f4")]], ids=["text", "bytes", "complex", "dates", "records"]
)
def test_arrays_of_other_than_numbers_are_refused(dtype):
    assert "numpy.dtype" in refusal(pickle.dumps(np.zeros(2, dtype=dtype), 4))


def test_classes_of_arrays_are_refused():
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    assert "numpy.ma" in refusal(pickle.dumps(masked, 4))


# What is damaged


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(protocol):
    content = pickle.dumps({"threshold": np.float32(1.0), "a": np.arange(3), "thresholds": {1: -2.0}}, protocol)
    for length in range(len(content)):
        refusal(content[:length])
    assert "1 bytes follow its end" in refusal(content + b".")


def test_a_file_with_any_byte_changed_gives_plain_values_or_a_refusal():
    content = pickle.dumps({"threshold": np.float32(1.0), "a": np.arange(3), "s": {1, 2}, "t": (1, b"x")}, 4)
    for place in range(len(content)):
        for byte in (0, content[place] ^ 1, content[place] ^ 0x80, ord("."), ord("R"), ord("b"), 0xFF):
            changed = content[:place] + bytes([byte]) + content[place + 1 :]
            try:
                pickle.dumps(plain_value(changed, "meta.pkl"))
            except ArtifactError:
                continue


@pytest.mark.parametrize("content", [b"", b"\x00", b"torch", b"PK\x03\x04", b"{}", b"]" * 5 + b"."])
def test_what_is_no_pickle_is_refused(content):
    assert "is no pickle, or damaged" in refusal(content)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ((b"C\x18", b"C\x10"), "damaged"),
        ((b"K\x03\x85", b"K\x04\x85"), "an array of shape (4,) and type int64 has 24 bytes"),
        ((b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"), "not made of a type, a shape and bytes"),
        ((b"i8", b"i4"), "an array of shape (3,) and type int32 has 24 bytes"),
    ],
)
def test_arrays_of_a_wrong_length_are_refused(change, how):
    content = pickle.dumps(np.arange(3), 3)
    assert content.count(change[0]) == 1
    assert how in refusal(content.replace(*change))


def test_a_huge_length_is_refused_without_being_allocated():
    assert "damaged" in refusal(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.")
    assert "damaged" in refusal(b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.")


def test_memory_that_a_file_numbers_far_apart_costs_nothing():
    assert plain_value(b"K\x05r\xff\xff\xff\xff.", "meta.pkl") == 5
    assert "recalls value 7" in refusal(b"K\x05h\x07.")


# Bombs


def test_containers_that_contain_themselves_are_refused():
    ring = []
    ring.append(ring)
    assert "a list that contains itself" in refusal(pickle.dumps(ring))
    table = {}
    table["x"] = [table]
    assert "contains itself" in refusal(pickle.dumps(table))


def test_deep_containers_are_refused():
    assert "containers more than 100 deep" in refusal(b"]" * 50_000 + b"a" * 49_999 + b".")
    assert plain_value(b"]" * 100 + b"a" * 99 + b".", "meta.pkl")


def test_a_small_file_that_stands_for_a_huge_value_is_refused():
    value = []
    for _ in range(60):
        value = [value, value]
    assert "more than 1,000,000 values" in refusal(pickle.dumps(value))


def test_a_small_file_that_hashes_a_huge_key_is_refused():
    value = ()
    for _ in range(60):
        value = (value, value)
    key = pickle.dumps(value, 2)[2:-1]
    assert "a tuple as a key" in refusal(b"}" + key + b"K\x01s.")


def test_bytes_that_are_made_into_arrays_again_and_again_are_refused():
    stored = b"B" + struct.pack("<I", 4000) + bytes(4000) + b"q\x00" + b"cnumpy\ndtype\n(Vf8\ntRq\x01"
    array = b"cnumpy._core.numeric\n_frombuffer\n(h\x00h\x01M\xf4\x01\x85VC\ntR"
    assert "more than the file holds" in refusal(b"(" + stored + array * 40 + b"l.")


@pytest.mark.slow
@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="NOUMENA_DATA names no data folder")
def test_the_metadata_of_a_real_model_are_read():
    path = Path(os.environ["NOUMENA_DATA"]) / "parity" / "gormpo" / "hopper_vae_meta_data.pkl"
    found = read_plain_pickle(path)
    assert found == {
        "threshold": np.float32(-171.69382),
        "input_dim": 14,
        "latent_dim": 8,
        "hidden_dims": [256, 128],
        "device": "cpu",
        "mean": -8.408798217773438,
        "std": 14.829991340637207,
    }
