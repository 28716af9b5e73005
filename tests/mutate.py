#!/usr/bin/env python3
"""Do the tests notice faults? Puts small faults (mutants) into the modules, one at a time, and runs their tests.

    python3 -m tests.mutate                              the known mutants and 320 drawn ones: about an hour on one core
    python3 -m tests.mutate --mutants 40 --module models/stack.py models/batch.py
    python3 -m tests.mutate --mutants 0 --known one-noise minmax-epsilon
    python3 -m tests.mutate --again                      those that the tests did not notice, once more

prints how many of each module's mutants were noticed (killed), and those that were not (survived). Equivalent ones, in
mutants_equivalent.csv, change nothing that can be told from outside. Each finished mutant is a line of --out, so the
same command goes on where it was stopped. Needs coverage.py (pip install coverage), unless --mutants is 0.

A mutant runs the fast tests that reach its line, the fastest first, until one fails. Which reach it is measured once,
for each file of tests again when it changed. All of it happens in a copy of the repository, below --work.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import difflib
import dis
import fcntl
import functools
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "poisons", "results", "reports")
IGNORED_DATA = ("datasets/fashion_mnist/*.gz", "datasets/purchases/purchase_100_20k_data.npz")  # what tests read
HEAVY = ("numpy", "pandas", "scipy.stats", "scipy.optimize", "matplotlib.pyplot", "jinja2", "tensorflow", "pytest",
         "hypothesis", "dp_accounting", "clarabel", "cma")  # fmt: skip
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.csv")
COLUMNS = ["name", "module", "line", "kind", "before", "after", "state", "by", "tests", "seconds"]

# Faults that would hurt: name, module, its text, the fault, and a test that notices it (none: nothing changes)
STEINHARDT = "poisons/steinhardt"
KNOWN = [
    ("same", "models/noise.py", "seed * 1000 + parameter", "parameter + seed * 1000",
     "test_stack.py::test_noise_is_standard_normal_and_independent"),
    ("one-noise", "models/stack.py", "self.seed, index, self.optimizer.steps", "self.seed, 0, self.optimizer.steps",
     "test_stack.py::test_each_parameter_draws_noise_of_its_own"),
    ("biases-alone", "models/stack.py", "zip(self.kernels + self.biases, self.axes)", "zip(self.biases, self.axes[1:])",
     "test_stack.py::test_a_replica_is_finite_where_all_its_weights_are"),
    ("swapped-accuracies", "models/trainer.py", "tuple(engine.right(rows) / seen)",
     "tuple((engine.right(rows) / seen)[::-1])", "test_stack.py::test_accuracies_are_of_clean_rows_then_of_poisons"),
    ("unshuffled", "models/minibatches.py", "np.random.default_rng([seed, epoch]).permutation(count)",
     "np.arange(count)", "test_stack.py::test_batches_hold_every_row_once_clean_rows_first"),
    ("wrong-batch", "models/minibatches.py", "clean_norms[batch])", "clean_norms[0])",
     "test_stack.py::test_cosines_are_to_the_clean_rows_of_the_poisons_own_batch"),
    ("replica-0", "models/trials.py", "engine.hits(data.x_test, data.y_test, replica)",
     "engine.hits(data.x_test, data.y_test, 0)", "test_trials.py::test_each_trial_has_the_accuracy_of_its_own_replica"),
    ("largest-order", "models/privacy.py", "np.min(spent", "np.max(spent",
     "test_privacy.py::test_it_bounds_the_tighter_conversion"),
    ("smallest-objective", f"{STEINHARDT}/slab_search.py", "candidate = max(found", "candidate = min(found",
     "test_steinhardt.py::test_dual_averaging_keeps_the_shares_of_largest_objective"),
    ("smallest-loss", f"{STEINHARDT}/slab_search.py", "return max(scored", "return min(scored",
     "test_steinhardt.py::test_the_release_keeps_the_set_whose_model_has_the_largest_clean_loss"),
    ("best-victim", f"{STEINHARDT}/slab_search.py", "np.argmin(rated)", "np.argmax(rated)",
     "test_steinhardt.py::test_the_search_starts_at_the_set_that_leaves_victims_least"),
    ("worst-epochs", f"{STEINHARDT}/slab_search.py", "np.sort(accuracies, 0)[-BEST_EPOCHS:]",
     "np.sort(accuracies, 0)[:BEST_EPOCHS]",
     "test_steinhardt.py::test_a_score_is_the_sum_over_victims_of_their_best_epochs"),
    ("minmax-bound", f"{STEINHARDT}/minmax.py", "+ epsilon * loss)", "+ loss)",
     "test_steinhardt.py::test_minmax_follows_its_algorithm"),
    ("minmax-epsilon", f"{STEINHARDT}/minmax.py", "gradient - epsilon * (2 * label - 1) * point",
     "gradient - (2 * label - 1) * point", "test_steinhardt.py::test_minmax_follows_its_algorithm"),
    ("minmax-weights", f"{STEINHARDT}/minmax.py", "epsilon / len(poisons)", "1 / len(poisons)",
     "test_steinhardt.py::test_the_training_loss_weighs_poisons_by_epsilon"),
    ("least-point", "poisons/point_search.py", "values.argmax(1)", "values.argmin(1)",
     "test_adaptive.py::test_the_best_of_all_restarts_and_steps_is_found"),
    ("unhurt-victim", "poisons/victims.py", "np.argmin(self.clean_accuracies[:-1])",
     "np.argmax(self.clean_accuracies[:-1])",
     "test_adaptive.py::test_what_hurts_most_is_chosen_by_clean_rows_alone"),
    ("unshuffled-victims", "poisons/victims.py", "random.permutation(clean_rows)", "np.arange(clean_rows)",
     "test_adaptive.py::test_victims_see_other_batches_in_every_epoch"),
    ("own-classes", "poisons/backdoor.py", 'dataset.y_test != settings["label"]', 'dataset.y_test == settings["label"]',
     "test_backdoor.py::test_success_is_the_share_of_stamped_images_that_are_given_the_label"),
    ("swapped-norms", "results/param_updates.py",
     'norms[~is_poison & seen],\n        "poison_norms": norms[is_poison & seen]',
     'norms[is_poison & seen],\n        "poison_norms": norms[~is_poison & seen]',
     "test_analyze_gradients.py::test_what_is_recorded_are_the_rows_that_a_replica_sees"),
    ("swapped-extracts", "results/param_updates.py", "np.column_stack([magnitudes, cosines])",
     "np.column_stack([magnitudes[:, ::-1], cosines])",
     "test_analyze_gradients.py::test_extracts_are_read_as_they_are_written"),
    ("unrun-passes", "reports/claims.py", "made = [one for one in passed if one is not None]",
     "made = [one is not False for one in passed]", "test_report_parts.py::test_checks_that_were_not_run_do_not_count"),
    ("unrun-seeds", "reports/claims.py", 'passed = [check["passed"] for line in wanted',
     'passed = [check["passed"] is not False for line in wanted',
     "test_report_parts.py::test_a_seed_without_all_checks_has_no_verdict"),
]  # fmt: skip

COMPARED = {
    ast.Lt: ("<", ["<=", ">="]), ast.LtE: ("<=", ["<", ">"]), ast.Gt: (">", [">=", "<="]), ast.GtE: (">=", [">", "<"]),
    ast.Eq: ("==", ["!="]), ast.NotEq: ("!=", ["=="]), ast.In: ("in", ["not in"]), ast.NotIn: ("not in", ["in"]),
    ast.Is: ("is", ["is not"]), ast.IsNot: ("is not", ["is"]),
}  # fmt: skip
COMPUTED = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
PAIRS = [
    ("min", "max"), ("argmin", "argmax"), ("idxmin", "idxmax"), ("any", "all"), ("sum", "mean"), ("nanmin", "nanmax"),
    ("minimum", "maximum"), ("reduce_min", "reduce_max"), ("reduce_sum", "reduce_mean"), ("reduce_any", "reduce_all"),
    ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like"), ("cumsum", "cumprod"), ("median", "mean"),
    ("removeprefix", "removesuffix"),
]  # fmt: skip
OTHER = {**{other: one for one, other in PAIRS}, **dict(PAIRS)}
OTHER_TEXT = {"first": "last", "last": "first", "left": "right", "right": "left", "min": "max", "max": "min",
              "sum": "mean", "mean": "sum", "median": "mean"}  # fmt: skip
BUILT_IN = {"min", "max", "any", "all"}
# How figures look and what texts say: nothing that a test should hold fast
LOOKS = set(
    "figsize fontsize size color colors c facecolor edgecolor ecolor alpha linewidth linewidths lw width height marker"
    " markersize ms markevery s linestyle linestyles ls dpi pad labelpad loc rotation ha va zorder ncol ncols frameon"
    " bbox_to_anchor fancybox capsize elinewidth cmap vmin vmax title label labels xlabel ylabel help metavar prog"
    " description epilog hashsalt metadata layout constrained_layout handlelength columnspacing borderaxespad aspect"
    " interpolation rotation_mode color_cycle fmt xytext textcoords".split()
)
SAYING = set(
    "refuse print warn set_axis_off set_title set_xlabel set_ylabel suptitle text annotate legend tick_params grid"
    " margins panels set_layout_engine supxlabel supylabel add_argument_group".split()
)
LOOKING = set("COLOURS MARKERS STYLE HATCHES".split())


@dataclass(frozen=True)
class Mutant:
    """A fault: the bytes from `start` to `end` of a module replaced by `new`.

    line, last: the lines of the statement that it is in, by which its tests are found; before, after: the changed lines
    as one text.
    """

    module: str
    kind: str
    start: int
    end: int
    new: str
    line: int
    last: int
    before: str
    after: str
    name: str = ""


def modules(folder: Path) -> list[str]:
    """The modules that mutants are made of, from the repository's root."""
    found = (path for package in PACKAGES for path in (folder / package).rglob("*.py"))
    return sorted(str(path.relative_to(folder)) for path in found)


