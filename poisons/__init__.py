"""The attacks, a module each, and the poison files they write."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poisons.crafting import Attack


@functools.cache
def attacks() -> dict[str, Attack]:
    """All attacks by name: what the modules of this folder call ATTACK, or ATTACKS where one has several."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            content = vars(importlib.import_module(f"{__name__}.{module.name}"))
            for attack in content.get("ATTACKS", (content["ATTACK"],) if "ATTACK" in content else ()):
                if attack.name in found:
                    raise ValueError(f"two attacks are called {attack.name}: give one of them another name")
                found[attack.name] = attack
    return found
