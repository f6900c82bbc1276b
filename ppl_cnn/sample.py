"""Samples the image density of units of a trained CNN, and reports the draws with diagnostics.

The density is p(x) ∝ exp(f(x)/T) q(x): f is the unit's response, q the reference. The run's
folder holds draws.zarr (ArviZ's layout), run.json, report.html, images/ and summary.csv. Several
units get a folder each, and one report.html. Filters under the network's own reference are also
sampled under the published setting, into the folder's published/.

Examples:
    python -m ppl_cnn.sample --unit conv5:12 --chains 8
    python -m ppl_cnn.sample --unit conv5:0-15,conv2:40 --chains 4
    python -m ppl_cnn.sample --unit conv2 --chains 4 --draws 200 --exemplars fashion-embedded
    python -m ppl_cnn.sample --model runs/lenet --unit fc4:3 --kernel nuts --out runs/dress
    python -m ppl_cnn.sample --model alexnet --weights bvlc_alexnet.caffemodel --unit class:goldfish
    python -m ppl_cnn.sample --model squeezenet1.1 --weights auto --unit class:banana --preset vivid
    python -m ppl_cnn.sample --unit class:Bag --reference data:fashion-embedded
    python -m ppl_cnn.sample --unit conv5:12 --chains 64 --dry-run --for h200
"""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ppl_cnn.errors import ArgumentError
from ppl_cnn.machines.processes import Processes
from ppl_cnn.options.command import run_command
from ppl_cnn.options.densities import DensityOptions, Named
from ppl_cnn.options.overrides import overrides_of
from ppl_cnn.options.presets import FROM_PRESET, FromPreset, default_hint

if TYPE_CHECKING:
    from ppl_cnn.inference.sampling.methods import Method
    from ppl_cnn.inference.sampling.resampling.scorer import Density
    from ppl_cnn.inference.sampling.resampling.settings import Resampling
    from ppl_cnn.inference.sampling.settings import Sampling