class Source:
    """A module's text as bytes, and where its nodes lie."""

    def __init__(self, folder: Path, module: str) -> None:
        self.module, self.text = module, (folder / module).read_bytes()
        self.tree = ast.parse(self.text)
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def of(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end].decode()

    def mutant(self, kind: str, start: int, end: int, new: str, lines: tuple[int, int], name: str = "") -> Mutant:
        """The mutant with this replacement."""
        first = self.text.rfind(b"\n", 0, start) + 1
        last = self.text.find(b"\n", end)
        changed = self.text[first:start] + new.encode() + self.text[end:last]
        before, after = (" ".join(part.decode().split()) for part in (self.text[first:last], changed))
        return Mutant(self.module, kind, start, end, new, *lines, before, after, name)


def mutated(text: bytes, mutant: Mutant) -> bytes:
    return text[: mutant.start] + mutant.new.encode() + text[mutant.end :]


def mutants_of(source: Source) -> list[Mutant]:
    """All mutants of a module, once each."""
    found = {}
    for node, lines in nodes(source.tree.body):
        for kind, start, end, new in edits(node, source):
            mutant = source.mutant(kind, start, end, new, lines)
            found.setdefault(key(vars(mutant)), mutant)
    return list(found.values())


def compiles(source: Source, mutant: Mutant) -> bool:
    try:
        compile(mutated(source.text, mutant), source.module, "exec")
    except SyntaxError:
        return False
    return True


