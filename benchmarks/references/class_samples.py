"""Class samples of networks of ten classes under references, learned ones among them.

    python -m ppl_cnn.data prepare fashion_mnist
    python -m benchmarks.references.class_samples runs/references            # all cases
    python -m benchmarks.references.class_samples runs/references chains     # names that begin so
    python -m benchmarks.references.class_samples runs/digits --data mnist --generator runs/mnist

A case is a network, a target, a reference, a temperature and a way of sampling. The ways: weights
(importance weights of a reference's draws: ESS, log Z against what the network's training implies,
resampled draws), chains (from two sides: R-hat, effective draws) and langevin (moves in the space
of pixels without a reference, as JEM's). All classes of a network are sampled, and a residual
network judges them, which has seen none of the samples and none of the images that the generator,
the LeNets or the judged comparisons are made with (`ten_classes.py`). It and the LeNets are trained
by the first run.

The folder gets lines.jsonl, a JSON object for each case; cases that are there are not run again.
Then tables.md is made from them and, of the draws of the first case with a file, class_samples.png:
chains under the generator before weights.
"""

from pathlib import Path

from benchmarks.common import add_line, command_line, missing, read_lines, say
from benchmarks.references import chains, langevin, weighing
from benchmarks.references.study import OBJECTIVES, Study
from benchmarks.references.tables import picture, tables
from benchmarks.references.ten_classes import DATA, TOY

REAL = "real"
"""The name of the line of real images."""
PICTURED = (
    next(chains.all_cases()).name,
    weighing.Weighed("generative", "logit", "generator", 1.0).name,
    next(chains.toy_cases()).name,
)
"""Cases whose draws make the picture; it is of the first that has been run."""


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wanted", nargs="*", help="beginnings of cases' names; all by default")
    parser.add_argument("--data", choices=DATA, default="fashion_mnist")
    parser.add_argument("--generator", default="fashion", help="the learned reference")
    options = parser.parse_intermixed_args()
    folder = options.folder / "toy" if options.toy else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    data = TOY if options.toy else DATA[options.data]
    record, study = folder / "lines.jsonl", Study(folder, data, options.generator, options.toy)
    ways = (weighing, chains, langevin)
    every = [each for way in ways for each in (way.toy_cases if options.toy else way.all_cases)()]
    cases = {each.name: each for each in every if _is_wanted(each, options)}
    for name in missing(record, [REAL, *cases], lambda line: line["name"]):
        found = study.real_line() if name == REAL else cases[name].measured(study)
        line = {"name": name, "data": data.name, "generator": options.generator, **found}
        add_line(record, line)
        say(**line)
    lines = read_lines(record)
    (folder / "tables.md").write_text(tables(lines), "utf-8")
    picture(study, PICTURED)


def _is_wanted(case, options):
    """Whether the network is one of the data, and the name begins as is asked."""
    fits = options.toy or options.data == "fashion_mnist" or case.network in OBJECTIVES
    asked = not options.wanted or any(case.name.startswith(each) for each in options.wanted)
    return fits and asked


if __name__ == "__main__":
    main()
