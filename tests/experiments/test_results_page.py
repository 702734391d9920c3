import json
import shutil
from pathlib import Path

import pytest

from experiments import results_page

RESULTS = Path(__file__).parents[2] / "results"


def copied(folder, paper="ltql", figures=("matrix", "operators")):
    """Some of the repository's results."""
    (folder / paper).mkdir(parents=True)
    for figure in figures:
        for suffix in ("json", "png"):
            shutil.copy(RESULTS / "ltql" / f"{figure}.{suffix}", folder / paper)
    return folder


def test_the_committed_page_is_what_the_committed_records_make(tmp_path):
    """Records of all papers are read by today's code, and hold nothing that differs from run to run."""
    shutil.copytree(RESULTS, tmp_path / "results")
    assert results_page.main(["--results", str(tmp_path / "results")]) == 0
    assert (tmp_path / "results" / "README.md").read_bytes() == (RESULTS / "README.md").read_bytes()
    for path in RESULTS.glob("*/*.json"):
        if path.name not in ("benchmark.json", "comparison.json", "marl_eval.json"):
            assert not [key for key in json.loads(path.read_bytes())["ours"] if "seconds" in key], path


def test_a_comparison_has_a_row(tmp_path, capsys, bad_input):
    folder = copied(tmp_path) / "mine"
    folder.mkdir()
    numbers = {
        "algorithms": ["vdn", "qmix"],
        "tasks": ["two-step"],
        "scores": {"IQM": {"qmix": {"value": 1.0, "low": 0.9, "high": 1.0}, "vdn": {"value": 0.875}}},
    }
    (folder / "comparison.json").write_text(json.dumps(numbers))
    (folder / "marl_eval.json").write_text("{}")
    (folder / "curves.png").write_bytes(b"")
    assert results_page.main(["--results", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    row = "| mine: [curves](mine/curves.png) | vdn, qmix | two-step | qmix 1.00, vdn 0.88 |"
    assert row in (tmp_path / "README.md").read_text().splitlines()
    (folder / "comparison.json").write_text("[]")
    with bad_input("comparison.json is not from compare.py: remove its folder, or make it anew"):
        results_page.main(["--results", str(tmp_path)])


#: What a file among the records may hold, and whether the picture beside it is kept.
BROKEN = {
    "empty": b"",
    "no JSON": b"{",
    "bytes": b"\xff\xfe\x00",
    "a list": b"[1]",
    "a number": b"5",
    "null": b"null",
    "an empty object": b"{}",
    "missing keys": b'{"id": "matrix", "verdict": "reproduced"}',
    "another kind": b'{"id": [], "verdict": 3}',
    "deeply nested": b"[" * 100_000,
    "no picture": None,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_costs_only_itself(tmp_path, capsys, content):
    folder = copied(tmp_path)
    broken = folder / "ltql" / "matrix.json"
    if content is None:
        broken.with_suffix(".png").unlink()
    else:
        broken.write_bytes(content)
    assert results_page.main(["--results", str(folder)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(broken) in line and "left out" in line
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "ltql/operators.png" in page and "ltql/matrix.png" not in page


def test_records_of_games_and_without_a_decision(tmp_path):
    folder = copied(tmp_path)
    path = folder / "ltql" / "operators.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record.pop("seeds", None)
    record |= {"games": 500, "verdict": "undecided", "measured": {"score": 1.0}, "parts": {"a score": False}}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert results_page.main(["--results", str(folder)]) == 0
    page = (folder / "README.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| [operators]"))
    assert "| **undecided** |" in row and row.endswith("| quick, 500 games |")
    assert next(line for line in page.splitlines() if "[matrix]" in line).endswith("| quick, 300 seeds |")
    assert "](ltql/operators.json)" in row and record["claim"] in row


def test_the_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch, bad_input):
    folder = copied(tmp_path)
    (folder / "README.md").write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with bad_input(f"{folder}/README.md cannot be written: No space left"):
        results_page.main(["--results", str(folder)])
    assert (folder / "README.md").read_bytes() == b"old"


@pytest.mark.parametrize(("name", "link"), [("my results", "my%20results"), ("\udcff", "%FF")])
def test_links_lead_to_any_folder(tmp_path, name, link):
    copied(tmp_path, name)
    assert results_page.main(["--results", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"]({link}/matrix.png)" in page and f"]({link}/matrix.json)" in page


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_broken_benchmark_costs_only_itself(tmp_path, capsys, content):
    folder = copied(tmp_path)
    (folder / "benchmark").mkdir()
    if content is None:
        (folder / "benchmark" / "benchmark.md").mkdir()
    else:
        (folder / "benchmark" / "benchmark.md").write_bytes(content)
    assert results_page.main(["--results", str(folder)]) == 0
    assert capsys.readouterr().err.count("\n") == 1
    assert "## Benchmarks" not in (folder / "README.md").read_text(encoding="utf-8")


def test_a_folder_without_results(tmp_path, bad_input):
    with bad_input(f"{tmp_path} holds no results"):
        results_page.main(["--results", str(tmp_path)])
    with bad_input("missing cannot be read: No such file"):
        results_page.main(["--results", str(tmp_path / "missing")])
