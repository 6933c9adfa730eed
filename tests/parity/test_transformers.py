"""The runner against Hugging Face Transformers' MiniMax-M3 text model: float32, CPU, more than 4,096 tokens.

Two models: the shipped one, and a random one with the production head geometry (D = 128, G = 16, B = 128, K = 16).
Transformers reads PROMPT tokens and generates GENERATED greedy ones; what it does at every row is recorded. Then
  fed   the runner reads the same tokens with Transformers' block ids fed into attention at every sparse layer. So the
        inputs of each layer agree up to rounding, layer by layer: the ids that the runner's own index branch chose on
        them are held against Transformers' query and key vectors in float64, and the logits against its logits.
  own   the runner does everything itself; a selection that differs changes all that follows.
"""

import dataclasses

import make_models
import numpy as np
import pytest
import selection
import transformers_run
from float64_model import Float64Model
from probe import ForwardResult
from tokenizers import Tokenizer

VERSION = "5.23.0"
PROMPT = 5000
GENERATED = 64
FLOAT64_ROWS = 2560
LOGIT_TOLERANCE = 1e-3
MOST_DIFFERING_ROWS = 1e-3
CLEARLY = 100 * MOST_DIFFERING_ROWS  # a share of rows that no rounding explains


@dataclasses.dataclass
class Case:
    name: str
    folder: object
    theirs: transformers_run.Recording
    scores: dict  # (layer, group) -> selection.Scores of Transformers' vectors
    fed: ForwardResult
    own: ForwardResult

    def rows_with_a_choice(self):
        """Positions from which more than K blocks are visible."""
        return np.arange(self.theirs.num_rows) >= self.theirs.top_k * self.theirs.block_size


def pseudo_text(num_words, seed):
    """Words of syllables, numbers and punctuation: the same text for ever."""
    random = np.random.default_rng(seed)
    onsets = [
        "b",
        "ch",
        "d",
        "f",
        "gr",
        "h",
        "k",
        "l",
        "m",
        "n",
        "p",
        "qu",
        "r",
        "s",
        "st",
        "t",
        "v",
        "w",
    ]
    rhymes = ["a", "an", "ar", "e", "el", "en", "i", "in", "is", "o", "or", "ow", "u", "um", "y"]
    words = []
    while len(words) < num_words:
        word = "".join(
            random.choice(onsets) + random.choice(rhymes) for _ in range(random.integers(1, 4))
        )
        kind = random.random()
        if kind < 0.06:
            word = str(random.integers(0, 100000))
        elif kind < 0.16:
            word = word.capitalize()
        if random.random() < 0.15:
            word += str(random.choice([".", ",", ";", "!", "?", ":\n", ".\n\n", " =", "()", "_"]))
        words.append(word)
    return " ".join(words)


def shipped_prompt(folder):
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(pseudo_text(6000, seed=11)).ids
    assert len(ids) >= PROMPT
    return ids[:PROMPT]


def random_prompt(vocab_size):
    """Token ids whose frequencies fall like those of words, with spans that come again."""
    random = np.random.default_rng(12)
    ids = (random.zipf(1.2, PROMPT) % vocab_size).tolist()
    for _ in range(40):
        start, to, length = random.integers(0, PROMPT - 40, 2).tolist() + [
            int(random.integers(5, 40))
        ]
        ids[to : to + length] = ids[start : start + length]
    return ids[:PROMPT]


@pytest.fixture(scope="module")
def random_folders(tmp_path_factory):
    return make_models.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=["shipped", "random"])
def case(request, probe):
    if request.param == "shipped":
        folder = request.getfixturevalue("shipped_folder")
        prompt = shipped_prompt(folder)
    else:
        folder = request.getfixturevalue("random_folders")[0]
        prompt = random_prompt(make_models.configuration().vocab_size)
    theirs = transformers_run.record(folder, prompt, GENERATED)
    shape = transformers_run.shape_of(folder)
    fed = probe.forward(folder, theirs.tokens[:-1], shape, rows=PROMPT, feed=theirs.block_ids)
    own = probe.forward(folder, prompt, shape, rows=PROMPT, num_generated=GENERATED, chunk=768)
    scores = {
        (layer, group): selection.brute_force(
            theirs.q_idx[layer][group], theirs.k_idx[layer], theirs.block_size, theirs.top_k
        )
        for layer in shape.sparse_layers
        for group in range(shape.num_groups)
    }
    return Case(request.param, folder, theirs, scores, fed, own)


