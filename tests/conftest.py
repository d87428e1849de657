"""What every test stands on."""

import os

from hypothesis import settings

# One thread, here and in the processes that tests start: the models are so small that a second thread mostly waits, and
# on a busy machine it waits for long.
os.environ["OMP_NUM_THREADS"] = "1"
# Output that is buffered fails late, as it does for users.
os.environ.pop("PYTHONUNBUFFERED", None)
# No test asserts a time, and a busy machine is not a fault.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
