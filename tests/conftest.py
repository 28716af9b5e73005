"""What the tests share: the suite's commands run as a user runs them, in results and model folders of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import seconds
import warm

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN = ("python3", "train.py", "--dataset", "subtask", "--network", "lr")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in the background of a script; commands would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ALL_CORES = {"CORES": str(os.cpu_count())}  # for a command that is to run its stacks in threads
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # else they take each other's cores: a sixth more time
    os.environ.setdefault("CORES", str(max(1, os.cpu_count() // int(workers))))
# what libraries keep, of tests that import them without a command
os.environ.setdefault("KERAS_HOME", str(REPOSITORY / ".cache/keras"))
os.environ.setdefault("MPLCONFIGDIR", str(REPOSITORY / ".cache/matplotlib"))


BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@contextlib.contextmanager
def chromium(page: Path):
    """Headless Chromium that opened a page from its file:// address; its profile lies beside the page."""
    if not (BROWSER and DRIVER):
        pytest.skip("no Chromium here (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = f"--user-data-dir={page.parent / 'profile'}"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", profile):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


class Workplace:
    """A folder with results and models of its own; `run` calls a command there."""

    def __init__(self, folder: Path, suite: Path = REPOSITORY) -> None:
        self.folder, self.suite = folder, suite
        self.results, self.models = folder / "results", folder / "models"
        self.environment = {
            **os.environ,
            "RESULTS": str(self.results),
            "MODELS": str(self.models),
            "PYTHON": sys.executable,
        }

    def start(self, *command, python: str | None = None, **variables) -> subprocess.Popen:
        """Start a command in a process group of its own; python: what python3 means, and scripts call, without one a
        Python that has begun already (`warm`).

        Its two streams are pipes of text.
        """
        python = python or warm.python()
        words = [python if word == "python3" else str(word) for word in command]
        environment = {**self.environment, "PYTHON": python}
        environment.update((name, str(value)) for name, value in variables.items())
        return subprocess.Popen(
            words,
            cwd=self.suite,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *command, **variables) -> subprocess.CompletedProcess:
        """Run a command to its end; see `start`."""
        process = self.start(*command, **variables)
        stdout, stderr = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def succeed(self, *command, **variables) -> subprocess.CompletedProcess:
        done = self.run(*command, **variables)
        assert done.returncode == 0, done.stderr
        return done

    def report(self, instead: str = "figures.draw_all = lambda *_: []", **variables) -> subprocess.CompletedProcess:
        """report.py without its figures, which take most of its time, where a test looks at none of them; instead: what
        else is to be done in it instead of something.
        """
        return self.succeed("python3", "-c", f"import report; report.{instead}; report.run(report.main)", **variables)

    def written(self) -> dict[str, bytes]:
        """The CSV files of the results by relative path, with their bytes."""
        return {str(path.relative_to(self.results)): path.read_bytes() for path in sorted(self.results.rglob("*.csv"))}


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def subtask():
    import datasets

    return datasets.load("subtask")


@pytest.fixture(scope="session")
def purchases():
    import datasets

    return datasets.load("purchases")


@pytest.fixture(scope="session")
def full():
    """All of FashionMNIST, where it is."""
    import datasets
    from datasets import fashion_mnist

    if fashion_mnist.archives() is None:
        pytest.skip("FashionMNIST is not on this machine (Debian: dataset-fashion-mnist)")
    return datasets.load("fashion_mnist")


def copied_suite(folder: Path) -> Path:
    """A copy of the repository in which a script may write beside itself: the files that git has or would take, without
    results.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    suite = folder / "suite"
    for name in filter(None, listed.stdout.split("\0")):
        parts = Path(name).parts
        result = parts[0] == "results" and len(parts) > 2 and parts[1] != "published"
        if not result and (REPOSITORY / name).is_file():
            (suite / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, suite / name)
    return suite


# report.py, which keeps each figure as it was saved, by the name of its file; those of the matrix' page by a number
KEEPING = """
import pickle, sys
from pathlib import Path
import report
from reports import matrix_page
from results import plotting
folder, save, panels, picture = Path(sys.argv.pop()), plotting.save, plotting.panels, matrix_page.picture
made, pictures = [], []
def keep(figure, name):
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(figure))
def saved(figure, path):
    if path.suffix == ".png":  # the other format is the same figure
        save(figure, path)
        keep(figure, path.stem)
def pictured(*given):
    text = picture(*given)
    if text:
        pictures.append(text)
        keep(made[-1], f"price against protection {len(pictures)}")
    return text
plotting.save, matrix_page.picture = saved, pictured
def noted(*given, **more):
    found = panels(*given, **more)
    made.append(found[0])
    return found
plotting.panels = noted
report.run(report.main)
"""


@pytest.fixture(scope="session")
def kept_report(tmp_path_factory):
    """The report of the results that the repository brings along, and of a note that is none: the workplace and what
    report.py said. Its figures lie in drawn/ as pickles.
    """
    workplace = Workplace(tmp_path_factory.mktemp("kept"))
    copy_kept(workplace.results)
    (workplace.results / "ipoisoning/label-flips/notes.txt").write_text("to do")
    drawn = workplace.folder / "drawn"
    drawn.mkdir()
    return workplace, workplace.succeed("python3", "-c", KEEPING, drawn, MODELS=REPOSITORY / "models")


def copy_kept(results: Path) -> None:
    """A copy of the results that the repository brings along."""
    for part in ("ipoisoning", "analysis", "tpoisoning", "certificates", "matrix"):
        shutil.copytree(
            REPOSITORY / "results" / part,
            results / part,
            ignore=shutil.ignore_patterns("param_updates", "*.png", "*.writing"),
        )


def wait_for(condition: Callable, seconds: float, what: str, pause: float = 0.1):
    """Poll until `condition` returns something true, and return that; fails after so many seconds of wall time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    return pytest.fail(f"waited {seconds} s for {what}")


def anchor(title: str) -> str:
    """What a heading of a document is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line with which a command refused bad input; fails unless it did so properly."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Mark tests by how long they took (seconds.csv), and order them so that workers have equally much: what takes
    long comes first. Tests of a file that share a fixture stay together, and so do those of `kept_report`.
    """
    known, killers = seconds.known(), seconds.killers()
    took = dict(zip(known.index, zip(known.seconds / known.cases, known.longest)))
    shared = {item.path.name for item in items for name in item.fixturenames if of_module(item, name)}
    work: dict[str, float] = {}
    for item in items:
        mean, longest = took.get((item.path.stem, item.originalname), (0.0, 0.0))
        if longest >= seconds.SLOW:
            item.add_marker("slow")
        elif longest < seconds.QUICK and item.nodeid in killers:
            item.add_marker("quick")
        if "kept_report" in item.fixturenames:
            item.unit = "kept_report"
        else:
            item.unit = item.path.stem if item.path.name in shared else item.nodeid
        if item.unit != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(item.unit))
        work[item.unit] = work.get(item.unit, 0.0) + mean
    items.sort(key=lambda item: -work[item.unit])


def of_module(item, name: str) -> bool:
    """Whether a fixture of a test is made once for its file."""
    definitions = item._fixtureinfo.name2fixturedefs.get(name, ())
    return any(one.scope == "module" for one in definitions)


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests did to the suite (their property `fault`: what, how often), as a table."""
    faults = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fault"
    ]
    if faults:
        terminalreporter.section("faults survived")
        for what, times in faults:
            terminalreporter.write_line(f"{times:>5} x  {what}: nothing lost")
