"""What can be read from latents: linear probes of the state, trivial baselines beside them, and their errors."""
