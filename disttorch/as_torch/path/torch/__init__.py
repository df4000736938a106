"""What a worker process, started afresh, finds as ``torch``: it lets disttorch be found under that name."""

import sys

from disttorch.as_torch import install

install()
del sys.modules[__name__]
import torch  # noqa: E402, F401 - by the finder now; it takes this module's place
