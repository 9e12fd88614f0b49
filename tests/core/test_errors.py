import pytest
from hypothesis import given
from hypothesis import strategies as st

from noumena.core import errors
from noumena.core.errors import NoumenaError, did_you_mean

KNOWN = ("max_epochs", "batch_size", "lr", "lr_schedule", "patience")


@pytest.mark.parametrize(
    ("typed", "meant"), [("max_epoch", "max_epochs"), ("batchsize", "batch_size"), ("lr_shedule", "lr_schedule")]
)
def test_a_misspelt_word_gets_the_nearest_known_one(typed, meant):
    assert f"Did you mean '{meant}'?" in did_you_mean(typed, KNOWN)


@given(st.text(max_size=20))
def test_every_known_word_is_listed_whatever_was_typed(typed):
    sentence = did_you_mean(typed, KNOWN)
    assert all(word in sentence for word in KNOWN)


def test_a_word_like_no_other_gets_no_suggestion():
    assert "Did you mean" not in did_you_mean("zzzzzzzz", KNOWN)


def test_where_nothing_is_known_it_says_so():
    assert did_you_mean("anything", []) == "Nothing is accepted here."


def test_known_words_may_come_from_a_generator():
    assert "'patience'" in did_you_mean("patiense", (word for word in KNOWN))


def test_every_error_is_a_noumena_error_with_the_exit_code_of_its_kind():
    codes = {
        "ConfigError": 2,
        "NotSupportedError": 2,
        "DataError": 3,
        "ArtifactError": 4,
        "TrainingDiverged": 5,
        "TrainingInterrupted": 130,
    }
    for name, code in codes.items():
        error = getattr(errors, name)("what happened")
        assert isinstance(error, NoumenaError)
        assert error.exit_code == code
        assert str(error) == "what happened"
