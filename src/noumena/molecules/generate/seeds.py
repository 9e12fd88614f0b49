"""Seeds of parts of a computation."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """A seed that follows from some numbers: 31 bits, never 0, which OpenMM takes for "any"."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] & 0x7FFF_FFFF) or 1
