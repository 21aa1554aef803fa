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
from pathlib import Path

import torch

from experiments.continued.drawn import drawn_pack
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
        "grey": score(features, labels, tenths=True, asked=grey, jobs=jobs),
    }
    assert tuple(scores) == BUDGETS
    return scores


def run(laboratory: Laboratory, outcomes: Path, jobs: int, archive: Path | None) -> None:
    """Run every job without a stored outcome.

    Args:
        archive: File that holds all outcomes after each job; None: none.
    """
    write_labels(outcomes, {half: laboratory.part(half, unseen=True).labels.cpu().numpy() for half in HALVES})
    todo = remaining(jobs_of(laboratory.profile), outcomes)
    starts: dict[str, tuple[torch.nn.Module, list[float]]] = {}
    for place, job in enumerate(todo, start=1):
        began = time.monotonic()
        if job.half not in starts:
            starts[job.half] = train_start(laboratory, job.half)
        start, recalls = starts[job.half]
        encoder = train_arm(laboratory, copy.deepcopy(start), job)
        if job.arm == START:
            about = {f"stage{stage}": recall for stage, recall in enumerate(recalls)}
        else:
            about = {}
        write(job.path(outcomes), scored(laboratory, encoder, job.half, jobs), about)
        if archive is not None:
            pack_outcomes(outcomes, archive)
        seconds = time.monotonic() - began
        print(f"{place} of {len(todo)}: {job.arm}, half {job.half}, seed {job.seed}, {seconds:.0f} s", file=sys.stderr)


def main() -> None:
    """Parse the command line; run, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help=f"file of experiments.continued.pack; default: {CARRIED}")
    parser.add_argument("--gpu", action="store_true", help="use the GPU and the larger networks")
    parser.add_argument("--tiny", action="store_true", help="use tiny networks; without --pack on drawn images")
    parser.add_argument("--out", type=Path, default=Path("runs") / "continued", help="folder of unfinished runs")
    parser.add_argument("--outcomes", type=Path, help="folder of the outcomes; default: beside this module")
    parser.add_argument("--archive", type=Path, help="file.tar that holds all outcomes after each job; default: none")
    parser.add_argument("--tables", action="store_true", help="only print the tables")
    given = parser.parse_args()
    profile: Profile = CPU
    if given.tiny:
        profile = TINY
    elif given.gpu:
        profile = GPU
    is_rehearsal = given.tiny or given.gpu
    outcomes = given.outcomes or (given.out / "outcomes" if is_rehearsal else HERE / "outcomes")
    if not given.tables:
        device = setup_device(HardwareConfig(device="cuda" if given.gpu and not given.tiny else "cpu"))
        if given.tiny and given.pack is None:
            pack = drawn_pack()
        else:
            pack = Pack.read(given.pack or CARRIED)
        laboratory = Laboratory(profile, Images.of(pack, device), torch.from_numpy(pack.half), given.out / profile.name)
        run(laboratory, outcomes, 1 if given.tiny else usable_cores(), given.archive)
    print_tables(outcomes, profile)


if __name__ == "__main__":
    main()
