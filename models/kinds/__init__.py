"""The kinds of gradient shaping, a module for each sort of thing that they look at. Importing this registers them."""

import importlib

for _module in ("norms", "losses", "robust", "directions", "epochs"):  # the order in which they are listed
    importlib.import_module(f"{__name__}.{_module}")
