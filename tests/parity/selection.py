"""The selection of spec: a float64 brute force, and the test that every compared row must pass.

For one group of one layer: scores m[i, b] = scale * max over visible j in block b of q_idx[i] . k_idx[j], visible
means j <= i, the local block is floor(i / B). With cut[i] = the lowest m that a perfect ranking still takes and
tol[i] = 1e-5 * scale * norm(q_idx[i]) * max over j <= i of norm(k_idx[j]), a row of ids is right when
  - it holds min(K, visible blocks) different ids, each of a visible block, the local block among them;
  - every other selected block has m >= cut - tol, and every block with m > cut + tol is selected.
Rows stand at positions 0 ... T - 1. Everything here is NumPy in float64; nothing is taken from the code under test.
"""

import dataclasses

import numpy as np

RELATIVE_TOLERANCE = 1e-5
ROWS_AT_ONCE = 512


@dataclasses.dataclass
class Scores:
    """block [T, blocks] float64, -inf where nothing is visible; cut [T], +inf where all visible blocks are taken
    (there is no cut); tolerance [T]; ids [T, K] of the perfect selection, ascending, then -1."""

    block: np.ndarray
    cut: np.ndarray
    tolerance: np.ndarray
    ids: np.ndarray


def brute_force(q_idx, k_idx, block_size, top_k):
    """q_idx [T, Di] of one group, k_idx [T, Di]."""
    num_tokens, width = q_idx.shape
    scale = 1.0 / np.sqrt(width)
    q = q_idx.astype(np.float64)
    k = k_idx.astype(np.float64)
    num_blocks = -(-num_tokens // block_size)
    block = np.full((num_tokens, num_blocks), -np.inf)
    for first in range(0, num_tokens, ROWS_AT_ONCE):
        rows = np.arange(first, min(first + ROWS_AT_ONCE, num_tokens))
        blocks_here = rows[-1] // block_size + 1
        keys = np.arange(min(blocks_here * block_size, num_tokens))
        token = scale * (q[rows] @ k[keys].T)
        token[keys[None, :] > rows[:, None]] = -np.inf
        padded = np.full((len(rows), blocks_here * block_size), -np.inf)
        padded[:, : len(keys)] = token
        block[rows, :blocks_here] = padded.reshape(len(rows), blocks_here, block_size).max(-1)

    local = np.arange(num_tokens) // block_size
    ranked = block.copy()
    ranked[np.arange(num_tokens), local] = np.inf
    # A stable sort of the negated scores: on a tie the lower block id comes first.
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :top_k]
    taken = np.take_along_axis(ranked, order, 1)
    ids = np.where(taken == -np.inf, -1, order)
    if ids.shape[1] < top_k:
        ids = np.pad(ids, ((0, 0), (0, top_k - ids.shape[1])), constant_values=-1)
    cut = np.full(num_tokens, np.inf)
    chooses = local + 1 > top_k
    if top_k > 1 and chooses.any():
        cut[chooses] = taken[chooses, top_k - 1]
    longest_key = np.maximum.accumulate(np.linalg.norm(k, axis=1))
    tolerance = RELATIVE_TOLERANCE * scale * np.linalg.norm(q, axis=1) * longest_key
    return Scores(block, cut, tolerance, ascending(ids))


def ascending(ids):
    """Ids of the last axis ascending, then -1."""
    last = np.iinfo(np.int64).max
    ordered = np.sort(np.where(ids < 0, last, ids.astype(np.int64)), axis=-1)
    return np.where(ordered == last, -1, ordered).astype(np.int32)


def rows_that_differ(ours, theirs):
    """[..., K] each -> [...] bool: the two rows are not the same set."""
    return (ascending(ours) != ascending(theirs)).any(-1)


def wrong_rows(ids, scores, block_size):
    """Rows of ids [T, K] that break the rule of the head comment, as [(row, what is wrong)]."""
    num_tokens, num_blocks = scores.block.shape
    top_k = ids.shape[1]
    rows = np.arange(num_tokens)
    local = rows // block_size
    expected = np.minimum(top_k, local + 1)
    valid = ids >= 0
    selected = np.zeros((num_tokens, num_blocks + 1), dtype=bool)
    np.put_along_axis(selected, np.where(valid, np.minimum(ids, num_blocks), num_blocks), True, 1)
    selected = selected[:, :num_blocks]

    hole = (valid[:, 1:] & ~valid[:, :-1]).any(1)
    count = (valid.sum(1) != expected) | (selected.sum(1) != expected)
    place = (ids.max(1) > local) | ~selected[rows, local]
    # What is left to the scores: rows with more than K visible blocks, but for the local one.
    chooses = local + 1 > top_k
    others = np.arange(num_blocks) != local[:, None]
    cut = np.where(chooses, scores.cut, 0.0)[:, None]
    below = np.where(selected & others, cut - scores.block, -np.inf).max(1)
    above = np.where(~selected & others, scores.block - cut, -np.inf).max(1)
    off, tol = np.maximum(below, above), scores.tolerance
    rules = (
        (hole, "an id after the first -1"),
        (count, "not min(K, visible) different ids"),
        (place, "the local block is missing, or a block past it is there"),
        (chooses & (below > tol), "a selected block is below the cut"),
        (chooses & (above > tol), "a block above the cut is missing"),
    )
    return [
        (int(row), f"{what}: {ids[row].tolist()}, {off[row]:.2e} off the cut, tol {tol[row]:.2e}")
        for broken, what in rules
        for row in np.flatnonzero(broken)
    ]