@dataclass(frozen=True)
class SampleOptions(DensityOptions):
    """Options."""

    kernel: Annotated[
        str | FromPreset | None,
        tyro.conf.arg(
            metavar="STR",
            help_behavior_hint=default_hint(
                "kernel", "split, isir under a generator, resample under data"
            ),
        ),
    ] = FROM_PRESET
    """How draws are made. split is HMC that solves the reference exactly, so that larger images
    need no shorter step; where its warm-up finds the tilt weak, it draws from pools of draws of the
    reference or turns the latent, by forward passes alone, and split(moves=trajectories) never
    does; where kinks of the network limit the step, it follows a softened force, and
    split(force=exact) never does. isir takes forward passes alone: from the end of its warm-up on
    it draws from such pools, if enough draws of the reference count; else a chain chooses among its
    latent and N draws of the reference (isir:N, by default 12), and then turns the latent. It is
    for tilts that some draws of the reference suit, as with a learned reference at T = 1.
    tempered (or tempered:R, with R rungs, by default 16) exchanges replicas between the reference
    and the density, at R times the cost, for densities whose chains stay where they started. hmc is
    NumPyro's HMC with trajectories of jittered length, nuts its NUTS. blackjax:NAME is a kernel of
    blackjax, such as blackjax:mgrad_gaussian, and numpyro:NAME one of NumPyro. langevin is
    approximate: one gradient a step and no rejection, for a look before sampling; the report never
    calls its draws good, and shows what a step of half the size changes. NAME(SETTING=VALUE, ...),
    as in records, gives settings: split(step_size=0.006, angle=0.15) begins to adapt with steps and
    trajectories of so many radians. resample (or resample:N) is no chain: it weighs N draws of the
    reference, by default 10,000, by exp(f/T) and draws from them by their weights, independently
    and without gradients. It serves where the tilt is mild, and is refused where fewer than 50
    draws are effective."""
    chains: int = 8
    """Chains of each unit, run side by side; with resample, rows of independent draws."""
    start: Annotated[
        str | FromPreset | None,
        tyro.conf.arg(
            aliases=["--init"],
            metavar="STR",
            help_behavior_hint=default_hint("start", "prior, or rto with --two-sided"),
        ),
    ] = FROM_PRESET
    """Where chains start. prior: each at its own draw of the reference. rto or rto:STEPS: at the
    optimum next to such a draw, by STEPS gradients, 600 if not given. anneal or anneal:M: at an
    approximate draw of the density, by M particles that climb to it from the reference, 16 if not
    given. resample or resample:N: at draws by importance resampling from N draws of the reference,
    1,000 if not given. zero: at the mean image. image:FILE,FILE,...: at photographs, in turn;
    the name of a file that exists may have commas.
    run:FOLDER: at another run's last draws."""
    two_sided: bool = False
    """Start half of the chains at draws of the reference, the other half as --start says, by
    default rto. The report then tells whether both halves agree."""
    draws: Annotated[
        int | FromPreset, tyro.conf.arg(metavar="INT", help_behavior_hint=default_hint("draws"))
    ] = FROM_PRESET
    """Kept draws per chain. A run that has ended is extended by giving more."""
    warmup: Annotated[
        int | FromPreset, tyro.conf.arg(metavar="INT", help_behavior_hint=default_hint("warmup"))
    ] = FROM_PRESET
    """Transitions at the start that adapt the kernel. They are not kept."""
    thin: int = 1
    """Transitions per kept draw."""
    target_accept: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="FLOAT", help_behavior_hint="(default: the kernel's, 0.65 for split, else 0.8)"
        ),
    ] = None
    """Mean acceptance probability that the step size is adapted to."""
    side_by_side: int | None = None
    """Largest number of units sampled in one batch; by default as many as fit into about 4 GB, or
    into half of a GPU's memory."""
    seed: int = 0
    """The same seed gives the same bits."""
    beside: Annotated[
        Literal["published", "none"] | None,
        tyro.conf.arg(
            help_behavior_hint="(default: published for filters under the network's own reference)"
        ),
    ] = None
    """What else is sampled of the same units. published: the published setting (--preset published,
    by split), into FOLDER/published, with the same chains, draws, warm-up and seed; the report ends
    with it. none: nothing."""
    exemplars: str | None = None
    """A folder of photographs, or a data set as NAME[@SPLIT] or folder:PATH. The report shows the
    nine images to which each unit responds most, cropped to its receptive field, beside the draws.
    A filter at the centre of its map is sought at all places of the map."""
    save: Literal["gif", "mp4"] | None = None
    """Also write an animation of the chains' draws, images/draws.gif or draws.mp4 in each unit's
    folder. mp4 needs the program ffmpeg."""
    out: Path | None = None
    """The run's folder (default: runs/MODEL-UNIT-KERNEL). The same command resumes a run that was
    stopped."""
    precision: Literal["default", "high", "highest"] = "highest"
    """How exact products are on devices that have less than float32's. highest: float32. default:
    as fast as the device can, on GPUs TF32, which lowers acceptance at low temperatures. high:
    between the two."""
    deterministic: bool = False
    """On a GPU, compute to the same bits at each run, which takes longer; CPUs do so in any case.
    Compiled programs are kept in the run's folder."""
    processes: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Processes), name="")
    ] = field(default_factory=dict)
    """What is given of `Processes`."""
    profile: bool = False
    """Trace what devices and host do, into the run's folder profile/, for TensorBoard, XProf or
    Perfetto. The trace of a long run is large: give few --draws."""
    dry_run: bool = False
    """Compile the programs and print what they need, without sampling."""
    machine: Annotated[str | None, tyro.conf.arg(name="for", metavar="GPU")] = None
    """With --dry-run: compile for this machine in place of the devices here: a100, h100 or h200,
    with a number of GPUs such as h100:8. That needs ppl_cnn[cuda-compile], but no GPU."""

    def check(self) -> None:
        """Refuses what can't be sampled or reported, before the network is opened.

        Raises:
            InputError: a setting is out of range, or unknown.
        """
        from ppl_cnn.inference.diagnostics.thresholds import MIN_DRAWS
        from ppl_cnn.inference.sampling.methods import parse_method

        values = self.values()
        self.settings(parse_method(values.kernel or "split"))
        if values.draws < MIN_DRAWS:
            raise ArgumentError(
                f"The report needs `draws={MIN_DRAWS}` or more per chain, not {values.draws}.",
                argument="draws",
            )

    @property
    def starts(self) -> str:
        """The start that --start and --two-sided name together."""
        start = self.values().start
        if self.two_sided:
            return f"two-sided:{start or 'rto'}"
        return start or "prior"

    def method(self, density: "Density") -> "Method":
        """How the density is sampled; a preset's kernel is for chains.

        Raises:
            InputError: no kernel has that name, or it doesn't fit the density.
        """
        from ppl_cnn.inference.sampling.methods import method_for
        from ppl_cnn.models.empirical_density import EmpiricalDensity

        if self.kernel is FROM_PRESET and isinstance(density, EmpiricalDensity):
            return method_for(density, None)
        return method_for(density, self.values().kernel)

    def settings(self, method: "Method") -> "Sampling | Resampling":
        """The run's settings.

        Raises:
            InputError: a setting is out of range, or the start is unknown or doesn't fit.
        """
        from ppl_cnn.inference.sampling.methods import settings_for
        from ppl_cnn.inference.sampling.resampling.settings import Resample
        from ppl_cnn.inference.sampling.starts.registry import parse_start

        # A preset's start is for chains.
        given = self.two_sided or self.start is not FROM_PRESET
        unstarted = isinstance(method, Resample) and not given
        return settings_for(
            method,
            chains=self.chains,
            warmup=self.values().warmup,
            thin=self.thin,
            target_accept=self.target_accept,
            seed=self.seed,
            start=parse_start("prior" if unstarted else self.starts),
        )

    def published(self, out: Path) -> "SampleOptions":
        """The options of a run of the same units under the published setting.

        Args:
            out: the folder of the run beside which it lies.
        """
        from ppl_cnn.inference.runs.record import PUBLISHED

        values = self.values()
        return SampleOptions(
            unit=self.unit,
            model=self.model,
            weights=self.weights,
            pixels=self.pixels,
            classes=self.classes,
            entry=self.entry,
            flatten=self.flatten,
            response=self.response,
            preset="published",
            chains=self.chains,
            draws=values.draws,
            warmup=values.warmup,
            thin=self.thin,
            target_accept=self.target_accept,
            side_by_side=self.side_by_side,
            seed=self.seed,
            out=out / PUBLISHED,
            precision=self.precision,
            deterministic=self.deterministic,
        )


