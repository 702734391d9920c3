"""Play the greedy policy of a trained run.

python experiments/play.py --run DIR [--seed I] [--game I] [--step N|best] [--episodes N] [--key I]
    [--gif FILE] [--modules NAME ...]
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.play import load_player
from jaxmarl_fac.statistics import bootstrap_interval


@dataclasses.dataclass(frozen=True)
class Options:
    """What to play.

    Attributes:
        run: folder of the run: the --out of train.py, or one under runs/ of a reproduction.
        seed: seed number; the run's first if not given.
        game: index in a batch of games, such as penalties or payoffs that were trained together.
        variant: index of the variant, of a run with several values of a setting.
        step: environment steps of the checkpoint (see train.py --keep), or best (see --keep-best); the last
            one if not given.
        episodes: number of episodes for the mean return.
        key: seed of the episodes' random key.
        gif: file for an animation of one episode.
        modules: modules outside the suite that define the run's algorithm or game.
    """

    run: Path | None = None
    seed: int | None = None
    game: int = 0
    variant: int = 0
    step: int | Literal["best"] | None = None
    episodes: int = 32
    key: int = 0
    gif: Path | None = None
    modules: tuple[str, ...] = ()


def main(argv: Sequence[str]) -> int:
    """Play, print the returns, write the animation; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if options.run is None:
        raise BadInputError("--run is missing: give the folder of a run")
    player = load_player(
        options.run, options.seed, options.game, options.step, options.modules, options.variant
    )
    returns = player.returns(options.episodes, options.key)  # (episodes,), or (episodes, n)
    scores = [bootstrap_interval(each, np.mean) for each in np.reshape(returns, (len(returns), -1)).T]
    shown = ", ".join(f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]" for score in scores)
    print(
        f"mean return {shown} over {options.episodes} episodes, after {player.env_steps:,} steps of training"
    )
    if options.gif:
        player.animate(options.gif, options.key)
        print(f"animation: {options.gif}")
    return cli.DONE


if __name__ == "__main__":
    cli.run(main)
