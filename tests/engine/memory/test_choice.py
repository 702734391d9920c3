import baselines
from envs.matrix_games import two_step_game
from jaxmarl_fac.memory.choice import memory_for


def test_no_more_rows_than_steps_to_come():
    game = two_step_game()
    vdn = baselines.make("vdn", replay_size=1_000_000)
    assert memory_for(vdn, game, num_envs=3, iterations=50).size == 150
    assert memory_for(vdn, game, num_envs=3, iterations=10**6).size == 1_000_002
    episodes = baselines.make("vdn", replay_size=5000, consumes="episodes")
    assert memory_for(episodes, game, num_envs=2, iterations=40).slots == 40 + 1
    assert memory_for(episodes, game, num_envs=2, iterations=10**6).slots == 2500 + 1