def wrong_selections(case, block_ids):
    """[(layer, group, row, what)] of the rows that break the float64 rule."""
    return [
        (layer, group, row, what)
        for (layer, group), scores in case.scores.items()
        for row, what in selection.wrong_rows(
            block_ids[layer][group], scores, case.theirs.block_size
        )
    ]


def differing_rows(case, block_ids, num_rows):
    """[(layer, group, row)] where the set is not Transformers', among the first num_rows rows."""
    found = []
    for layer, group in case.scores:
        ours, theirs = (
            block_ids[layer][group][:num_rows],
            case.theirs.block_ids[layer][group][:num_rows],
        )
        different = selection.rows_that_differ(ours, theirs)
        found += [(layer, group, int(row)) for row in np.flatnonzero(different)]
    return found


def test_the_case_is_worth_something(case):
    """Selection decides: thousands of rows see more than K blocks, and the groups choose differently."""
    assert case.theirs.version == VERSION
    rows = case.theirs.num_rows
    assert rows == PROMPT + GENERATED - 1 > 4096
    assert case.theirs.logits.shape[0] == case.fed.logits.shape[0] == rows
    assert case.theirs.logits.std() > 0.05
    choosing = case.rows_with_a_choice()
    assert choosing.sum() > 2900
    for layer, ids in case.theirs.block_ids.items():
        assert ids.shape == case.own.block_ids[layer].shape == case.fed.block_ids[layer].shape
        between_groups = selection.rows_that_differ(ids[0], ids[1])[choosing].mean()
        assert between_groups > CLEARLY, (
            f"layer {layer}: groups 0 and 1 differ in {between_groups:.1%} of rows"
        )
    print(
        f"\n{case.name}: {len(case.scores)} x {rows} rows, {int(choosing.sum())} of {rows} choose"
    )


def test_which_selection_transformers_has(case):
    """5.23.0: one selection for each group, visible blocks only, the local block inside the K."""
    local = np.arange(case.theirs.num_rows) // case.theirs.block_size
    for ids in case.theirs.block_ids.values():
        assert (ids.max(-1) == local).all()
        assert (ids == local[:, None]).any(-1).all()
        assert ((ids >= 0).sum(-1) == np.minimum(local + 1, case.theirs.top_k)).all()
    assert wrong_selections(case, case.theirs.block_ids) == []
    exact = sum(
        int(selection.rows_that_differ(case.theirs.block_ids[layer][group], scores.ids).sum())
        for (layer, group), scores in case.scores.items()
    )
    print(
        f"\n{case.name}: {exact} rows of Transformers differ from float64, each inside the tolerance"
    )


