"""Raw numbers of a comparison in the format of marl-eval (https://github.com/instadeepai/marl-eval).

Its tools make the plots of "Towards a Standardised Performance Evaluation Protocol for Cooperative MARL"
(Gorsane et al., 2022). They need every algorithm on every task of an environment, with as many runs and
evaluations, so pairs beyond the complete part of a comparison are in an environment of their own.
"""

from typing import Any

from jaxmarl_fac.report.comparison import Comparison, CompletePart, FinishedRun

#: Environments of the complete part and of all other runs; marl-eval asks for names in lower case.
COMPLETE, OTHERS = "jaxmarl_fac", "jaxmarl_fac_others"
#: marl-eval finds the metrics to normalise by the words between their underscores: one word is safe.
METRIC = "return"


def raw_data(comparison: Comparison, part: CompletePart | None) -> dict[str, Any]:
    """The runs as marl-eval's nested dictionaries, ready for JSON.

    They are environment, task, algorithm, `seed_<number>`, then `step_<k>` with the environment steps, the
    elapsed seconds and the list of returns, and at last `absolute_metrics`. A list has one number, the mean
    over the episodes of an evaluation; the absolute metric is that of the best evaluation of the run, as
    parameters are not evaluated again. Runs that are not finite are left out.
    """
    found: dict[str, Any] = {}
    for (algorithm, task), run in comparison.runs.items():
        inside = part is not None and algorithm in part.algorithms and task in part.tasks
        count = part.seeds if part is not None and inside else len(run.seeds)
        rows = _runs(run, count)
        if rows:
            environment = found.setdefault(COMPLETE if inside else OTHERS, {})
            environment.setdefault(task.lower(), {})[algorithm] = rows
    return found


def _runs(run: FinishedRun, count: int) -> dict[str, Any]:
    finite = [lane for lane in range(count) if all(map(_is_finite, run.returns[:, lane]))]
    return {f"seed_{run.seeds[lane]}": _steps(run, lane) for lane in finite}


def _steps(run: FinishedRun, lane: int) -> dict[str, Any]:
    returns = [float(value) for value in run.returns[:, lane]]
    steps: dict[str, Any] = {
        f"step_{index}": {
            "step_count": int(env_steps),
            **({} if run.elapsed is None else {"elapsed_time": float(run.elapsed[index])}),
            METRIC: [returns[index]],
        }
        for index, env_steps in enumerate(run.env_steps)
    }
    return {**steps, "absolute_metrics": {METRIC: [max(returns)]}}


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN too
