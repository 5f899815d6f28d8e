from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from seg.data.streams import Stream, generator, torch_generator

KEYS = list(itertools.product((0, 1, 2, 12345), Stream, (0, 1, 2, 99, 2**40)))


def test_a_stream_is_a_function_of_seed_purpose_and_position():
    for key in KEYS[:5]:
        np.testing.assert_array_equal(generator(*key).random(5), generator(*key).random(5))
        assert torch.equal(
            torch.rand(5, generator=torch_generator(*key)), torch.rand(5, generator=torch_generator(*key))
        )


def test_a_stream_does_not_depend_on_what_other_streams_drew():
    fresh = generator(0, Stream.PATCH, 7).random(3)
    other = generator(0, Stream.PATCH, 6)
    other.random(1000)
    torch.manual_seed(5)
    np.random.seed(5)
    np.testing.assert_array_equal(generator(0, Stream.PATCH, 7).random(3), fresh)


@pytest.mark.parametrize("draw", [lambda *k: generator(*k).random(), lambda *k: float(_torch_uniform(*k))])
def test_no_two_keys_share_a_stream(draw):
    assert len({draw(*key) for key in KEYS}) == len(KEYS)


def _torch_uniform(seed, stream, position):
    return torch.rand(1, generator=torch_generator(seed, stream, position), dtype=torch.float64)


def test_streams_of_neighbouring_keys_are_uncorrelated_and_uniform():
    count = 2000
    columns = [
        [generator(seed, stream, position).random() for position in range(count)]
        for seed, stream in itertools.product((0, 1), Stream)
    ]
    columns += [[float(_torch_uniform(0, Stream.PATCH, position)) for position in range(count)]]
    table = np.array(columns)
    # 4.5 standard errors of a correlation, a mean and a variance of uniform numbers.
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert abs(correlation).max() < 4.5 / np.sqrt(count)
    assert abs(table.mean(1) - 0.5).max() < 4.5 * np.sqrt(1 / 12 / count)
    assert abs(table.var(1) - 1 / 12).max() < 4.5 * np.sqrt(1 / 180 / count)
    shifted = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in table]
    assert np.abs(shifted).max() < 4.5 / np.sqrt(count)


def test_streams_are_numpy_streams_of_the_key():
    # NumPy keeps these numbers for ever; they are what makes a run repeatable with a later release.
    assert (
        generator(3, Stream.AUGMENTATION, 11).random()
        == np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 2, 11]))).random()
    )
    assert [int(stream) for stream in (Stream.ORDER, Stream.PATCH, Stream.AUGMENTATION)] == [0, 1, 2]
