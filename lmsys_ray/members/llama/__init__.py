"""A decoder-only transformer as a judge: conversations become tokens, tokens become P(a), P(b), P(tie)."""

import logging

# It remarks on optional CPU kernels as soon as something imports it, before anything else could stop it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
