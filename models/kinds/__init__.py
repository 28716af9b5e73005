"""The kinds of gradient shaping, a module for each sort of thing that they look at. Importing this registers them."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
