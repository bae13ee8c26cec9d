"""Draw quality against the time of training, from a table of measured trainings.

    python experiments/frontier.py docs/frontier.csv docs/frontier.png

The table has the columns `data`, `kind`, `name`, `seconds` (of processor, the whole command), `half` (those of the 50%
head on the same machine in the same hours) and `quality`, a line a training; each value of `data` has a plot of its
own, and the points of one `kind` a line. Times are drawn as `seconds` divided by `half`.
"""

import argparse
import math
from pathlib import Path

import matplotlib
import pandas

COLUMNS = 2
COLOURS = {
    "cuts": "#9e2a2b",
    "cuts, more epochs": "#6d6875",
    "ladders": "#0b6e4f",
    "adapters": "#e09f3e",
    "pooled": "#3d5a80",
}


def draw(table: pandas.DataFrame, target: Path) -> None:
    """A plot for each data set, two beside each other."""
    matplotlib.use("Agg")
    table = table.assign(time=table["seconds"] / table["half"])
    from matplotlib import pyplot

    sets = list(dict.fromkeys(table["data"]))
    lines = math.ceil(len(sets) / COLUMNS)
    figure, axes = pyplot.subplots(lines, COLUMNS, figsize=(7 * COLUMNS, 4.5 * lines), squeeze=False)
    for axis in axes.flat[len(sets) :]:
        axis.set_visible(False)
    for axis, data in zip(axes.flat, sets, strict=False):
        own = table[table["data"] == data]
        for kind, points in own.groupby("kind", sort=False):
            points = points.sort_values("time")
            joined = "-" if kind in ("cuts", "ladders") else ""
            axis.plot(points["time"], points["quality"], f"o{joined}", color=COLOURS[kind], label=kind)
            last, rightmost = points["time"].max(), own["time"].max()
            for name, x, y in zip(points["name"], points["time"], points["quality"], strict=True):
                # Ladders lie close together: all but the slowest have their names on the left.
                if kind != "ladders" and x == rightmost:
                    offset, side = (0, -14), "center"
                elif kind != "ladders":
                    offset, side = (6, -11), "left"
                elif x < last:
                    offset, side = (-7, -3), "right"
                else:
                    offset, side = (6, 5), "left"
                axis.annotate(name, (x, y), xytext=offset, ha=side, textcoords="offset points", fontsize=8)
        axis.margins(0.15)
        axis.set_xlim(left=-0.12 * own["time"].max())
        axis.set_title(data)
        axis.set_xlabel("time of training, 50% head = 1")
        axis.grid(alpha=0.3)
        axis.legend(loc="best")
    for axis in axes[:, 0]:
        axis.set_ylabel("on the test set")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Read the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    draw(pandas.read_csv(options.table), options.image)


if __name__ == "__main__":
    main()
