"""Networks of crystals."""
