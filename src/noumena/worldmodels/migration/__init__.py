"""What the study of moving dots (Sobal et al. 2022) was run with, in terms of this library."""