def main(options: SampleOptions) -> None:
    """Samples, also what is to be seen beside it, writes the report and prints its path."""
    from ppl_cnn.machines.arithmetic import repeatable

    if options.deterministic:
        repeatable()
    if options.dry_run:
        print(needed(options))
        return
    if options.machine is not None:
        raise ArgumentError("`for` needs `dry_run`: a run takes the devices here.", argument="for")
    with Processes(**options.processes).together():
        run(options)


def run(options: SampleOptions) -> None:
    """Samples with the other processes, if there are any; process 0 does what follows."""
    from ppl_cnn.inference.report.animated import animate
    from ppl_cnn.inference.report.page import report
    from ppl_cnn.inference.report.pictures.animation import check_animation
    from ppl_cnn.inference.sampling.exemplars.search import find_exemplars
    from ppl_cnn.inference.sampling.exemplars.sources import parse_source
    from ppl_cnn.machines.messages import leads

    if options.save is not None:
        check_animation(options.save)
    source = None if options.exemplars is None else parse_source(options.exemplars)
    named, out = sampled(options)
    if source is not None and leads():
        find_exemplars(out, named.network, named.units, source)
    usual = "published" if named.is_own and not named.has_classes else "none"
    if (options.beside or usual) == "published":
        sampled(options.published(out))
    if not leads():
        return
    page = report(out)
    if options.save is not None:
        animate(out, options.save)
    print(page)


def needed(options: SampleOptions) -> str:
    """What sampling would need, in lines.

    Raises:
        InputError: the options can't be used.
    """
    from ppl_cnn.inference.sampling.dry_run import dry_run
    from ppl_cnn.machines.described import Machine

    machine = None if options.machine is None else Machine.parse(options.machine)
    named = options.named()
    settings = options.settings(options.method(named.densities[0]))
    options.print_values(named.choices)
    return dry_run(
        named.densities,
        settings,
        machine=machine,
        precision=options.precision,
        side_by_side=options.side_by_side,
        deterministic=options.deterministic,
    )


def sampled(options: SampleOptions) -> tuple[Named, Path]:
    """Samples, or resumes; returns what the options name and the run's folder.

    Raises:
        InputError: the options can't be used, or the folder holds another run.
    """
    from ppl_cnn.inference.sampling.driver import Origin, sample_to
    from ppl_cnn.machines.arithmetic import keep_programs
    from ppl_cnn.machines.messages import leads
    from ppl_cnn.machines.profile import traced

    options.check()
    named = options.named()
    method = options.method(named.densities[0])
    settings = options.settings(method)
    if leads():
        options.print_values(named.choices)
    # The preset's name, a part of the folder's, stands for its kernel's settings.
    text = method.name if options.kernel is FROM_PRESET else str(method)
    out = options.out or options.folder(text, named.target)
    command = shlex.join(["python", "-m", "ppl_cnn.sample", *sys.argv[1:]])
    if options.deterministic:
        keep_programs(out / ".programs")
    with traced(out / "profile" if options.profile else None):
        sample_to(
            named.densities,
            settings,
            out,
            draws=options.values().draws,
            precision=options.precision,
            origin=Origin(options.model_in_record, named.description, command),
            side_by_side=options.side_by_side,
        )
    if named.fitted is not None and leads():
        named.fitted.save(out / "spectral.json")
    return named, out


if __name__ == "__main__":
    run_command(SampleOptions, main, prog="python -m ppl_cnn.sample", description=__doc__)
