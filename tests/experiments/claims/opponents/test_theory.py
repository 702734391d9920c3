import jax
import numpy as np
import pytest

from experiments.claims.opponents import (
    theory,
    theory_balancing,
    theory_games,
    theory_inference,
    theory_planning,
)
from experiments.claims.opponents.statements import Statement, apart, failures, tried_and_failed
from jaxmarl_fac.report.claims import Workshop

#: Statements that are false, in all games or in some.
FALSE = {
    theory_inference.PREDICTIVE,
    theory_inference.PRINTED_ELBO,
    theory_inference.PART_TWO,
    theory_inference.PRINTED_M_STEP,
    theory_planning.NORM,
    theory_planning.ONLY_IF,
    theory_planning.PRINTED_VALUE,
    theory_planning.PRINTED_TARGET,
    theory_games.NASH,
    theory_games.NASH_SETTLES,
    theory_games.INDEPENDENT,
    theory_games.SOFT_FOE,
    theory_balancing.PRINTED_CONTRACTION,
    theory_balancing.PRIORS,
    theory_balancing.COROLLARY,
    theory_balancing.THEOREM_9,
    theory_balancing.NAIVE,
}


def test_every_false_statement_has_a_counterexample_in_words():
    assert {name for name, statement in theory.STATEMENTS.items() if statement.counterexample} == FALSE
    words = [statement.words for statement in theory.STATEMENTS.values()]
    assert len(set(words)) == len(words) == len(theory.CLAIMS[0].rule.parts)
    assert all(len(text) <= 90 for text in words)  # room in the picture
    assert all(len(statement.counterexample) <= 105 for statement in theory.STATEMENTS.values())


def test_counting():
    fails = {"a": np.array([True, False, True])}
    assert tried_and_failed(fails) == {"a": {"tried": 3, "failures": 2}}
    assert failures("(2.2)") == "failures of (2.2)" and Statement("(2.2)").counterexample == ""
    np.testing.assert_allclose(apart([[1.0, 2], [30, 40]], [[1.0, 2.5], [30, 50]]), [0.2, 0.2])


@pytest.mark.slow
def test_inference_on_other_games():
    """Games of the seed on which the statements were worked out."""
    with jax.enable_x64(True):
        group = theory_inference.check(20, seed=0)
    assert {name for name, fails in group.fails.items() if fails.any()} == FALSE & set(group.fails)
    coins = group.numbers["two coins"]
    np.testing.assert_allclose(coins["chances after one step"], [0.713012, 0.581339], atol=1e-6)
    np.testing.assert_allclose(coins["chances in the limit"], [0.796789, 0.519583], atol=1e-6)
    found = coins["log-likelihood before, after one step, in the limit"]
    np.testing.assert_allclose(found, [-33.093863, -31.859258, -31.570200], atol=1e-6)
    part_two = group.numbers["part 2 of one head"]
    assert part_two["log-likelihood before"] == pytest.approx(-0.598, abs=5e-4)
    assert part_two["where part 2 is largest"] == pytest.approx(-0.693, abs=5e-4)


@pytest.mark.slow
def test_what_is_true_and_what_is_false(tmp_path):
    """All statements at the scale smoke, and the numbers that the picture's counterexamples give."""
    (claim,) = theory.CLAIMS
    outcome = claim.make(Workshop("smoke", None, tmp_path))
    for name, statement in theory.STATEMENTS.items():
        assert (outcome.measured[failures(statement.words)] > 0) == (name in FALSE), statement.words
    ours = outcome.ours
    factors = ours["games"]["(2.67): factor of the counterexample"]
    assert list(factors.values()) == pytest.approx([9, 90], rel=1e-9)  # 10γ and 100γ
    friends = ours["games"]["(2.68): R = 4 at (0, 0, 0) and (1, 1, 1)"]
    assert friends == pytest.approx({"independent": 1, "correlated": 2}, abs=1e-9)
    worked = ours["planning"]["the worked MDP"]
    np.testing.assert_allclose(worked["V in policy iteration"][1], [14.736842, 15.263158], atol=1e-6)
    np.testing.assert_allclose(worked["V in soft policy iteration"][1], [9.823066, 10.343273], atol=1e-6)
    np.testing.assert_allclose(worked["V in soft policy iteration"][-1], [9.823313, 10.343519], atol=1e-6)
    np.testing.assert_allclose(
        np.diag(np.fliplr(worked["policy after one soft improvement"])), [0.809998, 0.824914], atol=1e-6
    )
    schedules = ours["planning"]["root mean square of max |Q - Q*| on it"]
    assert schedules["t^-2"]["t = 1000"] > 13 > schedules["1/t"]["t = 1000"] > schedules["t^-.7"]["t = 1000"]
    chapter_3 = ours["balancing"]
    thesis = chapter_3["corollary 1"]["the thesis's game, beta = (.1, -.1)"]
    expected = {"agent first": 2.335223, "other first": 2.890022, "independent": 2.606757}
    assert thesis == pytest.approx(expected, abs=1e-5)
    assert chapter_3["corollary 1"]["opposite signs"]["independent play in between"] == 50
    for name, factors in chapter_3["contraction"].items():
        assert factors["largest factor"] == pytest.approx(1.0 if "without" in name else 0.9, abs=1e-6)
    improved = chapter_3["policy improvement"]
    assert improved["theorem 9, β > 0"] == {"rises everywhere": 50, "falls everywhere": 0}
    assert (
        improved["remark, β' > 0"]["rises everywhere"] == improved["remark, β' < 0"]["falls everywhere"] == 50
    )
    naive = chapter_3["(3.44)"]["[[1, 0], [0, 0]], beta = (2, -1)"]
    np.testing.assert_allclose(naive["naive"], [0.789, 0.211], atol=5e-4)
    np.testing.assert_allclose(naive["(3.20)"], [0.664, 0.336], atol=5e-4)
