"""Worlds to act in: dot-reaching and two rooms with a door, batched over episodes, and as gymnasium environments."""