def key(mutant: dict) -> tuple[str, ...]:
    """What tells a mutant from others, wherever its module's lines have moved to."""
    return tuple(mutant[name] for name in ("name", "module", "before", "after"))


def nodes(body: list[ast.stmt]) -> Iterator[tuple[ast.AST, tuple[int, int]]]:
    """The nodes that may be changed, with the lines of the statement, or of its head, that each is in."""
    for statement in body:
        inner = [child for name in ("body", "orelse", "finalbody") for child in getattr(statement, name, [])]
        inner += [child for handler in getattr(statement, "handlers", []) for child in handler.body]
        test = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
        if "__name__" in test or "TYPE_CHECKING" in test or is_text(statement):
            continue
        last = min((child.lineno for child in inner), default=statement.end_lineno + 1) - 1
        lines = (statement.lineno, max(last, statement.lineno))
        if not isinstance(statement, (ast.Import, ast.ImportFrom, ast.ClassDef)):
            yield from ((node, lines) for node in expressions(statement, {id(child) for child in inner}))
        yield from nodes(inner)


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, or says how figures look."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    if any(isinstance(target, ast.Name) and target.id in LOOKING for target in targets):
        return True
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def expressions(node: ast.AST, without: set[int]) -> Iterator[ast.AST]:
    """A node and those below it, but for statements of its own, annotations, decorators, and texts."""
    yield node
    if isinstance(node, (ast.JoinedStr, ast.Raise)) or name_of(node) in SAYING:
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            looks = isinstance(child, ast.keyword) and child.arg in LOOKS
            if isinstance(child, ast.AST) and id(child) not in without and not looks:
                if not isinstance(child, ast.ExceptHandler):
                    yield from expressions(child, without)


