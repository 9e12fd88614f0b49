"""Crystals from files of every format as plain arrays: numpy alone, so that worker processes start fast."""
