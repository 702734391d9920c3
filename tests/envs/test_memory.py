import pytest

from envs import memory
from envs.memory import check_fits, free_bytes


def test_there_is_memory():
    free = free_bytes()
    assert free is None or 10**6 < free < 10**14


@pytest.mark.parametrize(
    ("needed", "free", "says"),
    [
        (17_000_000_000, 9_400_000_000, "1,000 seeds would take 17 GB of memory, and 9.4 GB are free"),
        (2_500, 999, "1,000 seeds would take 2.5 kB of memory, and 999 bytes are free"),
        (3 * 10**18, 4 * 10**6, "1,000 seeds would take 3e+06 TB of memory, and 4 MB are free"),
    ],
)
def test_what_does_not_fit_is_refused(bad_input, needed, free, says):
    with bad_input(says):
        check_fits(needed, "1,000 seeds", free)
    check_fits(free, "1,000 seeds", free)


def test_a_container_may_leave_less_than_the_host_has(tmp_path, monkeypatch):
    limit, used, statistics = tmp_path / "limit", tmp_path / "used", tmp_path / "memory.stat"
    monkeypatch.setattr(memory, "CGROUPS", [(str(tmp_path), "limit", "used", "inactive_file")])
    limit.write_text("5000\n")
    used.write_text("2000\n")
    statistics.write_text("anon 1500\nfile 500\n")
    assert free_bytes() == 3000
    statistics.write_text("anon 1500\nfile 500\ninactive_file 400\nactive_file 100\n")
    assert free_bytes() == 3400  # files read before give way
    used.write_text("6000\n")
    assert free_bytes() == 0
    limit.write_text("max\n")
    assert free_bytes() != 0
