"""What a process takes of its machine: how many replicas fit into memory, the bytes of small cases counted by hand, to
either side of a whole number; and memory, cores and GPUs of containers and Slurm jobs.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from command_line import BadInput
from datasets import Dataset
from models import device, memory
from models.shaping import shaping
from models.stack import EVALUATION_ROWS

GIB = 2**30
HIDDEN = 256 * 11 + 256 * 257 + 3 * 257  # parameters of the shallow MLP, of 10 features and 3 classes
# Bytes beside those of all cases: of each replica, and of each worker
CASES = {
    "lr": ({"network": "lr"}, 28 * 33 + 8 * 3 * EVALUATION_ROWS, 0),
    "two hidden layers": ({"network": "shallow-mlp"}, 28 * HIDDEN + 8 * (256 + 256 + 3) * EVALUATION_ROWS, 0),
    "recorded": ({"record": True}, 24 * 33 * 3, 0),  # a row of the last layer in each of 3 steps
    "recorded hidden": ({"network": "shallow-mlp", "record": True}, 24 * 3 * 257 * 3, 0),
    "no directions": ({"shapings": ["clip:1", "phuber:2"]}, 0, 0),
    "a direction": ({"shapings": ["clip:1", "sever:0.3"]}, 4 * 3 * 33, 0),
    "a chain of directions": ({"shapings": ["sever:0.3+running-cosine:0:0.9"]}, 4 * (3 + 3) * 33, 0),
    "micro-batches": ({"shapings": ["multi-krum:0.3:5", "clip:1"]}, 4 * 4 * 5 * 33, 0),
    "pairs of rows": ({"shapings": ["multi-krum:0.3:0", "multi-krum:0.3:5"]}, 4 * 8 * 50**2, 0),
    "the largest": ({"shapings": ["sever:0.3", "multi-krum:0.3:5"]}, 4 * 4 * 5 * 33, 0),
    "pairs of a class": ({"shapings": ["epic:0.3:1:5"]}, 0, 16 * 40**2),  # 120 rows of 3 classes
    "pairs of what a replica sees": ({"shapings": ["epic:0.3:1:5"], "own": 5}, 0, 16 * 35**2),
}  # fmt: skip


def rows(classes: int) -> Dataset:
    x, y = np.zeros((150, 10), np.float32), np.arange(150) % classes
    return Dataset("toy", classes, (10,), x[:100], y[:100], x[100:], y[100:])


def replicas(limit: float | None, workers: int, network="lr", record=False, shapings=(), own=None, classes=3) -> int:
    """Of 100 training rows and 20 poisons of 10 features, and 50 test rows, in batches of 50."""
    values = [shaping(text) for text in shapings]
    return memory.replicas(limit, workers, network, rows(classes), 20, 50, record, values, own)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_so_many_replicas_fit_as_their_bytes_say(case, workers):
    options, mine, shared = CASES[case]
    data, replica = 4 * 10 * 170, 80 * 120 + mine
    if case != "two hidden layers" and case != "lr":
        replica += CASES["two hidden layers" if "network" in options else "lr"][1]
    fixed = 0.55 * GIB + data + workers * (4 * data + shared)
    for count in (1, 7):
        needed = fixed + workers * count * replica
        assert replicas((needed + 100) / GIB, workers, **options) == count
        if count > 1:
            assert replicas((needed - 100) / GIB, workers, **options) == count - 1
    with pytest.raises(
        BadInput, match=rf"--memory .*: a .* on toy takes about {(fixed + workers * replica) / GIB:.2f}"
    ):
        replicas((fixed + workers * replica - 100) / GIB, workers, **options)


def test_pairs_are_not_compared_where_there_are_two_classes():
    limit = (0.55 * GIB + 5 * 6800 + 9600 + 28 * 22 + 8 * 2 * EVALUATION_ROWS + 100) / GIB
    assert replicas(limit, 1, shapings=["epic:0.3:1:5"], classes=2) == 1


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 10 GiB and 8 cores, without a container and a job; its control groups lie in the folder returned."""
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10 * 2**18}.get)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CORES", "CUDA_VISIBLE"))]:
        monkeypatch.delenv(name)
    return tmp_path


