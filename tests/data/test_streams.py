"""Random streams are NumPy's, of a key, and apart from one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from seg.data.streams import Stream, generator, torch_generator

KEYS = list(itertools.product((0, 1, 2, 12345), Stream, (0, 1, 2, 99, 2**40)))


def torch_uniform(*key):
    return float(torch.rand(1, generator=torch_generator(*key), dtype=torch.float64))


@pytest.mark.parametrize("draw", [lambda *key: generator(*key).random(), torch_uniform])
def test_a_stream_is_a_function_of_its_key_and_no_two_keys_share_one(draw):
    first = [draw(*key) for key in KEYS]
    torch.manual_seed(5)
    np.random.seed(5)
    assert [draw(*key) for key in KEYS[::-1]] == first[::-1]
    assert len(set(first)) == len(KEYS)


def test_streams_of_neighbouring_keys_are_uncorrelated_and_uniform():
    count = 2000
    keys = itertools.product((0, 1), Stream)
    rows = [[generator(*key, position).random() for position in range(count)] for key in keys]
    table = np.array([*rows, [torch_uniform(0, Stream.PATCH, position) for position in range(count)]])
    # 4.5 standard errors of a correlation, a mean and a variance of uniform numbers.
    assert abs(np.corrcoef(table) - np.eye(len(table))).max() < 4.5 / np.sqrt(count)
    assert abs(table.mean(1) - 0.5).max() < 4.5 * np.sqrt(1 / 12 / count)
    assert abs(table.var(1) - 1 / 12).max() < 4.5 * np.sqrt(1 / 180 / count)
    shifted = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in table]
    assert np.abs(shifted).max() < 4.5 / np.sqrt(count)


def test_streams_are_numpy_streams_of_the_key():
    # NumPy keeps these numbers for ever; they are what makes a run repeatable with a later release.
    numpys = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 2, 11])))
    assert generator(3, Stream.AUGMENTATION, 11).random() == numpys.random()
    assert [int(stream) for stream in (Stream.ORDER, Stream.PATCH, Stream.AUGMENTATION)] == [0, 1, 2]