def name_of(node: ast.AST | None) -> str:
    """The name of what is called."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def between(source: Source, left: ast.AST, right: ast.AST, operator: str) -> tuple[int, int]:
    """Where the operator between two nodes lies."""
    start, end = source.span(left)[1], source.span(right)[0]
    gap = re.sub(rb"#[^\n]*", lambda match: b" " * len(match[0]), source.text[start:end])
    words = rb"\s+".join(map(re.escape, operator.encode().split()))
    match = re.search(words, gap)
    return start + match.start(), start + match.end()


def edits(node: ast.AST, source: Source) -> Iterator[tuple[str, int, int, str]]:
    """What may be changed at a node: kind, from, to, and the new text."""
    if isinstance(node, ast.Compare):
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            word, others = COMPARED[type(operator)]
            place = between(source, left, right, word)
            yield from (("comparison", *place, other) for other in others)
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED and not text_beside(node):
        word, other = COMPUTED[type(node.op)]
        yield "arithmetic", *between(source, node.left, node.right, word), other
        for side in (node.left, node.right):
            yield "operand", *source.span(node), f"({source.of(side)})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        word, other = COMPUTED[type(node.op)]
        yield "arithmetic", *between(source, node.target, node.value, word + "="), other + "="
    elif isinstance(node, ast.BoolOp):
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            yield "boolean", *between(source, left, right, word), other
        for side in node.values:
            yield "operand", *source.span(node), f"({source.of(side)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        start, end = source.span(node)
        yield "unary", start, end, f"({source.of(node.operand)})"
    elif isinstance(node, ast.Constant):
        yield from constants(node, source)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in OTHER and isinstance(node.ctx, ast.Load) and (isinstance(node, ast.Attribute) or name in BUILT_IN):
            end = source.span(node)[1]
            yield "function", end - len(name), end, OTHER[name]
        elif isinstance(node, ast.Name) and name == "sorted":
            yield "function", *source.span(node), "list"
    elif isinstance(node, ast.Call) and name_of(node) not in SAYING:
        yield from calls(node, source)
    elif isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Load):
        yield from swaps(node.elts, source)
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield "jump", *source.span(node), "continue" if isinstance(node, ast.Break) else "break"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and name_of(node.value) != "print":
        if name_of(node.value) in SAYING - {"refuse"}:
            return
        yield "statement", *source.span(node), "pass"
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        for bound in (node.slice.lower, node.slice.upper):
            if bound is not None:
                yield "slice", *source.span(bound), ""
    for test in [getattr(node, "test", None), *getattr(node, "ifs", [])]:
        if isinstance(node, (ast.If, ast.IfExp, ast.comprehension)) and test is not None:
            yield "condition", *source.span(test), f"(not ({source.of(test)}))"


def text_beside(node: ast.BinOp) -> bool:
    """Whether texts or lists are added, or a path joined: other operators would only raise."""
    path = isinstance(node.op, ast.Div) and re.search("path|folder|place|RESULTS|layout|name", ast.unparse(node))
    parts = isinstance(node.left, (ast.JoinedStr, ast.List)) or isinstance(node.right, (ast.JoinedStr, ast.List))
    return bool(path) or parts or any(isinstance(getattr(side, "value", None), str) for side in (node.left, node.right))


def constants(node: ast.Constant, source: Source) -> Iterator[tuple[str, int, int, str]]:
    """Another number, or truth."""
    if isinstance(node.value, bool):
        yield "constant", *source.span(node), str(not node.value)
    elif isinstance(node.value, (int, float)):
        yield "constant", *source.span(node), f"{node.value + 1!r}"
        if node.value == 1:
            yield "constant", *source.span(node), "0"
    elif isinstance(node.value, str) and node.value in OTHER_TEXT:
        yield "function", *source.span(node), f'"{OTHER_TEXT[node.value]}"'


def calls(node: ast.Call, source: Source) -> Iterator[tuple[str, int, int, str]]:
    """A call without one of its keywords, and with two of its arguments the other way round."""
    parts = sorted([*node.args, *node.keywords], key=source.span)
    for before, part in zip([None, *parts], parts):
        if isinstance(part, ast.keyword) and part.arg and part.arg not in LOOKS:
            start, end = source.span(part)
            if before is not None:
                start = source.span(before)[1]
            yield "keyword", start, end, ""
            if part.arg == "axis" and isinstance(part.value, ast.Constant) and part.value.value in (0, 1):
                yield "axis", *source.span(part.value), str(1 - part.value.value)
            if part.arg == "reverse":
                yield "keyword", *source.span(part.value), f"not {source.of(part.value)}"
    yield from swaps(node.args, source)


def swaps(elements: list[ast.expr], source: Source) -> Iterator[tuple[str, int, int, str]]:
    """Two elements beside each other, the other way round."""
    for one, other in zip(elements, elements[1:]):
        texts = source.of(one), source.of(other)
        plain = not any(isinstance(side, (ast.Starred, ast.GeneratorExp, ast.JoinedStr)) for side in (one, other))
        both_texts = all(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (one, other))
        if plain and texts[0] != texts[1] and not both_texts:
            (start, middle), (then, end) = source.span(one), source.span(other)
            yield "swap", start, end, texts[1] + source.text[middle:then].decode() + texts[0]


def sampled(sources: list[Source], number: int, seed: int) -> list[Mutant]:
    """So many mutants, each module's in proportion to its statements but one at least; of each kind alike."""
    sizes = [len({node.lineno for node, _ in nodes(source.tree.body) if hasattr(node, "lineno")}) for source in sources]
    shares = [max(1, round(number * size / sum(sizes))) if size else 0 for size in sizes]
    while sum(shares) > number and max(shares) > 1:
        shares[shares.index(max(shares))] -= 1
    found = []
    for source, share in zip(sources, shares):
        by_kind = defaultdict(list)
        for mutant in mutants_of(source):
            by_kind[mutant.kind].append(mutant)
        draw, chosen = random.Random(f"{seed} {source.module}"), []
        kinds = sorted(by_kind)
        draw.shuffle(kinds)
        for kind in kinds:
            draw.shuffle(by_kind[kind])
        while len(chosen) < share and any(by_kind.values()):
            popped = [by_kind[kind].pop() for kind in kinds if by_kind[kind]]
            chosen += [mutant for mutant in popped if compiles(source, mutant)]
        found += sorted(chosen[:share], key=lambda mutant: mutant.start)
    return found


