"""Does continuing a saturated start with the full objective help? See PLAN.md.

python -m experiments.continued --tables                        the tables, from the stored outcomes
python -m experiments.continued --pack pack.npz                 all runs on this machine's CPU; resumes
python -m experiments.continued --pack pack.npz --gpu           the same with larger networks on a GPU
python -m experiments.continued --tiny                          a rehearsal on drawn images, in seconds
"""

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.continued.drawn import drawn_pack
from experiments.continued.figure import draw_contrasts
from experiments.continued.outcomes import pack_outcomes, write, write_labels
from experiments.continued.pack import Pack
from experiments.continued.plan import BUDGETS, CPU, GPU, HALVES, START, TINY, Profile, jobs_of
from experiments.continued.probe import Scores, features_of, score
from experiments.continued.tables import print_tables
from experiments.continued.tensors import Images
from experiments.continued.training import Laboratory, remaining, train_arm, train_start
from uniemox.io.parallel import usable_cores
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import setup_device

HERE = Path(__file__).parent
# benchmarks/gpu/prepare.py carries this file to a machine with a GPU.
CARRIED = Path("build") / "gpu" / "pack.npz"


def scored(laboratory: Laboratory, encoder: torch.nn.Module, half: str, jobs: int) -> dict[str, Scores]:
    """Score an encoder on the half that it never saw, by budget."""
    images = laboratory.part(half, unseen=True)
    side = laboratory.profile.side_px
    labels = images.labels.cpu().numpy()
    features = features_of(encoder, images, side)
    grey = features_of(encoder, images, side, grey=True)
    scores = {
        "tenth": score(features, labels, tenths=True, jobs=jobs),
        "all": score(features, labels, tenths=False, jobs=jobs),
        "grey": score(features, labels, tenths=True, scored_features=grey, jobs=jobs),
    }
    assert tuple(scores) == BUDGETS
    return scores


def run(laboratory: Laboratory, halves: Sequence[str], outcomes: Path, jobs: int, archive: Path | None) -> None:
    """Run every job without a stored outcome.

    Args:
        laboratory: Images, sizes and folders.
        halves: Halves on which is trained; the jobs of others are left out.
        outcomes: Folder of the outcomes.
        jobs: Number of processes that fit probes.
        archive: File that contains all outcomes after each job; None: write no archive.
    """
    write_labels(outcomes, {half: laboratory.part(half, unseen=True).labels.cpu().numpy() for half in HALVES})
    jobs_left = [job for job in remaining(jobs_of(laboratory.profile), outcomes) if job.half in halves]
    starts: dict[str, tuple[torch.nn.Module, list[float]]] = {}
    for number, job in enumerate(jobs_left, start=1):
        start = time.monotonic()
        if job.half not in starts:
            starts[job.half] = train_start(laboratory, job.half)
        encoder_start, recalls = starts[job.half]
        encoder = train_arm(laboratory, copy.deepcopy(encoder_start), job)
        figures = {f"stage{stage}": recall for stage, recall in enumerate(recalls)} if job.arm == START else {}
        write(job.path(outcomes), scored(laboratory, encoder, job.half, jobs), figures)
        if archive is not None:
            pack_outcomes(outcomes, archive)
        seconds = time.monotonic() - start
        print(
            f"{number} of {len(jobs_left)}: {job.arm}, half {job.half}, seed {job.seed}, {seconds:.0f} s",
            file=sys.stderr,
        )


def main() -> None:
    """Parse the command line; run, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help=f"file of experiments.continued.pack; default: {CARRIED}")
    parser.add_argument("--gpu", action="store_true", help="use the GPU and the larger networks")
    parser.add_argument("--tiny", action="store_true", help="use tiny networks; without --pack on drawn images")
    parser.add_argument("--half", choices=HALVES, help="train on this half only: two processes can share the work")
    parser.add_argument("--out", type=Path, default=Path("runs") / "continued", help="folder of unfinished runs")
    parser.add_argument("--outcomes", type=Path, help="folder of the outcomes; default: beside this module")
    parser.add_argument("--archive", type=Path, help="file.tar that holds all outcomes after each job; default: none")
    parser.add_argument("--tables", action="store_true", help="only print the tables")
    parser.add_argument("--figure", type=Path, help="with --tables: SVG file for the figure of the contrasts")
    args = parser.parse_args()
    profile: Profile = CPU
    if args.tiny:
        profile = TINY
    elif args.gpu:
        profile = GPU
    is_rehearsal = args.tiny or args.gpu
    outcomes = args.outcomes or (args.out / "outcomes" if is_rehearsal else HERE / "outcomes")
    if not args.tables:
        on_gpu = args.gpu and not args.tiny
        device = setup_device(HardwareConfig(device="cuda" if on_gpu else "cpu"))
        pack = drawn_pack() if args.tiny and args.pack is None else Pack.read(args.pack or CARRIED)
        laboratory = Laboratory(profile, Images.of(pack, device), torch.from_numpy(pack.half), args.out / profile.name)
        halves = HALVES if args.half is None else (args.half,)
        processes = 1 if args.tiny else usable_cores()
        run(laboratory, halves, outcomes, processes, args.archive)
    print_tables(outcomes, profile)
    if args.figure:
        draw_contrasts(outcomes, profile, args.figure)


if __name__ == "__main__":
    main()
