"""Craft the poison files of several attacks, where they are missing: what the sweeps call.

    python3 -m poisons --attack label-flips slabs --dataset subtask --ratio 0.1 0.4 --seed 215
    python3 -m poisons --sets label-flips:0.4 collision:1.0 none --dataset subtask --seed 3
    python3 -m poisons --sets gradient-canceling:0.1 --against 0.1 phuber:2 --dataset subtask

prints their paths. A set is an attack and the value of its option that takes many: a ratio, or the alpha of watermarks,
or the patch of backdoors; `none` is the clean rows alone. --against: the shapings that attacks are crafted against, a
file each, where an attack can be. Every other option of an attack has its default; its own command has them all, e.g.
python3 -m poisons.label_flip --help. The seed is that of the sweep: attacks that draw at random follow it, sets that
are searched for stay the same.
"""

from __future__ import annotations

import argparse

import datasets
from command_line import Parser, refuse, run
from models.kind import add_file_option
from poisons import attacks, crafting, poison_set
from poisons.crafting import Attack


def main() -> None:
    parser = Parser(__doc__)
    swept = [name for name, attack in sorted(attacks().items()) if attack.swept]
    parser.add_argument(
        "--attack", nargs="+", default=[], choices=swept, metavar="ATTACK", help=f"of {', '.join(swept)}"
    )
    parser.add_argument("--ratio", nargs="+", default=[], type=crafting.RATIO.type, help=crafting.RATIO.help)
    parser.add_argument(
        "--sets", nargs="+", default=[], metavar="ATTACK:VALUE", help=f"of {', '.join(sorted(attacks()))}"
    )
    parser.add_argument("--against", nargs="+", default=[], metavar="SHAPING", help="as train.py --shaping takes it")
    add_file_option(parser)
    crafting.add_dataset(parser, "subtask")
    crafting.add_options(parser, [crafting.SEED])
    options = parser.parse_args()
    if bool(options.attack) == bool(options.sets) or bool(options.attack) != bool(options.ratio):
        refuse("--attack: give attacks and their --ratio, or else --sets")
    dataset = datasets.load(options.dataset)
    words = options.sets or [f"{attack}:{ratio}" for attack in options.attack for ratio in options.ratio]
    wanted = [found for word in dict.fromkeys(words) for found in sets(word, options.against, options.seed)]
    for attack, chosen in wanted:
        if attack:
            crafting.check(attack, dataset, [chosen])
    for attack, chosen in wanted:
        if attack:
            crafting.show(attack, dataset, [chosen], examples=False)
        else:
            print(poison_set.NONE, flush=True)


def sets(word: str, against: list[str], seed: int) -> list[tuple[Attack | None, dict]]:
    """The sets that a word asks for: attacks, None for no poison, and their options; refuses what is none."""
    if word == poison_set.NONE:
        return [(None, {})]
    name, _, value = word.partition(":")
    if name not in attacks():
        refuse(f"--sets {word}: no attack is called {name!r}; choose of {', '.join(sorted(attacks()))}")
    attack = attacks()[name]
    options = {option.name: option for option in attack.options}
    varied = next((option for option in attack.options if option.many), None)
    if varied is None:
        refuse(f"--sets {word}: {name} is not crafted by sets; use its own command")
    try:
        chosen = {varied.name: varied.type(value)}
        shapings = dict.fromkeys(map(options["shaping"].type, against) if "shaping" in options else ())
    except argparse.ArgumentTypeError as error:
        refuse(f"--sets {word}: {error}; give the {varied.name} behind the attack's name, and shapings --against")
    if attack.follows_seed:
        chosen["seed"] = seed
    return [(attack, {**chosen, "shaping": text}) for text in shapings] or [(attack, chosen)]


if __name__ == "__main__":
    run(main)