def known(sources: dict[str, Source], names: list[str]) -> dict[Mutant, str]:
    """The known mutants of these names, each with a test that notices it."""
    found = {}
    for name, module, before, after, test in KNOWN:
        if name in names:
            source = sources[module]
            start = source.text.find(before.encode())
            if start < 0 or source.text.count(before.encode()) != 1:
                raise ValueError(f"{module}: the text of the known mutant {name} is there not once: {before!r}")
            line = source.text.count(b"\n", 0, start) + 1
            end = start + len(before.encode())
            lines = (line, line + before.count("\n"))
            found[source.mutant("known", start, end, after, lines, name)] = test
    return found


def copied(work: Path) -> Path:
    """A copy of the repository with a git history of its own, as it is now."""
    copy = work / "copy"
    listed = ["git", "ls-files", "-coz", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\0")
    names += [str(path.relative_to(REPOSITORY)) for pattern in IGNORED_DATA for path in REPOSITORY.glob(pattern)]
    names = [name for name in names if name and (REPOSITORY / name).is_file()]
    copy.mkdir(exist_ok=True)
    git(copy, "init", "-q")
    git(copy, "config", "core.compression", "0")
    restore(copy)
    for name in set(git(copy, "ls-files", "-z").split("\0")) - {"", *names}:
        (copy / name).unlink(missing_ok=True)
    for name in names:
        one, other = REPOSITORY / name, copy / name
        if not other.exists() or (one.stat().st_mtime_ns, one.stat().st_size) != (
            other.stat().st_mtime_ns, other.stat().st_size,
        ):  # fmt: skip
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, other)
    if (REPOSITORY / ".venv").exists() and not (copy / ".venv").exists():
        (copy / ".venv").symlink_to((REPOSITORY / ".venv").resolve())
    (copy / ".git" / "info" / "exclude").write_text(".venv\n")
    git(copy, "add", "-A")
    git(copy, "add", "-f", "--", ".gitignore", *[name for pattern in IGNORED_DATA for name in copy.glob(pattern)])
    git(copy, "-c", "user.name=tests", "-c", "user.email=tests", "commit", "-q", "--allow-empty", "-m", "as it is")
    return copy


