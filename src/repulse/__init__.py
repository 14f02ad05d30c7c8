"""Robust classifiers from repulsive class prototypes, and an honest measure of robustness.

What there is to use is named in `__init__.pyi`. PyTorch takes seconds to import, so each name is fetched when it is
first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
