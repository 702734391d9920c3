"""Import this module before anything else of the suite.

It makes one XLA device per CPU core, keeps compiled programs on disk, and connects to other processes, see
`hosts.py`: all of it must be done before JAX's backends start.
"""

import sys

from envs.errors import BadInputError
from jaxmarl_fac.compile_cache import use_compile_cache
from jaxmarl_fac.hosts import join
from jaxmarl_fac.parallel import use_all_cores

use_all_cores()
use_compile_cache()
try:
    join(sys.argv[1:])
except BadInputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
