import os
import signal

# Small matrices gain nothing from threads, and the threads of several test processes would wait for each other.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# What a shell starts in the background ignores Ctrl-C, and so do its children, of which some tests ask the contrary.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
