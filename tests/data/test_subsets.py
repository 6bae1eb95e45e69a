"""Some rows stand for all of them, also where the rows are sorted."""

from __future__ import annotations

import pickle
from collections import Counter

from madtp_cli.data import Dataset, Row
from madtp_cli.data.subsets import subset

#: Rows of four classes, sorted like the folders of an image data set.
CLASSES = [number // 250 for number in range(1000)]


def test_a_subset_of_sorted_rows_has_all_classes() -> None:
    """The first rows would all be of one class. The chosen ones are in their order, and always the same."""
    chosen = list(subset(CLASSES, 100))
    assert len(chosen) == 100
    assert chosen == sorted(chosen) == list(subset(CLASSES, 100))
    assert min(Counter(chosen).values()) > 10
    places = list(subset(range(1000), 100))
    assert len(set(places)) == 100


def test_a_subset_is_lazy_and_slices() -> None:
    """Rows of large data sets are made on access; workers get the rows as a pickle."""
    chosen = subset(range(10**9), 5)
    assert list(chosen[1:3]) == [chosen[1], chosen[2]]
    assert chosen[-1] == max(chosen)
    assert list(pickle.loads(pickle.dumps(chosen))) == list(chosen)


def test_all_rows_are_no_subset() -> None:
    """A limit above the number of rows changes nothing."""
    assert subset(CLASSES, 1000) is CLASSES
    assert subset(CLASSES, 2000) is CLASSES


def test_rows_in_random_order_need_no_choice() -> None:
    """The built-in scenes are drawn in random order."""
    rows = [Row(str(number), (), "") for number in range(1000)]
    assert Dataset("classes", "", {}, random_order=True).choose(rows, 3) == rows[:3]
    assert list(Dataset("classes", "", {}).choose(rows, 3)) != rows[:3]
