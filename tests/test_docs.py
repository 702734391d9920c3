"""The documentation: its code blocks run, its generated parts are what the code says, its links are right."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from PIL import Image

import baselines
import envs
from experiments import compare, train
from experiments.compare_plan import read_overrides
from jaxmarl_fac import cli
from tests.helpers import free_port

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_hooks"))

import algorithms  # noqa: E402
import check_site  # noqa: E402
import games  # noqa: E402
import notebook  # noqa: E402
import pieces  # noqa: E402
import records  # noqa: E402

PAGES = sorted(DOCS.rglob("*.md"))
RECORDS = records.read_all(ROOT / "results")


def name_of(page):
    return str(page.relative_to(ROOT))


def front_matter(page):
    text = page.read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}


def blocks(text):
    """Language, title and content of every code block."""
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    fences = re.findall("^```", text, re.MULTILINE)
    assert len(fences) == 2 * len(found), "a block without a language, or with another form"
    return found


METAS = {page: front_matter(page) for page in PAGES}
ALGORITHM_PAGES = {page: meta for page, meta in METAS.items() if "algorithms" in meta}
GAME_PAGES = {page: meta for page, meta in METAS.items() if "games" in meta}

# Code blocks

#: What each script is given besides, so that it is done in seconds; flags given twice count last.
SMALLER = {
    "train.py": ["--env-steps", "64", "--evaluations", "1"],
    "reproduce_qtran.py": ["--figures", "fig5", "--scale", "smoke"],
    "benchmark.py": ["--algos", "iql", "--seeds", "1", "--seconds", "0.01"],
    "sweep.py": ["--runs", "1"],
    "compare.py": ["--seeds", "2", "--env-steps", "64"],
    "play.py": ["--episodes", "2"],
}
#: The same in Python.
SHORTER = {
    "20_000": "40",
    "5_000": "40",
    "range(100)": "range(2)",
    "games=1000": "games=4",
    "episodes=100": "episodes=2",
}
#: Pages whose commands need what earlier steps or other modules leave, by the title of the block.
WITH_CODE = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))]


def run_command(line, folder):
    """Run a command of a page, made smaller."""
    name, *flags = shlex.split(line)
    if name == "make":
        subprocess.run([name, *flags, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        return
    assert name == "python", line
    script, *flags = flags
    path = ROOT / script if script.startswith("experiments/") else folder / script
    if path.name == "sweep.py":
        text = (ROOT / flags[0]).read_text(encoding="utf-8").replace("value: 5000", "value: 40")
        flags[0] = str(folder / "sweep.yaml")
        Path(flags[0]).write_text(re.sub(r"value: (8|10)\b", "value: 1", text), encoding="utf-8")
    if "--list" not in flags:
        flags += SMALLER.get(path.name, [])
    if "pqn-vdn" in flags:
        flags += ["--env-steps", "1000"]  # an update comes after a rollout
    done = subprocess.run(
        [sys.executable, str(path), *flags], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"


def tell(page, folder):
    """Do all that a page says, in its order."""
    namespace: dict = {}
    for language, title, content in blocks(page.read_text(encoding="utf-8")):
        if title:
            (folder / title).write_text(content, encoding="utf-8")
        elif language == "python":
            for long, short in SHORTER.items():
                content = content.replace(long, short)
            exec(compile(content, str(page), "exec"), namespace)
        else:
            assert language == "sh", f"{page}: nobody runs a block of {language}"
            for line in content.replace("\\\n", " ").splitlines():
                run_command(line.split("#")[0], folder)
    return SimpleNamespace(**namespace)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = tell(page, tmp_path)
    if page.name == "index.md" and page.parent == DOCS:
        assert found.run.seeds == (0, 1)
    if page.name == "train.md":
        assert found.result.history.last["episode_return"].shape == (2,)
        assert (tmp_path / "game.gif").read_bytes().startswith(b"GIF8")
        assert imread("curves.png").std() > 0
    if page.name == "payoff.md":
        assert found.returns.shape == (4,) and np.allclose(np.asarray(found.fit.q_tot)[0, 0], -56 / 9)
    if page.name == "clusters.md":
        script = (tmp_path / "two.sh").read_text().replace("python ", f"{sys.executable} ")
        script = script.replace("4321", str(free_port()))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)
        assert (tmp_path / "runs/two/metrics.npz").exists()
        for name in ("tpu-vm.sh", "tpu-slice.sh", "train.sbatch"):
            subprocess.run(["bash", "-n", name], cwd=tmp_path, check=True)
        service, job = yaml.safe_load_all((tmp_path / "job.yaml").read_text())
        assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    if page.name == "sweeps.md":
        for name in ("sweep", "ray", "slurm"):
            (run,) = json.loads((tmp_path / "runs" / name / "sweep.json").read_text())
            assert run["status"] == "finished"
        assert [row["env_steps"] for row in found.rows] == [0, 64]
        assert found.rows[-1].keys() >= {"episode_return/iqm", "seeds/episode_return/7", "seconds"}
        assert imread("wandb_panels.png").std() > 0


def check_training(texts):
    """Flags and ids are understood, and the algorithm can play the game."""
    lines = [line for text in texts for line in text.splitlines() if " experiments/train.py" in line]
    for line in lines:
        if "--list" not in line and "jumanji:" not in line:
            train.prepare(shlex.split(line)[2:])[1].bind()
    return len(lines)


def test_commands_that_train_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    texts = [page.read_text(encoding="utf-8") for page in WITH_CODE]
    for text in texts:
        for _, title, content in blocks(text):
            if title:
                Path(title).write_text(content, encoding="utf-8")
    assert check_training(texts) >= 7


@pytest.mark.slow
def test_generated_commands_are_understood():
    assert check_training(map(algorithms.train, ALGORITHM_PAGES.values())) == len(ALGORITHM_PAGES) >= 15
    assert check_training(map(games.play, GAME_PAGES.values())) == len(GAME_PAGES) >= 17


def test_overrides_of_a_comparison_are_read(tmp_path):
    ((_, title, content),) = [b for b in blocks((DOCS / "guides/compare.md").read_text()) if b[0] == "yaml"]
    (tmp_path / title).write_text(content)
    assert read_overrides(tmp_path / title)


def test_the_committed_comparison_has_no_pair_that_does_not_work(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = next(
        content
        for _, title, content in blocks((DOCS / "guides/compare.md").read_text())
        if title == "factored.sh"
    )
    flags = shlex.split(text.replace("\\\n", " "))[2:]
    plan = compare.plan_of(cli.parse(compare.Options, flags))
    assert len(plan.pairs) == 7 * 8 and not plan.left_out


@pytest.mark.slow
@pytest.mark.parametrize("page", GAME_PAGES, ids=name_of)
def test_a_game_is_played_by_hand_as_its_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((_, _, code),) = [block for block in blocks(games.play(GAME_PAGES[page])) if block[0] == "python"]
    exec(code, {})
    assert imread("game.png").std() > 0


def test_what_contributors_run_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [
        line for language, _, content in blocks(text) if language == "sh" for line in content.splitlines()
    ]
    made = [line.split("#")[0].split() for line in lines if line.startswith("make")]
    assert len(made) >= 6
    for command in made:
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


# What is generated


@pytest.mark.parametrize(
    ("pages", "key", "known"),
    [
        (ALGORITHM_PAGES, "algorithms", list(baselines.ALGORITHMS)),
        (GAME_PAGES, "games", list(envs.ENVIRONMENTS)),
    ],
    ids=["algorithms", "games"],
)
def test_every_id_has_one_page(pages, key, known):
    listed = [name for meta in pages.values() for name in meta[key]]
    assert sorted(listed) == sorted(known)


def test_the_navigation_lists_every_page():
    def leaves(nav):
        for item in nav:
            (value,) = item.values() if isinstance(item, dict) else (item,)
            yield from leaves(value) if isinstance(value, list) else [value]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    written = {str(page.relative_to(DOCS)) for page in PAGES}
    assert sorted(leaves(nav)) == sorted(written | {"guides/notebook.md"})


def test_settings_come_from_the_dataclass():
    text = algorithms.settings(["vdn", "qmix"])
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows["mixer_embed"].startswith("| `mixer_embed` | `32` (`qmix`) | at least 1 | ")
    assert rows["gamma"].startswith("| `gamma` | `0.99` | in \\[0, 1\\] | ")
    assert "`adam`, `rmsprop`, `radam`" in rows["optimiser"]
    family = rows["stag-hunt"]
    assert "`replay_size` 5000," in family and "`hypernet_hidden` 64 (" not in family
    assert "td_lambda" not in family


def test_a_setting_that_only_some_have_or_whose_defaults_differ():
    rows = algorithms.settings(["qmix", "ow-qmix"])
    assert "| `target_period` | `10,000` (`qmix`); `200` (`ow-qmix`) |" in rows
    assert "| `alpha` | `0.1` (`ow-qmix`) | in (0, 1\\] |" in rows


@pytest.mark.parametrize("page", ALGORITHM_PAGES, ids=name_of)
def test_the_parts_of_an_algorithms_page(page):
    meta = ALGORITHM_PAGES[page]
    text = algorithms.sections(meta, RECORDS)
    for name in meta["algorithms"]:
        assert f"`{name}`" in algorithms.summary(meta["algorithms"])
    shown = re.findall(r"\]\(\.\./results/(.*?)\.md\)", text)
    expected = {r.name for r in RECORDS if r.trained() & set(meta["algorithms"])} | set(
        meta.get("results", ())
    )
    assert set(shown) == expected and len(shown) == len(expected)
    assert "$$" in page.read_text(encoding="utf-8") and "Source" in page.read_text(encoding="utf-8")


def test_the_rules_of_a_game_are_its_docstring():
    text = games.rules("envs.stag_hunt.StagHunt")
    assert "- Two or more: it is caught." in text and "Args:" not in text
    assert "| `punishment` | `()`, the papers' p \\<= 0".replace("\\<", "&lt;") in text
    assert "| `agents` | `8` | at least 2 (a catch takes two) |" in games.parameters(
        "envs.stag_hunt.stag_hunt"
    )


def test_the_picture_of_a_game(tmp_path):
    (tmp_path / "game.png").write_bytes(games.picture("matrix-qtran", 1))
    assert imread(tmp_path / "game.png").std() > 0.1


def test_every_record_has_a_page_and_a_card():
    text = records.gallery(RECORDS)
    assert (
        text.count("<article")
        == len(RECORDS)
        == len(list((ROOT / "results").glob("*/*.png")))
        - len([*(ROOT / "results").glob("benchmark*/*.png"), *(ROOT / "results/comparison").glob("*.png")])
    )
    for record in RECORDS:
        page = records.page(record)
        assert f"({record.name}.md)" in text and record.content["id"] in page
        assert records.badge(record.content["verdict"]) in page and record.command in page
        assert not re.search(r"\(R\d+[);]|FACTS", page)
        for sentence in record.content.get("parts", {}):
            assert pieces.escaped(sentence) in page
        script = ROOT / shlex.split(record.command)[1]
        assert script.is_file()


def test_a_part_of_a_rule_stands_beside_what_was_measured():
    content = {
        "parts": {"share of a at least 0.5": True, "share of ab below 0.2": False},
        "measured": {"share of a": {"value": 0.75, "low": 0.5, "high": 1.0}, "share of ab": 0.25},
    }
    rows = records._parts(content)[0].splitlines()[2:]
    assert rows == [
        "| share of a at least 0.5 | 0.75 \\[0.5, 1\\] | yes |",
        "| share of ab below 0.2 | 0.25 | **no** |",
    ]


def test_who_was_trained_for_a_record():
    trained = {record.name: record.trained() for record in RECORDS}
    assert trained["qtran/table6"] == {"vdn", "qmix", "qtran-base"}
    assert trained["memarl/fig3_2b"] == {"pr2-q", "balancing-q"}  # of both sides of a match
    assert trained["qtran/theory"] == set()


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("QTRAN, figure 4a (R5)", "QTRAN, figure 4a"),
        ("QPLEX (R13; the outcomes are unverified)", "QPLEX (the outcomes are unverified)"),
        ("joint values; exact fits by FACTS 1.4", "joint values; exact fits"),
        ("Thesis, section 4.2 (a game)", "Thesis, section 4.2 (a game)"),
    ],
)
def test_titles_name_no_list_that_is_not_there(source, title):
    assert records.without_register(source) == title


def test_thumbnails_are_small(tmp_path):
    (tmp_path / "small.webp").write_bytes(records.thumbnail(RECORDS[0].path.with_suffix(".png")))
    with Image.open(tmp_path / "small.webp") as image:
        assert image.format == "WEBP" and image.width <= 560 and image.height <= 420


def test_text_is_shown_as_it_is():
    assert pieces.escaped("a_b * [1, 2] | <x> $y$") == "a\\_b \\* \\[1, 2\\] \\| &lt;x&gt; \\$y\\$"


def test_a_notebook_as_a_page(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "figure"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"image/png": "aGk=", "text/plain": ["<F>"]}},
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
            ],
        },
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page, pictures = notebook.as_markdown(path)
    assert pictures == {"n-0.png": b"hi"}
    lines = [line for line in page.splitlines() if line]
    assert lines == [
        *("# Title", "text", "```python", "print(1)", "figure", "```", "```text", "1", "```"),
        *("![n-0.png](n-0.png)", "```text", "2", "```"),
    ]


# Links


def test_what_is_wrong_with_a_site(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/index.html").write_text('<p id="here">')
    (tmp_path / "index.html").write_text(
        '<a href="a/#here"></a><a href="a/index.html#there"></a><a href="https://elsewhere"></a>'
        '<img src="missing.png"><script src="https://elsewhere/x.js"></script><a href="#nowhere"></a>'
    )
    said = [line.partition(": ")[2] for line in check_site.problems(tmp_path)]
    assert said == [
        "https://elsewhere/x.js is loaded from elsewhere",
        "a/index.html#there has no such anchor",
        "#nowhere has no such anchor",
        "missing.png leads nowhere",
    ]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_lead_to_files_or_to_generated_pages(page):
    pictures = {games.picture_name(name) for meta in GAME_PAGES.values() for name in meta["pictures"]}
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        if path.exists() or path.name in pictures or target.endswith("notebook.md"):
            continue
        parts = path.relative_to(DOCS).parts
        if parts[0] == "results":
            assert (ROOT / "results" / Path(*parts[1:]).with_suffix(".json")).exists(), target
        else:
            assert parts[0] == "api", target
            module = ROOT / path.stem.replace(".", "/")
            assert module.is_dir() or module.with_suffix(".py").exists(), target


# The notebook


@pytest.mark.slow
def test_the_notebook_runs_and_its_saved_outputs_are_those_of_its_code(tmp_path, monkeypatch, capsys):
    """Without a kernel: its magic is left out. Times apart, it prints what it has printed."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "notebooks/quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    namespace: dict = {}
    for cell in code:
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
        exec("\n".join(lines), namespace)
    assert all(run.history.last["episode_return"].shape == (8,) for run in namespace["runs"].values())
    saved = "".join(
        "".join(output.get("text", "")) for cell in code for output in cell["outputs"]
    ).splitlines()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:-1] for line in printed if line] == [line.split()[:-1] for line in saved if line]
    assert np.mean(namespace["runs"]["qtran-base"].history.last["episode_return"] == 8) == 1
    pictures = [
        output for cell in code for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
