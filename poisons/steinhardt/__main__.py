"""The attacks of Steinhardt, Koh and Liang 2017 (arXiv 1706.03691), crafted from the clean training rows alone.

    python3 -m poisons.steinhardt --attack slab --ratio 0.4
        the strong, unrealistic one: four points, means shifted
    python3 -m poisons.steinhardt --attack slab --ratio 0.4 --select training-loss
        the same by the rule of its release
    python3 -m poisons.steinhardt --attack slab --ratio 0.4 --select own-victim --shaping phuber:2
        the same with a victim of this gradient shaping in the loop
    python3 -m poisons.steinhardt --attack minmax --ratio 0.1
        valid images that pass both defences, and a bound U*

writes a poison file for each epsilon under datasets/poisons/indiscriminate/ in the folder slabs, slabs-own,
slabs-release or minmax, with a PNG of the poisons beside it, and crafting.csv (bounds, losses, seconds) under the
results, and prints the files' paths. What is crafted is not crafted again.
"""

from __future__ import annotations

import dataclasses

import datasets
from command_line import Parser, run
from poisons import crafting
from poisons.steinhardt import ATTACKS, GENERATIONS, RHO

NAMES = {
    ("slab", "victim"): "slabs", ("slab", "own-victim"): "slabs-own", ("slab", "training-loss"): "slabs-release"
}  # fmt: skip


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--attack", required=True, choices=("slab", "minmax"))
    parser.add_argument(
        "--select",
        choices=("victim", "own-victim", "training-loss"),
        default="victim",
        help="slab: which candidate to keep (default: %(default)s)",
    )
    crafting.add_dataset(parser, "subtask")
    every = {option.name: option for attack in ATTACKS for option in attack.options}
    every["generations"] = dataclasses.replace(
        GENERATIONS, default=None, help=f"{GENERATIONS.help} (default: 150, or 60)"
    )
    every["rho"] = dataclasses.replace(RHO, help=f"{RHO.help} (default: sqrt(0.8) for slab, 5 for minmax)")
    crafting.add_options(parser, every.values())
    options = parser.parse_args()
    name = NAMES.get((options.attack, options.select), "minmax")
    attack = next(attack for attack in ATTACKS if attack.name == name)
    given = {option.name: value for option in attack.options if (value := getattr(options, option.name)) is not None}
    crafting.show(attack, datasets.load(options.dataset), crafting.sets_of(attack, given))


if __name__ == "__main__":
    run(main)
