"""Tune a model by settings, look at the result, and continue the run."""

import argparse
import tempfile
from pathlib import Path

import mezo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    settings = dict(
        model=given.model, task="demo", tuning="lora", learning_rate=1e-3, epsilon=1e-2, batch_size=8
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = mezo.MeZOConfig.build(**settings, num_steps=given.steps, eval_examples=20)
        result = mezo.MeZOTrainer(config, output=run).train()
        print(f"loss of the first and the last step: {result.losses[0]:.4f}, {result.losses[-1]:.4f}")
        print(
            f"accuracy before and after: {result.metrics['accuracy_before']}, {result.metrics['accuracy_after']}"
        )

        longer = mezo.MeZOConfig.build(**settings, num_steps=given.steps + 5, eval_examples=20)
        result = mezo.MeZOTrainer(longer, resume=run).train()  # from its snapshot and its trajectory
        print(
            f"after resuming: {len(result.steps)} steps, files {sorted(path.name for path in run.iterdir())}"
        )

        model, _tokenizer = mezo.load_finetuned(run / "trajectory.mezo", model=given.model)
        print(f"made again from the base and the trajectory: {type(model).__name__}")


if __name__ == "__main__":
    main()
