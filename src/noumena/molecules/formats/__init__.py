"""Trajectory files of every format, read a bounded number of frames at a time."""