def git(folder: Path, *words) -> str:
    command = ["git", *map(str, words)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def restore(copy: Path) -> None:
    """Undo what a mutant and its tests did to the copy."""
    if git(copy, "status", "--porcelain", "--ignored").replace("!! .venv\n", ""):
        git(copy, "checkout", "-q", "--", ".") if git(copy, "ls-files") else None
        git(copy, "clean", "-fdxq", "-e", ".venv")


@functools.cache
def prepare() -> None:
    """Import what takes long, once for all forks, and nothing of the suite: each fork imports that for itself."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in HEAVY:
        importlib.import_module(name)
    suite = [name for name in sys.modules if name.split(".")[0] in PACKAGES]
    assert not suite, f"{suite} must not be imported before the mutants are"


def forked(copy: Path, log: Path, seconds: float, do: Callable[[], int]) -> int | None:
    """The exit code of `do` in a fork of this process, in the copy, with its output in a file; None past its time."""
    prepare()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, source in enumerate((nothing, stream, stream)):
                os.dup2(source, number)
            os.chdir(copy)
            for name in [name for name in sys.modules if name.split(".")[0] in {"tests", "command_line"}]:
                del sys.modules[name]
            here = {"", os.getcwd(), str(REPOSITORY), str(REPOSITORY / "tests")}
            sys.path[:] = [str(copy), *(path for path in sys.path if path not in here)]
            os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
            code = do()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for process in reversed(descendants(child)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def descendants(process: int) -> list[int]:
    """A process and those below it, from /proc."""
    parents = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
    found = [process]
    for one in found:
        found += parents[one]
    return found


def pytest_words(work: Path, *words) -> list[str]:
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", str(work / "tmp")]
    return [*options, *words]


class Watch:
    """A pytest plugin that tells coverage which test runs, and how long each took.

    What a fixture of a module or a session does belongs to all tests of the file.
    """

    def __init__(self, measured) -> None:
        self.measured, self.tests, self.now = measured, {}, ""
        self.lines = defaultdict(set)  # (file, line) of functions that TensorFlow's AutoGraph rewrote, which hides them

    def enter(self, context: str) -> None:
        self.now = os.environ["MUTATE_TEST"] = context
        self.measured.switch_context(context)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.enter(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = self.now
        if fixturedef.scope != "function":
            self.enter("file")
        try:
            return (yield)
        finally:
            self.enter(before)

    def pytest_runtest_logreport(self, report) -> None:
        seconds, passed = self.tests.get(report.nodeid, (0.0, True))
        good = report.outcome == "passed"
        self.tests[report.nodeid] = (round(seconds + report.duration, 3), passed and good)

    def note(self, function) -> None:
        """Count a function that AutoGraph rewrites as covered."""
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        todo = [code] if code else []
        for one in todo:
            todo += [constant for constant in one.co_consts if hasattr(constant, "co_code")]
            for _, line in dis.findlinestarts(one):
                self.lines[one.co_filename, line].add(self.now)


RC = """[run]
parallel = true
data_file = {data}
context = ${{MUTATE_TEST-}}
include =
    {includes}
omit =
    */site-packages/*
disable_warnings = no-data-collected,module-not-measured
"""


def measure(copy: Path, work: Path, names: list[str]) -> dict:
    """Which tests, of one file, reach which lines: tests, (seconds, whether it passed) by name, and lines, by module
    and line the tests, `file` for all of them, or an empty text for the import.
    """
    place = work / "coverage"
    shutil.rmtree(place, ignore_errors=True)
    (place / "site").mkdir(parents=True)
    (place / "site" / "sitecustomize.py").write_text("import coverage\ncoverage.process_startup()\n")
    includes = "\n    ".join(f"*/{package}/*" for package in PACKAGES)
    (place / "rc").write_text(RC.format(data=place / "data", includes=includes))
    result = place / "result.json"

    def run() -> int:
        import coverage
        from tensorflow.python.autograph.impl import api

        measured = coverage.Coverage(config_file=str(place / "rc"))
        measured.start()
        watch, convert = Watch(measured), api._convert_actual
        api._convert_actual = lambda entity, context: (watch.note(entity), convert(entity, context))[1]
        there = str(Path(coverage.__file__).parent.parent)
        os.environ["COVERAGE_PROCESS_START"] = str(place / "rc")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(place / "site"), there])
        code = pytest.main(pytest_words(work, *names), plugins=[watch])
        measured.stop()
        measured.save()
        rewritten = [[*where, sorted(tests)] for where, tests in watch.lines.items()]
        result.write_text(json.dumps([watch.tests, rewritten]))
        return int(code)

    forked(copy, place / "log", 3600, run)
    restore(copy)
    tests, rewritten = json.loads(result.read_text())
    lines: dict = defaultdict(lambda: defaultdict(set))
    wanted = set(modules(copy))

    def module_of(name: str) -> str | None:
        parts = Path(name).parts
        return next(("/".join(parts[-n:]) for n in (4, 3, 2) if "/".join(parts[-n:]) in wanted), None)

    from coverage import CoverageData

    for path in place.glob("data*"):
        data = CoverageData(str(path))
        data.read()
        for name in data.measured_files():
            if module_of(name):
                for line, contexts in data.contexts_by_lineno(name).items():
                    lines[module_of(name)][line].update(contexts)
    for name, line, contexts in rewritten:
        if module_of(name) and line:
            lines[module_of(name)][line].update(contexts)
    plain = {module: {line: sorted(found) for line, found in those.items()} for module, those in lines.items()}
    return {"tests": tests, "lines": plain}


def reach(copy: Path, work: Path) -> dict[str, dict]:
    """What every file of tests reaches (`measure`): of new and changed tests measured anew, of all where anything else
    in the file changed. Lines of modules that changed since are looked for where they have moved to.
    """
    found, texts = {}, work / "reach" / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    modules_now = {}
    for module in modules(copy):
        text = (copy / module).read_text()
        modules_now[module] = hashlib.sha256(text.encode()).hexdigest()
        (texts / modules_now[module]).write_text(text)
    for path in sorted(set((copy / "tests").glob("test_*.py")) - {copy / "tests" / "test_mutate.py"}):
        file, kept, digests = f"tests/{path.name}", work / "reach" / f"{path.stem}.json", digests_of(path)
        content = json.loads(kept.read_text()) if kept.exists() else {"digests": {}}
        if content["digests"].get("") != digests[""]:
            content = {"digests": {}, "tests": {}, "lines": {}}
        changed = [name for name, digest in digests.items() if name and content["digests"].get(name) != digest]
        for module, digest in content.get("modules", {}).items():
            if digest != modules_now.get(module) and module in content["lines"]:
                now = (copy / module).read_text() if module in modules_now else ""
                content["lines"][module] = moved(content["lines"][module], (texts / digest).read_text(), now)
        if changed or content.get("modules") != modules_now:
            content = {**content, "digests": content["digests"], "modules": modules_now}
            kept.write_text(json.dumps(content))
        if changed:
            start, known = time.monotonic(), len(content["tests"])
            alone = [f"{file}::{name}" for name in changed]
            measured = measure(copy, work, alone if content["tests"] else [file])
            merge(content, measured, {f"{file}::{name}" for name in digests.keys() - set(changed)})
            kept.write_text(json.dumps({**content, "digests": digests}))
            passed = sum(good for _, good in content["tests"].values())
            text = f"{path.name}: {passed} of {len(content['tests'])} pass, {known} were known"
            print(f"{text}, {time.monotonic() - start:.0f} s", flush=True)
        found[file] = content
    return found


def moved(lines: dict[str, list], before: str, now: str) -> dict[str, list]:
    """The tests of each line of a module that was changed: where lines are new, those of the lines in whose place they
    are and of both beside them.
    """
    found = {}
    match = difflib.SequenceMatcher(None, before.splitlines(), now.splitlines(), autojunk=False)
    for tag, first, last, to_first, to_last in match.get_opcodes():
        if tag == "equal":
            pairs = zip(range(first + 1, last + 1), range(to_first + 1, to_last + 1))
            found.update({str(new): lines[str(old)] for old, new in pairs if str(old) in lines})
        else:
            near = sorted({name for old in range(first, last + 2) for name in lines.get(str(old), [])})
            found.update({str(new): near for new in range(to_first + 1, to_last + 1)})
    return found


def digests_of(path: Path) -> dict[str, str]:
    """The SHA-256 of each test's text in a file, and, as "", of what else is in it but for imports."""
    text = path.read_text()
    lines, tests, rest = text.splitlines(), {}, []
    for node in ast.parse(text).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        part = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            tests[node.name] = hashlib.sha256(part.encode()).hexdigest()
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            rest.append(part)
    return {**tests, "": hashlib.sha256("\n".join(rest).encode()).hexdigest()}


def merge(content: dict, measured: dict, stay: set[str]) -> None:
    """Put what was measured of some tests beside what is known of those that stay."""
    known = {name: told for name, told in content["tests"].items() if name.partition("[")[0] in stay}
    content["tests"] = {**known, **measured["tests"]}
    for module, lines in measured["lines"].items():
        mine = content["lines"].setdefault(module, {})
        for line, names in lines.items():
            mine[str(line)] = sorted({*mine.get(str(line), []), *names})


def by_module(reached: dict[str, dict]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """The tests that reach each module: the seconds of each, the share of the lines that it reaches which are the
    module's, and the seconds of its file's fixtures, or less.
    """
    lines, seconds = defaultdict(lambda: defaultdict(int)), {}
    for content in reached.values():
        passed = {name: taken for name, (taken, good) in content["tests"].items() if good}
        shared = any("file" in contexts for those in content["lines"].values() for contexts in those.values())
        fixture = max(passed.values(), default=0) if shared else 0  # which the first of them waits for
        seconds.update((name, (taken, fixture)) for name, taken in passed.items())
        for module, those in content["lines"].items():
            for contexts in those.values():
                for name in passed if "file" in contexts else passed.keys() & contexts:
                    lines[name][module] += 1
    found = defaultdict(dict)
    for name, counts in lines.items():
        for module, count in counts.items():
            taken, fixture = seconds[name]
            found[module][name] = taken, count / sum(counts.values()), fixture
    return found


def tests_of(
    mutant: Mutant, reached: dict[str, dict], whole: dict[str, tuple]
) -> dict[str, tuple[float, float, float]]:
    """The tests that reach a mutant's lines or, where the module's import does, the module; whole: by_module's."""
    direct, imported = set(), False
    for content in reached.values():
        for line, contexts in content["lines"].get(mutant.module, {}).items():
            if mutant.line <= int(line) <= mutant.last:
                direct.update(content["tests"] if "file" in contexts else contexts)
                imported |= "" in contexts
    direct &= whole.keys()
    return {name: whole[name] for name in direct if not imported} or whole


def in_order(tests: dict[str, tuple[float, float, float]], most: float) -> list[str]:
    """The fastest and those that look at little else first, up to so many seconds; those of one file side by side, so
    that their fixtures are made once.
    """
    found, total = defaultdict(list), 0.0
    for name in sorted(tests, key=lambda name: (0.2 + tests[name][0] + tests[name][2]) / tests[name][1]):
        total += tests[name][0]
        if total < most or not found:
            found[name.partition("::")[0]].append(name)
    return [name for names in found.values() for name in names]


class Chosen:
    """A pytest plugin that runs the chosen tests in their order, and writes down the first that fails."""

    def __init__(self, names: list[str], note: Path) -> None:
        self.places, self.note = {name: place for place, name in enumerate(names)}, note

    def pytest_collection_modifyitems(self, items: list) -> None:
        kept = [item for item in items if item.nodeid in self.places or item.nodeid.partition("[")[0] in self.places]
        items[:] = sorted(kept, key=lambda item: self.places.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.note.exists():
            self.note.write_text(report.nodeid)


def judge(mutant: Mutant, tests: list[str], seconds: float, copy: Path, work: Path) -> tuple[str, str]:
    """Whether the tests kill a mutant, and which does."""
    if not tests:
        return "survived", "no test reaches it"
    note, log = work / "killer", work / "log"
    note.unlink(missing_ok=True)
    path = copy / mutant.module
    text = path.read_bytes()
    path.write_bytes(mutated(text, mutant))

    def run() -> int:
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        return int(pytest.main(pytest_words(work, "-x", *files), plugins=[Chosen(tests, note)]))

    code = forked(copy, log, 30 + 4 * seconds, run)
    path.write_bytes(text)
    shutil.rmtree(work / "tmp", ignore_errors=True)
    restore(copy)
    if code == 0:
        return "survived", ""
    if code == 5:
        return "survived", "none of its tests is there"
    by = note.read_text() if note.exists() else "time" if code is None else "it does not import"
    return "killed", by


def equivalents() -> dict[tuple[str, str, str], str]:
    """The reasons by module and the changed lines' text before and after."""
    if not EQUIVALENT.exists():
        return {}
    with open(EQUIVALENT, newline="") as stream:
        return {(line["module"], line["before"], line["after"]): line["reason"] for line in csv.DictReader(stream)}


def read(out: Path) -> list[dict]:
    if not out.exists():
        return []
    with open(out, newline="") as stream:
        return list(csv.DictReader(stream))


def show(lines: list[dict]) -> None:
    """Print the table by module, and the survivors."""
    import pandas as pd

    reasons = equivalents()
    frame = pd.DataFrame(lines, columns=COLUMNS)
    same = [(line.module, line.before, line.after) in reasons for line in frame.itertuples()]
    frame["state"] = frame.state.mask(pd.Series(same, dtype=bool) & (frame.state == "survived"), "equivalent")
    states = ["killed", "survived", "equivalent"]
    table = pd.crosstab(frame.module, frame.state).reindex(columns=states, fill_value=0)
    table.loc["all"] = table.sum()
    table.insert(0, "mutants", table.sum(axis=1))
    table["share_alive"] = table.survived / (table.mutants - table.equivalent).clip(lower=1)
    print(table.rename_axis(columns=None).to_string(float_format="{:.3f}".format))
    for line in frame[frame.state != "killed"].itertuples():
        reason = reasons.get((line.module, line.before, line.after), line.by)
        print(f"\n{line.state}: {line.module}:{line.line}  {line.name or line.kind}  {reason}")
        print(f"    - {line.before}\n    + {line.after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, *_ in KNOWN]
    parser.add_argument("--mutants", type=int, default=320, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--module", nargs="+", help="draw from these modules only, e.g. models/stack.py")
    parser.add_argument("--known", nargs="*", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=420, help="of tests for one mutant (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="run only those of --out that survived, once more")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "mutants", help="folder of the copy")
    parser.add_argument("--out", type=Path, help="CSV file of the finished mutants; default: below --work")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    out = (options.out or work / "mutants.csv").resolve()
    lock = open(work / "lock", "w")  # until the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        parser.error(f"{work}: another run is at work there; wait for it, or give another --work")
    copy = copied(work)
    sources = {module: Source(copy, module) for module in modules(copy)}
    fixed = known(sources, options.known)
    drawn = [source for module, source in sources.items() if not options.module or module in options.module]
    wanted = [*fixed, *(sampled(drawn, options.mutants, options.seed) if options.mutants else [])]
    reached = reach(copy, work) if options.mutants or options.again else {}
    whole, lines, reasons = by_module(reached), read(out), equivalents()
    done = {key(line): line for line in lines}
    for number, mutant in enumerate(wanted, 1):
        line = done.get(key(vars(mutant)))
        same = (mutant.module, mutant.before, mutant.after) in reasons
        if (line is not None) != options.again or (line and (same or line["state"] != "survived")):
            continue
        seconds = (
            tests_of(mutant, reached, whole[mutant.module]) if reached else {f"tests/{fixed[mutant]}": (30.0, 1.0, 0.0)}
        )
        tests, start = in_order(seconds, options.seconds), time.monotonic()
        if mutant in fixed:  # its own test first, whatever it takes
            mine = [name for name in seconds if name.partition("[")[0] == f"tests/{fixed[mutant]}"]
            tests = list(dict.fromkeys([*mine, *tests]))
        state, by = judge(
            mutant, tests, sum(seconds[name][0] for name in tests) + max(seconds[name][2] for name in tests), copy, work
        )
        found = {
            "name": mutant.name, "module": mutant.module, "line": mutant.line, "kind": mutant.kind,
            "before": mutant.before, "after": mutant.after, "state": state, "by": by, "tests": len(tests),
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip
        print(f"{number}/{len(wanted)} {state} {mutant.module}:{mutant.line} {mutant.kind}: {by}", flush=True)
        lines = [other for other in lines if other is not line] + [found]
        with open(out.with_suffix(".writing"), "w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        os.replace(out.with_suffix(".writing"), out)
    keys = {key(vars(mutant)) for mutant in wanted}
    show([line for line in lines if key(line) in keys])


if __name__ == "__main__":
    main()
