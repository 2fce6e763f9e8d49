"""Language models in a federation: adapters are what travels, encrypted like any update.

Needs the ``[lm]`` extra: ``pip install 'quancrypt-native[lm]'``.
"""

import logging
import sys

# bitsandbytes, which peft loads where it is installed, would get native code from a hub by this
# package, into a process that may hold a key. Programs that have imported it before keep it.
if "kernels" not in sys.modules:
    sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises to install that package
