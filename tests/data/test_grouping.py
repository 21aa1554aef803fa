"""Groups of items that share traits."""

import random

import networkx
from hypothesis import given
from hypothesis import strategies as st

from uniemox.data.grouping import groups_by_traits

LINKS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abcdefghij")), max_size=40)


@given(LINKS, st.randoms())
def test_groups_are_the_connected_components_in_any_order(links: list[tuple[int, str]], draw: random.Random) -> None:
    graph = networkx.Graph((("item", item), ("trait", trait)) for item, trait in links)
    expected = {}
    for component in networkx.connected_components(graph):
        items = [name for kind, name in component if kind == "item"]
        expected |= dict.fromkeys(items, min(items))
    assert groups_by_traits(links) == expected
    shuffled = draw.sample(links, len(links))
    assert groups_by_traits(shuffled) == expected


def test_a_long_chain_is_one_group() -> None:
    links = [(item, trait) for item in range(20_000) for trait in (item, item + 1)]
    assert set(groups_by_traits(reversed(links)).values()) == {0}
