"""What is generated on the pages of games: a picture, the rules, the parameters, and how to play.

The page itself, in docs/games/, says in its front matter whose these are:

    games: [squeeze, squeeze-multi]     ids of envs/registry.py
    rules: envs.gaussian_squeeze.GaussianSqueeze    whose docstring has the rules
    builders: [envs.gaussian_squeeze.gaussian_squeeze]   whose arguments are the parameters
    pictures: [squeeze]                 ids that are drawn, each after `steps` random steps
    steps: 1
    algo: qtran-base                    the one that the commands train
"""

import functools
import importlib
import inspect
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
from algorithms import _about, range_of, shown
from pieces import code, escaped, table
from PIL import Image

import envs
from envs.registry import ENVIRONMENTS

KEYS = ("games", "rules", "builders", "pictures", "algo")
#: Pixels of a picture's width on a page.
WIDTH = 420


def summary(meta: Mapping[str, Any]) -> str:
    """The pictures and the ids, for the head of a page."""
    pictures = [
        f"<figure markdown>\n![{name}]({picture_name(name)}){{ width={WIDTH} }}\n"
        f"<figcaption><code>{name}</code></figcaption>\n</figure>"
        for name in meta["pictures"]
    ]
    rows = [
        (code(name), escaped(ENVIRONMENTS[name].about), code(ENVIRONMENTS[name].family))
        for name in meta["games"]
    ]
    shown_pictures = '<div class="pictures" markdown>\n\n' + "\n\n".join(pictures) + "\n\n</div>"
    return f"{shown_pictures}\n\n{table(('`--env`', '', 'Family of settings'), rows)}"


def sections(meta: Mapping[str, Any]) -> str:
    """What follows the text of a page."""
    parts = ["## Play", play(meta), "## Rules", rules(meta["rules"])]
    if meta["builders"]:
        parts += ["## Parameters", *(parameters(name) for name in meta["builders"])]
    modules = dict.fromkeys(name.rpartition(".")[0] for name in [meta["rules"], *meta["builders"]])
    parts += ["## Code", "\n".join(f"- [`{name}`](../api/{name}.md)" for name in modules)]
    return "\n\n".join(parts)


def play(meta: Mapping[str, Any]) -> str:
    """Commands that train, play and draw, and the game by hand."""
    name = meta["games"][0]
    commands = [
        f"python experiments/train.py --algo {meta['algo']} --env {name} --out runs/{name}",
        f"python experiments/play.py --run runs/{name} --episodes 100 --gif {name}.gif",
    ]
    by_hand = [
        "import jax",
        "import envs",
        "",
        f'game = envs.make("{name}")',
        "state, timestep = jax.jit(game.reset)(jax.random.key(0))",
        "actions = game.action_spec.generate_value()  # " + _action_comment(name),
        "state, timestep = jax.jit(game.step)(state, actions)",
        "print(timestep.reward, timestep.last())",
        'game.render(state, save_path="game.png")',
    ]
    return "\n".join(["```sh", *commands, "```", "", "```python", *by_hand, "```"])


def _action_comment(name: str) -> str:
    spec = envs.make(name).action_spec
    return f"shape {spec.shape}: " + (
        f"for each agent 0 to {envs.make(name).num_actions - 1}" if envs.make(name).num_actions else "numbers"
    )


def rules(name: str) -> str:
    """The docstring of a class, with its arguments as a table."""
    parsed = docstring_parser.parse(inspect.getdoc(_find(name)) or "")
    text = "\n\n".join(filter(None, [parsed.short_description, parsed.long_description]))
    rows = [(code(p.arg_name), _about(_line(p.description))) for p in parsed.params if p.description]
    lines = [_prose(text)]
    if rows:
        lines += ["", "Fields of the game:", "", table(("Field", "Meaning"), rows)]
    return "\n".join(lines)


def parameters(name: str) -> str:
    """What a builder takes, with defaults and ranges."""
    build = _find(name)
    parsed = docstring_parser.parse(inspect.getdoc(build) or "")
    about = {p.arg_name: _line(p.description) for p in parsed.params}
    hints = get_type_hints(build, include_extras=True)
    rows = []
    for parameter in inspect.signature(build).parameters.values():
        default = parameter.default
        value = "required" if default is inspect.Parameter.empty else code(shown(_short(default)))
        rows.append(
            (
                code(parameter.name),
                value,
                range_of(hints.get(parameter.name)),
                _about(about.get(parameter.name, "")),
            )
        )
    head = f"### `{build.__name__}`\n\n{_about(_line(parsed.short_description))}"
    return f"{head}\n\n{table(('Parameter', 'Default', 'Range', 'Meaning'), rows)}" if rows else head


def _short(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, np.ndarray) else value


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _prose(text: str) -> str:
    """A docstring's text as Markdown: its inline code stays, all else is shown as it is."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if lines and all(line.startswith(("- ", "  ")) for line in lines):
            joined = re.sub(r"\n  ", " ", "\n".join(lines))
            paragraphs.append("\n".join("- " + _about(line[2:]) for line in joined.splitlines()))
            continue
        items, prose = [], []
        for line in lines:  # a list may follow its heading without an empty line
            if line.startswith("- "):
                items.append(line[2:])
            elif items:
                items[-1] += " " + line.strip()
            else:
                prose.append(line)
        paragraphs.append(_about(" ".join(prose)))
        if items:
            paragraphs.append("\n".join("- " + _about(item) for item in items))
    return "\n\n".join(paragraphs)


def _find(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def picture_name(name: str) -> str:
    """The file of a game's picture, beside the pages."""
    return f"{name.replace(':', '-')}.png"


@functools.cache
def picture(name: str, steps: int) -> bytes:
    """The game after some steps of uniformly random play, as a PNG."""
    game = envs.make(name)

    @jax.jit  # as one program: compiling is what takes the time
    def played(key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            state, mask = carry
            if game.num_actions:
                actions = jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))
            else:
                spec: Any = game.action_spec
                actions = jax.random.uniform(key, spec.shape, minval=spec.minimum, maxval=spec.maximum)
            state, timestep = game.step(state, actions)
            return (state, timestep.observation.action_mask), None

        state, timestep = game.reset(key)
        carry = state, timestep.observation.action_mask
        return jax.lax.scan(step, carry, jax.random.split(key, steps))[0][0]

    state = jax.device_get(played(jax.random.key(0)))
    file = io.BytesIO()
    pixels = np.asarray(game.render(state))
    Image.fromarray(pixels[..., :3].astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()


def pictures(metas: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """All pictures by their files' names."""
    return {picture_name(n): picture(n, meta.get("steps", 0)) for meta in metas for n in meta["pictures"]}
