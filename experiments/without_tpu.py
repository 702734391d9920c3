"""Settings with which libtpu compiles without a TPU. They count only before JAX has looked for devices.

Scripts import this module before `baselines`, which starts JAX.
"""

import os
import sys

#: What libtpu would look for on the network, and complain about for lines when it finds none.
LIBTPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile: none uses a device
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}

if sys.argv[1:2] == ["tpu"]:  # `benchmark.py tpu`; all else may run on TPUs
    os.environ.update(LIBTPU)
