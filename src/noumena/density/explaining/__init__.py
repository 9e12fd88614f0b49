"""Why a row scores as it does, and what would have to change; the door is :mod:`noumena.density.explanations`."""
