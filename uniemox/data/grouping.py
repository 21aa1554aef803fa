"""Groups of items that share traits, directly or through other items."""

from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item", bound=Any)


def groups_by_traits(links: Iterable[tuple[Item, Hashable]]) -> dict[Item, Item]:
    """Return the group of each item, named by its smallest item; the order of the links does not matter.

    Args:
        links: Pairs of an item and one of its traits. Items with a common trait are in one group.

    >>> groups_by_traits([(1, "a"), (2, "a"), (2, "b"), (3, "b"), (4, "c")])
    {1: 1, 2: 1, 3: 1, 4: 4}
    """
    # Union-find: the root of a group is its smallest item.
    parent: dict[Item, Item] = {}
    first_with: dict[Hashable, Item] = {}

    def root_of(item: Item) -> Item:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for item, trait in links:
        parent.setdefault(item, item)
        smaller, larger = sorted((root_of(item), root_of(first_with.setdefault(trait, item))))
        parent[larger] = smaller
    return {item: root_of(item) for item in parent}
