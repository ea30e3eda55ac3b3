"""Scores of a policy: means, wins, intervals over prompts, and the share of what is reachable."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from pegbox.errors import InputError
from pegbox.evaluation import FrontierDraws, Judged, PolicyScores, score_policy
from pegbox.rlhf import frontier, reweighted

ROWS = 40
DICE = np.random.default_rng(0)
BEFORE, AFTER = DICE.normal(0, 1, ROWS), DICE.normal(0.8, 1, ROWS)


def side(values: Any, *, tokens: int = 10, ended: Any = None) -> Judged:
    count = len(values)
    given = np.ones(count) if ended is None else ended
    return Judged({"reward": values, "gold": values / 2}, np.full(count, tokens), given)


def drawn(policy: float, spent: float, prompts: int = 6) -> FrontierDraws:
    scores = torch.tensor(np.random.default_rng(1).normal(0, 1, (prompts, 64)))
    betas = (10.0, 2.0, 1.0, 0.5, 0.3)
    best, divergence, effective = reweighted(scores, betas)
    each = np.random.default_rng(2).normal(0, 0.02, prompts)
    return FrontierDraws(
        betas, best, divergence, effective, scores.mean(1), policy + each, np.full(prompts, spent), 64
    )


def test_numbers_are_means_over_prompts_and_wins_count_ties_half() -> None:
    found = score_policy(side(BEFORE), side(AFTER, tokens=12), np.full(ROWS, 2.0))
    told = found.rewards["reward"]
    assert told.before.value == pytest.approx(BEFORE.mean())
    assert told.difference.value == pytest.approx((AFTER - BEFORE).mean())
    assert told.difference.low < told.difference.value < told.difference.high
    assert told.wins.value == pytest.approx((AFTER > BEFORE).mean())
    assert told.p < 0.05
    assert found.rewards["gold"].difference.value == pytest.approx((AFTER - BEFORE).mean() / 2)
    assert (found.lengths[0].value, found.lengths[1].value) == (10, 12)
    assert found.divergence.value == 2.0
    alike = score_policy(side(BEFORE), side(BEFORE), np.zeros(ROWS)).rewards["reward"]
    assert alike.wins.value == 0.5
    assert alike.ties == ROWS
    assert alike.p == 1.0


def test_answers_to_one_prompt_count_as_one() -> None:
    once = score_policy(side(BEFORE), side(AFTER), np.full(ROWS, 2.0))
    thrice = score_policy(
        side(np.repeat(BEFORE, 3)), side(np.repeat(AFTER, 3)), np.full(3 * ROWS, 2.0), each=3
    )
    assert thrice.rows == ROWS
    for name in ("reward", "gold"):
        one, three = once.rewards[name], thrice.rewards[name]
        for part in ("before", "after", "difference", "wins"):
            first, second = getattr(one, part), getattr(three, part)
            assert (first.value, first.low, first.high) == pytest.approx(
                (second.value, second.low, second.high)
            )
        assert one.p == three.p
    with pytest.raises(InputError, match="answers"):
        score_policy(side(BEFORE), side(AFTER), np.full(ROWS, 2.0), each=3)


def test_shares_without_spread_have_wilsons_interval() -> None:
    found = score_policy(side(BEFORE), side(BEFORE + 1), np.full(ROWS, 2.0))
    assert found.rewards["reward"].wins.value == 1
    assert 0.9 < found.rewards["reward"].wins.low < 1
    assert found.ended[0].value == 1
    assert found.ended[0].low < 1


def test_the_share_is_that_of_the_frontier() -> None:
    given = drawn(0.5, 0.3)
    reach = score_policy(side(BEFORE), side(AFTER), np.full(ROWS, 2.0), drawn=given).reach
    assert reach is not None
    scores = torch.tensor(np.random.default_rng(1).normal(0, 1, (6, 64)))
    wanted = frontier(scores, given.beta)
    assert reach.rewards == pytest.approx(wanted.reward)
    assert reach.plain == pytest.approx(wanted.plain)
    reward = float(np.mean(given.reward))
    assert reach.share.value == pytest.approx(wanted.share(reward, 0.3))
    assert reach.share.low <= reach.share.value <= reach.share.high
    assert not reach.sure
    assert reach.fair == sum(one >= 50 for one in reach.effective)
    outside = score_policy(side(BEFORE), side(AFTER), np.full(ROWS, 2.0), drawn=drawn(0.5, 99.0)).reach
    assert outside is not None
    assert math.isnan(outside.share.value)


def test_scores_come_back_from_strict_json() -> None:
    for given in (None, drawn(0.5, 0.3), drawn(0.5, 99.0)):
        found = score_policy(side(BEFORE), side(AFTER), np.full(ROWS, 2.0), drawn=given).timed(3.0)
        text = json.dumps(found.to_json(), allow_nan=False)
        assert PolicyScores.from_json(json.loads(text)) == found
        assert "win_rate_gold" in str(found)
    with pytest.raises(InputError, match="not a file"):
        PolicyScores.from_json({"format": "other"})
    with pytest.raises(InputError, match="lack a part"):
        PolicyScores.from_json({"format": "pegbox.policy-scores/1", "rows": 1})


@pytest.mark.parametrize(
    ("before", "divergence", "said"),
    [
        (BEFORE[:3], np.zeros(ROWS), "shape"),
        (BEFORE, np.zeros((ROWS, 2)), "shape"),
        (BEFORE, np.zeros(0), "shape"),
        (np.where(np.arange(ROWS) == 3, np.nan, BEFORE), np.zeros(ROWS), "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(before: Any, divergence: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        score_policy(side(before), side(AFTER), divergence)


def test_a_single_prompt_has_no_interval() -> None:
    found = score_policy(side(BEFORE[:1]), side(AFTER[:1]), np.zeros(1))
    assert math.isnan(found.rewards["reward"].difference.low)
