"""The order of samples: a function of seed and epoch, shared out over processes and batches, gone on with anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.errors import ConfigError


def run(
    samples: int = 20, batch_size: int = 4, steps: int = 12, seed: int = 0, **more: int
) -> list[list[tuple[int, int]]]:
    order = RunOrder(samples, batch_size=batch_size, seed=seed, steps=steps, **more)
    batches = list(order)
    assert len(batches) == len(order)
    return batches


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 5), st.sampled_from([1, 2, 3]))
def test_epoch_has_each_sample_at_most_once_and_only_full_batches(
    samples: int, batch: int, epoch: int, processes: int
) -> None:
    size = batch * processes
    per_epoch = max(samples, size) // size
    settings = {"batch_size": size, "start": epoch * per_epoch, "steps": (epoch + 1) * per_epoch}
    if samples < size:
        with pytest.raises(ConfigError, match="not fill a batch"):
            run(samples, **settings)
        return
    parts = [run(samples, rank=rank, processes=processes, **settings) for rank in range(processes)]
    indices = [index for part in parts for rows in part for _, index in rows]
    assert len(indices) == len(set(indices)) == per_epoch * size
    assert all(e == epoch for part in parts for rows in part for e, _ in rows)
    assert all(len(rows) == batch for part in parts for rows in part)


def test_order_differs_between_epochs_and_seeds() -> None:
    seeds_and_epochs = ((0, 0), (0, 1), (1, 0), (0, 0))
    orders = [run(50, 50, steps=epoch + 1, seed=seed, start=epoch) for seed, epoch in seeds_and_epochs]
    indices = [[index for _, index in order[0]] for order in orders]
    assert indices[0] == indices[3]
    assert indices[0] not in indices[1:3]


def test_order_equals_the_stored_order() -> None:
    """Runs resume by it, so that it must never change."""
    assert run(samples=5, batch_size=2, steps=3, seed=7) == [[(0, 2), (0, 0)], [(0, 4), (0, 1)], [(1, 3), (1, 0)]]


def test_data_set_of_one_sample() -> None:
    assert run(samples=1, batch_size=1, steps=3) == [[(0, 0)], [(1, 0)], [(2, 0)]]


@given(st.integers(4, 40), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.integers(1, 15))
def test_step_has_the_same_images_with_any_accumulation_and_number_of_processes(
    samples: int, accumulation: int, processes: int, steps: int
) -> None:
    if 4 // accumulation % processes:
        accumulation = 1
    plain = run(samples, steps=steps)
    parts = [
        run(samples, accumulation=accumulation, steps=steps, rank=r, processes=processes) for r in range(processes)
    ]
    for step, expected in enumerate(plain):
        at = slice(step * accumulation, (step + 1) * accumulation)
        entries = [entry for part in parts for batch in part[at] for entry in batch]
        assert sorted(entries) == sorted(expected)


@given(st.integers(4, 30), st.sampled_from([1, 2]), st.integers(1, 15), st.data())
def test_run_resumes_in_the_middle_of_an_epoch(
    samples: int, accumulation: int, steps: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, steps))
    complete = run(samples, accumulation=accumulation, steps=steps)
    assert run(samples, accumulation=accumulation, steps=steps, start=start) == complete[start * accumulation :]


def test_batches_carry_the_number_of_their_epoch() -> None:
    assert [batch[0][0] for batch in run(samples=9, batch_size=4, steps=5)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 3}, "3 samples do not fill a batch of 4"),
        ({"samples": 0}, "0 samples do not fill a batch of 4"),
        ({"batch_size": 0}, "do not fill a batch of 0|accumulation must divide"),
        ({"accumulation": 3}, "accumulation must divide the batch of 4 evenly, got 3"),
        ({"accumulation": 0}, "accumulation must divide the batch of 4 evenly, got 0"),
        ({"processes": 3}, "3 processes can't share a batch of 4 evenly"),
        ({"accumulation": 4, "processes": 2}, "2 processes can't share a batch of 1 evenly"),
    ],
)
def test_uneven_batches_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**values)


def test_steps_in_epoch_counts_complete_batches() -> None:
    assert (steps_in_epoch(10, 4), steps_in_epoch(4, 4)) == (2, 1)
    for samples, batch in ((3, 4), (3, 0), (0, 1)):
        with pytest.raises(ConfigError):
            steps_in_epoch(samples, batch)
