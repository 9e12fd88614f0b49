import os

# Small matrices gain nothing from threads, and the threads of several test processes would wait for each other.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
