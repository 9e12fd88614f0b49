"""Episodes of one's own: recordings of frames and actions, read from files or made in a gymnasium environment."""
