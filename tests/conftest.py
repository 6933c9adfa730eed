"""Read before any test: without a GPU, Triton's kernels run in its interpreter.

Triton looks at the variable when it is imported first, and other tests import it through their packages.
"""

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"
