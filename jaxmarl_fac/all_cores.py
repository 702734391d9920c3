"""Import this module before anything else of the suite to get one XLA device per CPU core."""

from jaxmarl_fac.parallel import use_all_cores

use_all_cores()
