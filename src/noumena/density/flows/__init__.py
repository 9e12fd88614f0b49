"""What :class:`noumena.density.flow.Flow` is made of."""
