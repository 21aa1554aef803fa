"""uniemox: predict the emotions that images evoke, and, with a model trained for it, what the people in them feel.

Based on UniEmoX (arXiv 2409.18877). Importing the package imports neither torch nor any other large library: each
public name is imported at first use.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
