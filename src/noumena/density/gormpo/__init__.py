"""Models and configurations of GORMPO (Tumay et al., arXiv 2605.24405) read into this library."""