def limited(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_the_limit_is_a_quarter_of_what_there_is(machine, monkeypatch):
    limits = [resource.RLIM_INFINITY]
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (limits[-1], limits[-1]))
    assert memory.default_limit() == 2.5 * GIB
    for text, expected in (("max", 2.5), (f"{4 * GIB}", 1), (f"{40 * GIB}", 2.5)):
        limited(machine / "groups/memory.max", text)
        assert memory.default_limit() == expected * GIB
    memory.check_address_space()
    for gib, expected in ((4, 2), (9, 2.5)):  # of `ulimit -v`, less what TensorFlow maps
        limits.append(gib * GIB)
        assert memory.default_limit() == expected * GIB and memory.address_space() == gib * GIB
        memory.check_address_space()
    limits.append(3 * GIB)
    memory.check_address_space()
    limits.append(3 * GIB - 1024)
    with pytest.raises(
        BadInput, match=f"ulimit -v {3 * 2**20 - 1}: TensorFlow needs about 3 GiB .* {3 * 2**20} or more"
    ):
        memory.check_address_space()


GROUPS = {
    "a container": ("0::/", "memory.max"),
    "a job": ("0::/system.slice/job_7/step_batch/task_0", "system.slice/job_7/step_batch/task_0/memory.max"),
    "a job around it": ("0::/system.slice/job_7/step_batch/task_0", "system.slice/job_7/memory.max"),
    "an older container": ("4:memory:/\n1:cpu:/other\n0::/", "memory/memory.limit_in_bytes"),
    "an older job": ("4:memory:/slurm/job_7\n0::/", "memory/slurm/memory.limit_in_bytes"),
}


@pytest.mark.parametrize("case", GROUPS)
def test_control_groups_are_looked_up_to_the_top(case, machine):
    own, place = GROUPS[case]
    limited(machine / "own", f"{own}\n")
    limited(machine / "groups/cpu/other/memory.limit_in_bytes", "1\n")  # of no group that limits memory
    limited(machine / "groups/system.slice/job_8/memory.max", "1\n")  # of another job
    assert memory.default_limit() == 2.5 * GIB
    limited(machine / "groups" / place, f"{2 * GIB}\n")
    assert memory.default_limit() == 0.5 * GIB


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"MEM_PER_NODE": "4096"}, 3),  # MiB
        ({"MEM_PER_NODE": "4096", "MEM_PER_CPU": "1"}, 3),
        ({"MEM_PER_CPU": "1024", "CPUS_ON_NODE": "4", "CPUS_PER_TASK": "2"}, 3),
        ({"MEM_PER_CPU": "1024", "CPUS_PER_TASK": "4"}, 3),
        ({"MEM_PER_CPU": "1024"}, 0.75),
        ({"MEM_PER_NODE": "40960"}, 7.5),  # more than there is
        ({"MEM_PER_NODE": "0"}, 2.5),  # all of the node's, which may not be the job's alone
        ({"MEM_PER_NODE": "much", "JOB_ID": "7"}, 2.5),
    ],
    ids=str,
)
def test_a_slurm_job_takes_three_quarters_of_its_own(said, expected, machine, monkeypatch):
    for name, text in said.items():
        monkeypatch.setenv(f"SLURM_{name}", text)
    assert memory.default_limit() == expected * GIB
    limited(machine / "groups/memory.max", f"{GIB // 2}")  # a container with less
    assert memory.default_limit() == (0.125 if expected == 2.5 else 0.375) * GIB


def test_cores_are_those_of_the_job_and_those_that_are_shared_out(machine, monkeypatch):
    assert device.cores_there() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert device.cores_there() == 4
    monkeypatch.setenv("CORES", "2")
    assert device.cores_there() == 2
    monkeypatch.setenv("CORES", "16")
    assert device.cores_there() == 4
    monkeypatch.setenv("CORES", "all")
    with pytest.raises(BadInput, match="CORES='all' is not a whole number"):
        device.cores_there()


def test_a_gpu_is_counted_among_those_that_the_job_may_see(machine, monkeypatch):
    assert device.visible(1) == "1"
    for seen, chosen in (("3", "3"), ("3,5", "3"), ("GPU-8a,GPU-9b", "GPU-8a"), ("", "0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        assert device.visible(0) == chosen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert device.visible(1) == "5" and device.visible(2) == "2"


def test_without_a_limit_of_ones_own_one_replica_always_fits(monkeypatch):
    monkeypatch.setattr(memory, "default_limit", lambda: 1.0)
    assert replicas(None, 2) == 1
