import itertools
import math
import os

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba
from matplotlib.image import imread
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import Rectangle

from envs.errors import BadInputError
from envs.matrix_games import QTRAN_PAYOFF, two_gaussians_payoff
from jaxmarl_fac.report import figures
from jaxmarl_fac.report.styles import LABELS, STYLES, Style
from jaxmarl_fac.statistics import Interval, learning_curve


@pytest.fixture
def axes():
    return figures.panels()[1][0, 0]


@pytest.fixture(autouse=True)
def qmix_has_a_style(monkeypatch):
    """Whatever else the process has registered."""
    monkeypatch.setitem(STYLES, "qmix", Style("#123456", "--"))
    monkeypatch.setitem(LABELS, "qmix", "QMIX")
    monkeypatch.setitem(LABELS, "vdn", "vdn")


def render(axes):
    """Draw all there is, so that a warning or an error while drawing fails the test."""
    FigureCanvasAgg(axes.figure).draw()


# Files


def test_save_writes_the_picture_and_nothing_else(tmp_path):
    figure, axes = figures.panels(1, 2, size=(3, 2))
    assert axes.shape == (1, 2)
    axes[0, 0].set_facecolor("red")
    path = tmp_path / "picture.png"
    path.write_text("an older picture")
    figures.save(figure, path)
    assert os.listdir(tmp_path) == ["picture.png"]
    pixels = imread(path)  # (height, width, 4)
    assert 250 < pixels.shape[0] < 350  # 2 inches at 150 dpi, but for the margins
    assert (pixels[..., :3] == [1, 0, 0]).all(axis=-1).mean() > 0.2


def test_a_failing_save_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_text("an older picture")

    def fail(source, destination):
        assert os.path.getsize(source) > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BadInputError, match="No space left on device"):
        figures.save(figures.panels()[0], path)
    assert os.listdir(tmp_path) == ["picture.png"]
    assert path.read_text() == "an older picture"


