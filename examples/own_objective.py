"""A reward of what the model writes: no gradient could reach it, and none is needed."""

import argparse
from typing import Any

import mezo

PROMPTS = [
    {"prompt": f"Say something about {topic}:", "completion": " It is"}
    for topic in ("rain", "bread", "trains", "maps")
]


def short(example: dict[str, Any], output: str) -> float:
    """1 for an output of no words, less for each word. example: the row."""
    return 1.0 / (1 + len(output.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    result = mezo.mezo_finetune(
        given.model,
        PROMPTS,
        lora_rank=0,
        objective="own_objective:short",
        learning_rate=1e-4,
        epsilon=1e-2,
        num_steps=given.steps,
        batch_size=4,
        max_new_tokens=8,
    )
    print(f"mean reward of the first and the last step: {-result.losses[0]:.4f}, {-result.losses[-1]:.4f}")


if __name__ == "__main__":
    main()
