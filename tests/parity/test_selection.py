"""The comparator's own tests: it accepts what spec allows and catches each way to be wrong."""

import numpy as np
import pytest
import selection

BLOCK = 8
TOP_K = 4
TOKENS = 93


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(3)
    q_idx = random.standard_normal((TOKENS, 16)).astype(np.float32)
    k_idx = random.standard_normal((TOKENS, 16)).astype(np.float32)
    return q_idx, k_idx, selection.brute_force(q_idx, k_idx, BLOCK, TOP_K)


def test_brute_force_equals_plain_loops(case):
    q_idx, k_idx, scores = case
    for row in range(TOKENS):
        local = row // BLOCK
        m = []
        for block in range(local + 1):
            keys = range(block * BLOCK, min((block + 1) * BLOCK, row + 1))
            m.append(
                max(
                    float(np.dot(q_idx[row].astype(float), k_idx[j].astype(float))) / 4
                    for j in keys
                )
            )
        np.testing.assert_allclose(scores.block[row, : local + 1], m, rtol=1e-12)
        assert (scores.block[row, local + 1 :] == -np.inf).all()
        best = sorted(range(local), key=lambda block: (-m[block], block))[: TOP_K - 1]
        expected = sorted(best + [local])
        assert scores.ids[row].tolist() == expected + [-1] * (TOP_K - len(expected))
        if local + 1 > TOP_K:
            assert scores.cut[row] == pytest.approx(m[best[-1]], rel=1e-12)


def test_the_perfect_selection_passes_in_any_order(case):
    _, _, scores = case
    assert selection.wrong_rows(scores.ids, scores, BLOCK) == []
    reverse = scores.ids.copy()
    for row in reverse:
        count = (row >= 0).sum()
        row[:count] = row[:count][::-1]
    assert selection.wrong_rows(reverse, scores, BLOCK) == []
    assert not selection.rows_that_differ(reverse, scores.ids).any()


def replace(scores, row, old, new):
    ids = scores.ids.copy()
    ids[row][ids[row] == old] = new
    return ids


def test_each_way_to_be_wrong_is_caught(case):
    _, _, scores = case
    row = 80
    local = row // BLOCK
    outside = [b for b in range(local) if b not in scores.ids[row]]
    inside = [b for b in scores.ids[row] if b != local]
    mistakes = {
        "worse block": replace(scores, row, inside[0], outside[0]),
        "local missing": replace(scores, row, local, outside[0]),
        "block of the future": replace(scores, row, inside[0], local + 1),
        "repeat": replace(scores, row, inside[0], inside[1]),
        "too few": selection.ascending(replace(scores, row, inside[0], -1)),
        "hole": replace(scores, row, inside[0], -1),
    }
    for name, ids in mistakes.items():
        wrong = selection.wrong_rows(ids, scores, BLOCK)
        assert {where for where, _ in wrong} == {row}, name
        assert np.flatnonzero(selection.rows_that_differ(ids, scores.ids)).tolist() == [row], name


def test_tolerance_is_the_border(case):
    """Two blocks at the cut: swapping them passes just inside the tolerance and fails just outside."""
    q_idx, k_idx, _ = case
    row = 80
    for factor, right in ((0.9, True), (1.1, False)):
        scores = selection.brute_force(q_idx, k_idx, BLOCK, TOP_K)
        local = row // BLOCK
        order = sorted(range(local), key=lambda b: -scores.block[row, b])
        last, next_best = order[TOP_K - 2], order[TOP_K - 1]
        scores.block[row, next_best] = scores.cut[row] - factor * scores.tolerance[row]
        swapped = replace(scores, row, last, next_best)
        assert (selection.wrong_rows(swapped, scores, BLOCK) == []) == right


def test_ties_go_to_the_lower_block():
    k_idx = np.ones((40, 4), dtype=np.float32)
    scores = selection.brute_force(np.ones((40, 4), dtype=np.float32), k_idx, 4, 3)
    assert scores.ids[39].tolist() == [0, 1, 9]
    assert scores.ids[5].tolist() == [0, 1, -1]
