"""Moving dots under four kinds of noise, made on the fly: the world, its overlays, and data sets of sequences."""
