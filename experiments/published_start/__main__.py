"""Does a published start gain from the full objective, and more than from distillation alone? See PLAN.md.

python -m experiments.published_start --tables       the tables, from the stored outcomes, in seconds
python -m experiments.published_start --pack pack.npz --start start.safetensors \
    --classes Emotion6=emotion6:PATH --ratings 'OASIS=csv:oasis/ratings.csv?scale=1-7'
                                                     all runs on this machine's CPU; resumes
... --gpu                                            the same at 224 px on a GPU
python -m experiments.published_start --tiny         a rehearsal on drawn images with random weights, in seconds
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from experiments.continued.transfer import OtherData, named, with_classes, with_ratings
from experiments.published_start.drawn import drawn_pack
from experiments.published_start.pack import Pack
from experiments.published_start.plan import CHOICE, CPU, GPU, HELD_OUT, SCORED, TINY, TRAIN, UNLABELLED, Study
from experiments.published_start.running import choose_rates, run_arms, score_baselines
from experiments.published_start.start import build, load
from experiments.published_start.tables import print_tables
from experiments.published_start.training import Workshop
from uniemox.data.source import open_data
from uniemox.io.parallel import usable_cores
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import fast_precision, setup_device

HERE = Path(__file__).parent


def other_data(classes: list[str], ratings: list[str]) -> list[OtherData]:
    """Open NAME=KIND:PATH of data with one label per image, and of data with valence and arousal."""
    data = []
    for name, source in map(named, classes):
        data.append(with_classes(open_data(source), name))
    for name, source in map(named, ratings):
        data += with_ratings(open_data(source), name)
    return data


def main() -> None:
    """Parse the command line; run, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help="file of experiments.published_start.pack")
    parser.add_argument("--start", type=Path, help="file of experiments.published_start.start")
    parser.add_argument("--classes", nargs="*", default=[], help="NAME=KIND:PATH of data with one label per image")
    parser.add_argument("--ratings", nargs="*", default=[], help="NAME=KIND:PATH of data with valence and arousal")
    parser.add_argument("--gpu", action="store_true", help="run at 224 px on a GPU; the pack needs --side 224")
    parser.add_argument("--tiny", action="store_true", help="rehearse on drawn images")
    parser.add_argument("--threads", type=int, help="threads of training; default: one per core")
    parser.add_argument("--out", type=Path, default=Path("runs") / "published_start", help="folder of weights")
    parser.add_argument("--outcomes", type=Path, help="folder of the outcomes; default: next to this module")
    parser.add_argument("--tables", action="store_true", help="only print the tables")
    args = parser.parse_args()
    study: Study = CPU
    if args.tiny:
        study = TINY
    elif args.gpu:
        study = GPU
    outcomes = args.outcomes or (HERE / "outcomes" if study is CPU else args.out / study.profile.name / "outcomes")
    if not args.tables:
        if not args.tiny and (args.pack is None or args.start is None):
            parser.error("give --pack and --start, or --tables, or --tiny")
        device = setup_device(HardwareConfig(device="cuda" if study is GPU else "cpu", threads=args.threads))
        pack = drawn_pack() if args.tiny else Pack.read(args.pack)
        parts = (TRAIN, CHOICE, SCORED, HELD_OUT, UNLABELLED)
        side_px = study.profile.side_px
        torch.manual_seed(0)
        start = build(side_px, **study.profile.encoder) if args.tiny else load(args.start, side_px)
        profile = replace(study.profile, precision=fast_precision(device.type))
        workshop = Workshop(
            replace(study, profile=profile),
            start.to(device),
            {part: pack.images([part], device) for part in parts},
            args.out / study.profile.name,
        )
        processes = 1 if args.tiny else args.threads or usable_cores()
        score_baselines(workshop, outcomes, processes)
        choose_rates(workshop, outcomes, processes)
        run_arms(workshop, other_data(args.classes, args.ratings), outcomes, processes)
    print_tables(outcomes, study)


if __name__ == "__main__":
    main()
