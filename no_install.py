"""What `pip install .` calls: it refuses, in one line.

The suite is run from its folder. Its packages are called datasets, models, poisons and results, as its readers expect;
installed into an environment, they would hide others of these names (Hugging Face's `datasets`, for one).
"""

from __future__ import annotations

import sys
from typing import NoReturn


def refuse(*_, **__) -> NoReturn:
    print("error: this suite is run from its folder and not installed: ./setup.sh, then the scripts", file=sys.stderr)
    raise SystemExit(2)


get_requires_for_build_wheel = get_requires_for_build_editable = get_requires_for_build_sdist = refuse
build_wheel = build_editable = build_sdist = refuse