def test_save_where_there_is_no_folder(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        figures.save(figures.panels()[0], tmp_path / "missing" / "picture.png")
    assert os.listdir(tmp_path) == []
    with pytest.raises(BadInputError, match=r"must end in \.png or \.pdf"):
        figures.save(figures.panels()[0], tmp_path / "picture.jpg")


# Tables with numbers


def test_annotated_matrix_draws_the_values(axes):
    labels = figures.utility_labels([3.84, -2.06, -0.001], "ABC")
    assert labels == ["3.84 (A)", "−2.06 (B)", "0.00 (C)"]
    figures.annotated_matrix(
        axes, QTRAN_PAYOFF, labels, ["A", "B", "C"], "payoff", value_format="{:.1f}", limits=(-12, 8)
    )
    render(axes)
    texts = {text.get_position(): text.get_text() for text in axes.texts}  # by (column, row)
    assert texts == {
        (column, row): ["8.0", "−12.0", "0.0"][[8, -12, 0].index(QTRAN_PAYOFF[row][column])]
        for row, column in itertools.product(range(3), repeat=2)
    }
    image = axes.images[0]
    np.testing.assert_array_equal(image.get_array(), QTRAN_PAYOFF)
    assert image.get_clim() == (-12, 8)
    assert axes.yaxis_inverted()  # the first row is on top
    assert [tick.get_text() for tick in axes.get_yticklabels()] == labels
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["A", "B", "C"]
    assert axes.get_title() == "payoff"


def test_annotated_matrix_frames_the_highlighted_cell(axes):
    figures.annotated_matrix(axes, np.zeros((2, 3)), "AB", "XYZ", "", highlight=(1, 2))
    render(axes)
    (frame,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert frame.get_bbox().extents.tolist() == [1.5, 0.5, 2.5, 1.5]  # column 2, row 1
    assert not frame.get_fill()


def test_annotated_matrix_without_highlight_frames_nothing(axes):
    figures.annotated_matrix(axes, np.zeros((2, 3)), "AB", "XYZ", "")
    assert not axes.patches


def test_annotated_matrix_numbers_are_readable(axes):
    values = np.linspace(0, 1, 60).reshape(6, 10)
    figures.annotated_matrix(axes, values, "ABCDEF", "ABCDEFGHIJ", "")

    def luminance(colour):  # WCAG 2
        rgb = np.array(to_rgba(colour)[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    inks = set()
    for text in axes.texts:
        column, row = text.get_position()
        paper, ink = luminance(colormaps["viridis"](values[row, column])), luminance(text.get_color())
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 4.5  # WCAG AA
        inks.add(text.get_color())
    assert inks == {"black", "white"}


def test_annotated_matrix_with_holes_and_with_one_value(axes):
    figures.annotated_matrix(axes, [[math.nan, -math.inf, 1]], "A", "XYZ", "")
    figures.annotated_matrix(axes, [[2, 2, 2]], "A", "XYZ", "")
    render(axes)
    assert [text.get_text() for text in axes.texts[:3]] == ["nan", "−inf", "1.00"]
    assert [text.get_color() for text in axes.texts[:2]] == ["black", "black"]


@pytest.mark.parametrize(
    ("values", "rows", "highlight", "message"),
    [
        (np.zeros(3), "A", None, "not shape"),
        (np.zeros((2, 3)), "ABC", None, "3 row and 3 column labels do not fit"),
        (np.zeros((2, 3)), "AB", (2, 0), "outside"),
        (np.zeros((2, 3)), "AB", (0, -1), "outside"),
    ],
)
def test_annotated_matrix_refuses(axes, values, rows, highlight, message):
    with pytest.raises(BadInputError, match=message):
        figures.annotated_matrix(axes, values, rows, "XYZ", "", highlight)


# Maps


def test_heat_map_has_agent_1_to_the_right_and_agent_2_upwards(axes):
    payoff = two_gaussians_payoff()
    figures.heat_map(axes, payoff, "payoff", mark=(5, 15))
    render(axes)
    image = axes.images[0]
    assert image.origin == "lower"
    assert image.get_extent() == [-0.5, 20.5, -0.5, 20.5]
    assert image.get_array()[15, 5] == 10  # [y, x]
    assert image.get_array()[5, 15] == 5
    assert image.get_clim() == (-40, 10)
    for line in axes.lines:
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (5, 15)
    assert len(axes.lines) == 2
    assert axes.get_title() == "payoff\nmarked: (5, 15)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("agent 1's action", "agent 2's action")


@pytest.mark.parametrize(
    ("limits", "extend"), [(None, "neither"), ((-10, 10), "min"), ((-40, 5), "max"), ((-10, 5), "both")]
)
def test_heat_map_s_colour_bar_shows_that_limits_cut_values_off(axes, limits, extend):
    figures.heat_map(axes, two_gaussians_payoff(), "", limits)
    render(axes)
    assert axes.images[0].colorbar.extend == extend
    assert not axes.lines


def test_heat_map_of_one_value_and_of_another_rank(axes):
    figures.heat_map(axes, np.full((3, 4), 2.0), "")
    render(axes)
    with pytest.raises(BadInputError, match="not shape"):
        figures.heat_map(axes, np.zeros((2, 2, 2)), "")
    with pytest.raises(BadInputError, match="outside"):
        figures.heat_map(axes, np.zeros((3, 4)), "", mark=(3, 0))


# Learning curves


def boxes_beside(axes):
    """The names of lines beside the axes, from the top, each with its box in pixels."""
    found = [child for child in axes.get_children() if isinstance(child, AnnotationBbox)]
    names = [box.offsetbox.get_children()[1].get_children()[0] for box in found]
    shown = [(name.get_text(), name.get_window_extent()) for name in names]
    return sorted(shown, key=lambda each: -each[1].y0)


def names_beside(axes):
    return [name for name, _ in boxes_beside(axes)]


def test_lines_on_one_another_have_names_that_do_not_overlap():
    """Also where there are more than fit beside their ends, and whatever the scale."""
    _, grid = figures.panels(1, 1, (5, 4))
    axes = grid[0, 0]
    curves = {f"a{index}": np.full((3, 2), 5.0 if index else 5000.0) for index in range(12)}
    axes.set(yscale="log", ylim=(1, 10_000))
    figures.learning_curves(axes, [0, 1, 2], curves)
    render(axes)
    boxes = [box for _, box in boxes_beside(axes)]
    assert names_beside(axes) == [f"a{index}" for index in range(12)]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    inside = axes.get_window_extent()
    assert all(inside.y0 - 9 < box.y0 and box.y1 < inside.y1 + 9 and box.x0 > inside.x1 for box in boxes)
    end = axes.transData.transform((2, 5000))[1]
    assert abs((boxes[0].y0 + boxes[0].y1) / 2 - end) < 6


def test_a_line_that_ends_in_nan_has_its_name_at_its_last_number(axes):
    figures.learning_curves(
        axes, [0, 1], {"a": [[0.0], [5.0]], "b": [[9.0], [math.nan]], "c": [[math.nan]] * 2}
    )
    render(axes)
    assert names_beside(axes) == ["b", "a", "c"]


def test_learning_curves_draw_iqm_and_band(axes):
    steps = np.array([0, 1000, 2000])
    curves = {
        "qmix": np.array([[0, 1, 2, 30], [1, 2, 3, 40], [2, 3, 4, 50]]),
        "vdn": np.full((3, 4), 7.0),
    }
    figures.learning_curves(axes, steps, curves, "steps", "reward", reference=8, title="game")
    render(axes)
    qmix, vdn, reference = axes.lines
    np.testing.assert_array_equal(qmix.get_xdata(), steps)
    np.testing.assert_array_equal(qmix.get_ydata(), [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(vdn.get_ydata(), [7, 7, 7])
    assert list(reference.get_ydata()) == [8, 8]
    assert (qmix.get_color(), qmix.get_linestyle()) == ("#123456", "--")

    _, low, high = learning_curve(curves["qmix"])
    corners = axes.collections[0].get_paths()[0].vertices
    for x, bottom, top in zip(steps, low, high, strict=True):
        heights = corners[corners[:, 0] == x, 1]
        assert (heights.min(), heights.max()) == pytest.approx((bottom, top))
    assert to_hex(axes.collections[0].get_facecolor()[0]) == "#123456"

    assert names_beside(axes) == ["optimum", "vdn", "QMIX"]  # by their ends, from the top
    assert axes.texts[-1].get_text() == "IQM, 95 % band\n4 seeds"
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("steps", "reward", "game")


def test_learning_curves_say_how_many_seeds_each_has(axes):
    curves = {"vdn": np.zeros((2, 3)), "qmix": np.zeros((2, 1))}
    figures.learning_curves(axes, [0, 2_000_000], curves)
    render(axes)
    assert names_beside(axes) == ["vdn (3 seeds)", "QMIX (1 seed)"]
    assert "2M" in [tick.get_text() for tick in axes.get_xticklabels()]


def test_learning_curves_of_runs_of_different_lengths(axes):
    curves = {"vdn": np.zeros((2, 3)), "qmix": np.ones((3, 3))}
    steps = {"vdn": [0, 10], "qmix": [0, 20, 40]}
    figures.learning_curves(axes, steps, curves, labels={"vdn": "_$vdn", "none": "x"})
    render(axes)
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 10], [0, 20, 40]]
    assert names_beside(axes) == ["QMIX", "_$vdn"]
    with pytest.raises(BadInputError, match="curve of qmix"):
        figures.learning_curves(axes, {"vdn": [0, 10], "qmix": [0, 20]}, curves)


def test_learning_curves_of_diverged_seeds_and_of_one_evaluation():
    _, grid = figures.panels(1, 2)
    figures.learning_curves(grid[0, 0], [0, 1], {"vdn": [[1, 2, 3], [1, math.nan, math.inf]]}, legend=False)
    figures.learning_curves(grid[0, 1], [0], {"vdn": [[1, 2, 3]]})
    render(grid[0, 0])
    np.testing.assert_array_equal(grid[0, 0].lines[0].get_ydata(), [2, math.nan])
    assert names_beside(grid[0, 0]) == [] and names_beside(grid[0, 1]) == ["vdn"]
    assert grid[0, 1].lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("steps", "curves"), [([0, 1], {}), ([0, 1], {"vdn": [1, 2]}), ([0, 1], {"vdn": [[1, 2]]})]
)
def test_learning_curves_refuse(axes, steps, curves):
    with pytest.raises(BadInputError, match="curve"):
        figures.learning_curves(axes, steps, curves)


# Bars


def test_bar_counts_draw_paper_beside_ours(axes):
    values = {"paper": [114, 177], "ours": [120, 160.5]}
    intervals = {"ours": [Interval(120, 103, 138), None]}
    figures.bar_counts(axes, ["same", "better"], values, intervals, ylabel="games", title="table 6")
    render(axes)
    bars = [
        (round(bar.get_x() + bar.get_width() / 2, 9), bar.get_height())
        for container in axes.containers
        for bar in container
    ]
    assert bars == [(-0.2, 114), (0.8, 177), (0.2, 120), (1.2, 160.5)]
    (whisker,) = axes.collections
    np.testing.assert_allclose(whisker.get_segments()[0], [[0.2, 103], [0.2, 138]])
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights == {"114": 114, "177": 177, "120": 138, "160.5": 160.5}  # above bar and whisker
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["same", "better"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["paper", "ours"]
    assert axes.get_ylim()[1] > 177
    assert (axes.get_ylabel(), axes.get_title()) == ("games", "table 6")


def test_bar_counts_of_algorithms_missing_and_negative_values(axes):
    figures.bar_counts(
        axes, ["a", "b"], {"qmix": [-1.5, math.nan]}, {"qmix": [Interval(-1.5, -2, math.nan), None]}
    )
    render(axes)
    assert [text.get_text() for text in axes.texts] == ["−1.5"]
    assert not axes.collections
    assert to_hex(axes.containers[0][0].get_facecolor()) == "#123456"
    assert axes.get_legend() is None


def test_bars_in_given_colours(axes):
    figures.bar_counts(axes, ["a"], {"qmix": [1], "other": [2]}, colours={"other": "#654321"})
    assert [to_hex(bars[0].get_facecolor()) for bars in axes.containers] == ["#123456", "#654321"]


@pytest.mark.parametrize(
    ("values", "intervals"),
    [
        ({"ours": [1]}, None),
        ({"ours": [1, 2]}, {"ours": [None]}),
        ({"ours": [1, 2]}, {"theirs": [None, None]}),
    ],
)
def test_bar_counts_refuse(axes, values, intervals):
    with pytest.raises(BadInputError, match="2 groups"):
        figures.bar_counts(axes, ["a", "b"], values, intervals)
