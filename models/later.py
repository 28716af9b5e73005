"""TensorFlow as `tf`, imported when something in it is first asked for.

It takes seconds to import, and it must be told its device first (`models.device`). So what a command line or a report
reads, such as the kinds of shaping, imports it from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
else:

    class _Later:
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("tensorflow"), name)

    tf = _Later()
