"""Adapt the package's models to altered photographs. The trial was not adopted, see docs/notes.md.

Run: python -m recipes.adaptation --fi fi:fi,fi:fi_more --check check.json --splits splits.json --unlabelled KIND:PATH

check.json is the output of `uniemox data check DATA --json`; splits.json has the images that calibrate the models as
split val, and FI's validation part as test. Each model is trained on altered copies of the training images, and of
images without labels; half of the target is the answer of `embedded` for the plain image. Writes runs/adaptation and
prints the scores on the test split. `python -m recipes.robustness --model runs/adaptation/scene.onnx fi:fi` compares.
"""

import argparse
from pathlib import Path

from recipes.embedded import JUDGING, LOGIT_ADJUSTMENT, STORED, TRAINING, uniemox

OUT = Path("runs/adaptation")
STARTS = {"scene": "embedded", "small": "small"}
ADAPTATION = (
    *(*TRAINING, "--schedule.epochs", "2", "--schedule.warmup-epochs", "0.2"),
    *("--optimizer.base-lr", "1e-3", "--augment.altered", "0.5", "--distillation.teacher", "embedded"),
)


def main() -> None:
    """Adapt both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fi", required=True, help="KIND:PATH of FI, several with commas between")
    parser.add_argument("--check", required=True, type=Path, help="output of uniemox data check --json")
    parser.add_argument("--splits", required=True, type=Path, help="file of splits with the images of the build")
    parser.add_argument(
        "--unlabelled", required=True, help="KIND:PATH of further photographs, several with commas between"
    )
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    data = ("--data", args.fi, "--exclude", args.check, "--splits", args.splits)
    # Each step is skipped if its result exists, so a stopped program resumes when it is started again.
    for name, start in STARTS.items():
        adapted = OUT / f"{name}-adapted"
        run = OUT / name
        model = OUT / f"{name}.onnx"
        options = ("--init", start, "--out", adapted, *data, "--monitor", "val", *ADAPTATION, *LOGIT_ADJUSTMENT)
        uniemox("finetune", *options, "--distillation.data", args.unlabelled, "--resume", makes=adapted / "model.onnx")
        # The adapted network is judged on larger images than it was trained on, like its parts.
        options = ("--method", "mean", "--init", adapted, "--out", run, *data, "--monitor", "val", *JUDGING)
        uniemox("finetune", *options, "--select", "last", "--resume", makes=run / "model.onnx")
        uniemox("export", run, "--out", model, *STORED[name], makes=model)
        options = ("--model", model, *data, "--split", "test", "--name", name)
        uniemox("evaluate", *options, makes=OUT / "evaluations" / f"{name}.json")


if __name__ == "__main__":
    main()
