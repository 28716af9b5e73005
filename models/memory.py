"""How many replicas fit into memory: a sweep of any size trains in stacks that stay below a limit.

What a replica and the rows take was measured (tests/benchmarks/growth.py) and is rounded up here.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import WHOLE, refuse
from datasets import Dataset
from models import protocols

if TYPE_CHECKING:
    from models.shaping import Shaping

GIB = 2**30
SHARE = 0.25  # of the machine's memory, by default
JOB_SHARE = 0.75  # of a Slurm job's, which is for it alone
TENSORFLOW = 0.55 * GIB  # the process itself
COPIES_OF_ROWS = 4  # of a stack's rows: NumPy's, TensorFlow's, and those of the concatenation
BYTES_PER_ROW = 80  # and replica: weights, hits, what is made of them
BYTES_PER_PARAMETER = 28  # value, initial value, gradient, two moments, noise, update
BYTES_PER_NUMBER = 4
BYTES_PER_PAIR = 16  # of rows of a class: their similarity, and what it is made of
BYTES_PER_UNIT_AND_ROW = 8  # activations while accuracies are computed
RECORDED_BYTES_PER_PARAMETER = 24  # of the last layer, a step
MAPPED = 2 * GIB  # the address space that TensorFlow maps besides
MIB = 2**20  # in which Slurm tells a job's memory
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def default_limit() -> float:
    """A quarter of the machine's memory, or of its container's where that is less, in bytes; in a Slurm job with a
    limit, three quarters of that.

    Less where `ulimit -v` leaves less.
    """
    whole = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *control_groups()])
    job = slurm_job()
    share = JOB_SHARE * min(job, whole) if job else SHARE * whole
    return min(share, address_space() - MAPPED)


def slurm_job() -> int:
    """The memory that a Slurm job has on this machine, in bytes, as its environment says; 0: no job, or no limit."""
    said = {
        name: int(os.environ[f"SLURM_{name}"])
        for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE", "CPUS_PER_TASK")
        if WHOLE.fullmatch(os.environ.get(f"SLURM_{name}", ""))
    }
    cpus = said.get("CPUS_ON_NODE") or said.get("CPUS_PER_TASK", 1)
    return MIB * (said.get("MEM_PER_NODE") or said.get("MEM_PER_CPU", 0) * cpus)


def control_groups() -> list[int]:
    """What the control groups that the process is in may use of memory, in bytes: its container's, its job's, and those
    that these are in. Of both versions of Linux' interface.
    """
    tops = {"": (CGROUPS, "memory.max"), "memory": (CGROUPS / "memory", "memory.limit_in_bytes")}
    places = [top / name for top, name in tops.values()]
    try:
        own = [line.split(":", 2) for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines()]
    except OSError:  # no Linux
        own = []
    for _, controllers, path in own:
        if controllers in tops:
            top, name = tops[controllers]
            inside = Path(path.lstrip("/"))
            places += [top / folder / name for folder in (inside, *inside.parents)]
    found = []
    for place in places:
        try:
            found.append(int(place.read_text(encoding="ascii")))
        except (OSError, ValueError):  # none, or one without a limit ("max")
            pass
    return found


def address_space() -> float:
    """The address space that the process may have, in bytes: what `ulimit -v` says; infinite without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def check_address_space() -> None:
    """Refuse a `ulimit -v` under which TensorFlow cannot start: it would abort without a word of why."""
    needed = MAPPED + GIB
    if address_space() < needed:
        refuse(
            f"ulimit -v {address_space() // 1024:.0f}: TensorFlow needs about {needed / GIB:.0f} GiB of address"
            " space; raise it to"
            f" {needed // 1024} or more"
        )


def held(shaping: Shaping, parameters: int, batch_size: int) -> float:
    """How many numbers a shaping holds for a replica besides: of every link the directions that it keeps, and the one
    that it works on; means of micro-batches, in the making and made; inner products of all pairs, and sorted ones.
    """
    return sum(
        3 * len(link.kind.directions) * parameters
        + 4 * link.micro_batches * parameters
        + 8 * batch_size**2 * (link.kind.takes_gram and not link.micro_batches)
        for link in shaping.links
    )


def replicas(
    limit_gib: float | None,
    workers: int,
    network: str,
    dataset: Dataset,
    poisons: int,
    batch_size: int,
    record: bool = False,
    shapings: Iterable[Shaping] = (),
    own: int | None = None,
) -> int:
    """How many replicas may train as one stack beside `workers` - 1 others; at least 1.

    limit_gib: None is `default_limit`, which is then no reason to refuse. poisons: rows besides the training set; own:
    how many of them one replica sees, all by default. shapings: of the replicas, of which the one that takes most
    counts. Refuses a limit that one replica does not fit into.
    """
    from models.stack import EVALUATION_ROWS

    limit = default_limit() if limit_gib is None else limit_gib * GIB
    features, rows = math.prod(dataset.shape), len(dataset.y_train) + poisons
    units = (*protocols.network(network).hidden, dataset.classes)
    sizes = [(inside + 1) * outside for inside, outside in zip((features, *units), units)]
    one = (
        BYTES_PER_ROW * rows + BYTES_PER_PARAMETER * sum(sizes) + BYTES_PER_UNIT_AND_ROW * sum(units) * EVALUATION_ROWS
    )
    if record:
        one += RECORDED_BYTES_PER_PARAMETER * sizes[-1] * math.ceil(rows / batch_size)
    one += BYTES_PER_NUMBER * max((held(shaping, sum(sizes), batch_size) for shaping in shapings), default=0)
    data = 4 * features * (rows + len(dataset.y_test))
    fixed = TENSORFLOW + data + workers * COPIES_OF_ROWS * data
    if dataset.classes > 2 and any(link.kind.compares_rows for shaping in shapings for link in shaping.links):
        seen = rows if own is None else len(dataset.y_train) + own
        fixed += workers * BYTES_PER_PAIR * (seen / dataset.classes) ** 2
    fitting = int((limit - fixed) / workers / one)
    if fitting < 1 and limit_gib is not None:
        refuse(
            f"--memory {limit_gib:g}: a {network} on {dataset.name} takes about"
            f" {(fixed + workers * one) / GIB:.2f} GiB; give so much at least"
        )
    return max(fitting, 1)
