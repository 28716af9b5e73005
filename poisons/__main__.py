"""Craft the poison files of one attack or several at some ratios, where they are missing: what the sweeps call.

    python3 -m poisons --attack label-flips slabs --dataset subtask --ratio 0.1 0.4 --seed 215

prints their paths. Every other option of an attack has its default; its own command has them all, e.g. python3 -m
poisons.label_flip --help. The seed is that of the sweep: attacks that draw at random follow it, sets that are searched
for stay the same.
"""

from __future__ import annotations

import datasets
from command_line import Parser, run
from poisons import attacks, crafting


def main() -> None:
    known = {name: attack for name, attack in sorted(attacks().items()) if attack.swept}
    parser = Parser(__doc__)
    parser.add_argument(
        "--attack", nargs="+", required=True, choices=known, metavar="ATTACK", help=f"of {', '.join(known)}"
    )
    crafting.add_dataset(parser, "subtask")
    crafting.add_options(parser, (crafting.RATIO, crafting.SEED))
    options = parser.parse_args()
    dataset = datasets.load(options.dataset)
    chosen = [known[name] for name in dict.fromkeys(options.attack)]
    sets = [
        [
            {attack.ratio: ratio, **({"seed": options.seed} if attack.follows_seed else {})}
            for ratio in dict.fromkeys(options.ratio)
        ]
        for attack in chosen
    ]
    for attack, its_sets in zip(chosen, sets):
        crafting.check(attack, dataset, its_sets)
    for attack, its_sets in zip(chosen, sets):
        crafting.show(attack, dataset, its_sets)


if __name__ == "__main__":
    run(main)
