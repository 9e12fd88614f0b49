"""The errors Noumena raises. Each says what was expected, what was found, where, and what to do."""

import difflib
from collections.abc import Iterable


class NoumenaError(Exception):
    """Base of every error below; ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class ConfigError(NoumenaError):
    """A recipe, an option or a hyperparameter is unknown, of the wrong type or out of range."""

    exit_code = 2


class NotSupportedError(NoumenaError):
    """The model or the file cannot do what was asked; the message names the alternative."""

    exit_code = 2


class DataError(NoumenaError):
    """Input data are missing, malformed, of the wrong shape or not finite."""

    exit_code = 3


class ArtifactError(NoumenaError):
    """A saved model, a checkpoint or a result file is damaged, unknown or cannot be written."""

    exit_code = 4


class TrainingDiverged(NoumenaError):
    """The loss became NaN or infinite."""

    exit_code = 5


class TrainingInterrupted(NoumenaError):
    """Training was asked to stop and its state is saved; resume it with ``resume=True``."""

    exit_code = 130


class StopTraining(Exception):
    """Raised by the ``on_epoch`` of a training to end it; it comes out of ``fit`` as it is."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or lists all of them.

    Args:
        name: what was found.
        known: the accepted words.
    """
    words = [str(word) for word in known]
    near = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'? Known: {', '.join(words)}."
    return f"Known: {', '.join(words)}." if words else "Nothing is accepted here."