def test_other_selections_would_be_noticed(case):
    """One selection for all groups, as early ports had it, made here from Transformers' vectors: in every layer the
    rule is broken in many more rows than may differ."""
    choosing = case.rows_with_a_choice()
    num_groups = max(group for _, group in case.scores) + 1
    block_size, top_k = case.theirs.block_size, case.theirs.top_k
    for layer in case.theirs.block_ids:
        scores = [case.scores[layer, group] for group in range(num_groups)]
        merged = np.max([s.block for s in scores], axis=0)
        merged[np.arange(len(merged)), np.arange(len(merged)) // block_size] = np.inf
        one_for_all = np.argsort(-merged, axis=1, kind="stable")[:, :top_k]
        taken = np.take_along_axis(merged, one_for_all, 1)
        one_for_all = np.where(taken == -np.inf, -1, one_for_all)
        wrong = sum(len(selection.wrong_rows(one_for_all, s, block_size)) for s in scores)
        assert wrong > CLEARLY * num_groups * choosing.sum(), f"layer {layer}: {wrong} rows"


def test_logits_with_transformers_block_ids(case):
    difference = np.abs(case.fed.logits.astype(np.float64) - case.theirs.logits)
    row = int(difference.max(-1).argmax())
    print(
        f"\n{case.name}: largest logit difference {difference.max():.3e} at row {row}, rms "
        f"{np.sqrt((difference**2).mean()):.1e}, largest logit {np.abs(case.theirs.logits).max():.2f}"
    )
    assert difference.max() <= LOGIT_TOLERANCE


def test_own_selection_on_the_same_inputs(case):
    """Each layer's inputs agree up to rounding: rows that differ are few, and each is inside the tolerance."""
    wrong = wrong_selections(case, case.fed.block_ids)
    assert wrong == [], f"{len(wrong)} rows outside the tolerance, the first {wrong[:3]}"
    different = differing_rows(case, case.fed.block_ids, case.theirs.num_rows)
    compared = len(case.scores) * case.theirs.num_rows
    print(f"\n{case.name}: {len(different)} of {compared} rows differ: {different[:8]}")
    assert len(different) <= MOST_DIFFERING_ROWS * compared


def first_different_token(case):
    """How many of the greedy tokens agree before the first that does not."""
    different = np.flatnonzero(case.own.generated != case.theirs.generated)
    return int(different[0]) if len(different) else GENERATED


def test_own_selection_all_the_way(case):
    """Nothing is fed: at most 0.1 % of the rows differ. A row may differ because an earlier layer's did; the first
    layer in which any does had the same inputs, so there each is inside the tolerance."""
    rows = PROMPT + first_different_token(case) - 1
    different = differing_rows(case, case.own.block_ids, rows)
    compared = len(case.scores) * rows
    print(f"\n{case.name}: {len(different)} of {compared} rows differ: {different[:8]}")
    assert len(different) <= MOST_DIFFERING_ROWS * compared
    if different:
        first_layer = min(layer for layer, _, _ in different)
        wrong = {
            (layer, group, row): what
            for layer, group, row, what in wrong_selections(case, case.own.block_ids)
        }
        for place in different:
            assert place[0] > first_layer or place not in wrong, f"{place}: {wrong[place]}"


def test_greedy_tokens(case):
    """64 equal tokens, or the first difference has a cause: a selection that differed before it, or a tie."""
    assert len(case.own.generated) == len(case.theirs.generated) == GENERATED
    agree = first_different_token(case)
    print(
        f"\n{case.name}: {agree} of {GENERATED} greedy tokens equal, {len(set(case.theirs.generated))} kinds"
    )
    if agree == GENERATED:
        return
    row = PROMPT + agree - 1
    ours, theirs = int(case.own.generated[agree]), int(case.theirs.generated[agree])
    gap = float(case.theirs.logits[row, theirs] - case.theirs.logits[row, ours])
    causes = differing_rows(case, case.own.block_ids, row + 1)
    print(
        f"first difference at row {row}: {ours}, not {theirs}; gap {gap:.2e}; selections {causes[:8]}"
    )
    assert gap < LOGIT_TOLERANCE or causes


def test_distance_to_float64(case):
    """Over the first rows, with the same block ids: the runner is as near to the formulas as Transformers is."""
    theirs = case.theirs
    ids = {layer: kept[:, :FLOAT64_ROWS] for layer, kept in theirs.block_ids.items()}
    exact = Float64Model(case.folder, float32_angles=True).logits(theirs.tokens[:FLOAT64_ROWS], ids)
    ours_off = np.abs(case.fed.logits[:FLOAT64_ROWS] - exact)
    theirs_off = np.abs(theirs.logits[:FLOAT64_ROWS] - exact)
    for name, off in (("runner", ours_off), ("Transformers", theirs_off)):
        print(
            f"\n{case.name}: {name} to float64: max {off.max():.2e}, rms {np.sqrt((off**2).mean()):.2e}",
            end="",
        )
    assert ours_off.max() <= LOGIT_TOLERANCE
    assert np.sqrt((ours_off**2).mean()) <= 4 * np.sqrt((theirs_off**2).mean())


def test_both_sets_of_names_are_one_model(probe, random_folders):
    ours, published = random_folders
    shape = transformers_run.shape_of(ours)
    tokens = random_prompt(shape.vocab_size)[:2500]
    first, second = (
        probe.forward(folder, tokens, shape, rows=len(tokens)) for folder in (ours, published)
    )
    assert np.isfinite(first.logits).all() and first.logits.std() > 0.05
    np.testing.assert_array_equal(first.logits, second.logits)
    for layer in shape.sparse_layers:
        np.testing.assert_array_equal(first.block_ids[layer], second.block_ids[layer])
