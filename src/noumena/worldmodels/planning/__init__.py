"""Planning in latent space: search for actions, costs of goals, control of worlds, and what comes of it."""
