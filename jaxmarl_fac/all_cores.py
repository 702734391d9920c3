"""Importing this, before anything else of the suite, lets a CPU count as one XLA device per core."""

from jaxmarl_fac.parallel import use_all_cores

use_all_cores()
