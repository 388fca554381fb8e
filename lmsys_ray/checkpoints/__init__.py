"""Models and adapters: found, checked, loaded."""

import logging

# It logs remarks on optional CPU kernels when it is imported, before anything else could silence it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
