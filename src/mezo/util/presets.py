"""Settings of published runs, under one name."""

from typing import Any

_POPULATION: dict[str, Any] = dict(
    task="countdown",
    tuning="full",
    dtype="bfloat16",
    estimator="es",
    epsilon=1e-3,
    stop=(),
    temperature=0.0,
    max_new_tokens=512,
)

PRESETS: dict[str, dict[str, Any]] = {
    # Qiu et al. 2025, Evolution Strategies at Scale, arXiv:2509.24372, Countdown: a population of 30 (here of 15 mirrored
    # directions), sigma 1e-3, alpha = sigma / 2, z-scores, 200 prompts, 500 steps, greedy
    "es-at-scale": {
        **_POPULATION,
        "scores": "z-score",
        "num_directions": 15,
        "learning_rate": 5e-4,
        "batch_size": 200,
        "num_steps": 500,
    },
    # Sarkar et al. 2025, EGGROLL, arXiv:2511.16652, Countdown: a population of 1,024 in groups by prompt, 16 prompts
    "eggroll": {
        **_POPULATION,
        "scores": "group",
        "groups": 16,
        "noise": "rank-one",
        "num_directions": 512,
        "learning_rate": 2e-4,
        "batch_size": 16,
    },
}
