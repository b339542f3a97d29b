"""`python -m tests.engines.count_launches`: what a step of OPT-1.3B's shape launches on a GPU, without one.

16 rows of 64 tokens in bfloat16. Copies are left out: a fake writes some where a GPU writes none.
"""

from typing import Any

import pytest
import torch
from benchmarks.gpu_steps import OBJECTIVE, SHAPES, Setting
from tests.engines.fake_gpu import fake_gpu, on_fake
from tests.engines.perturb.test_forward import engine_for
from transformers import OPTConfig, OPTForCausalLM

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import TwoPoint
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.row_directions import RowDirections
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.tuning import tune

ROWS = {"full": 1, "lora": 1, "full, rank-one signs": 1, "full, a direction a row": 16}


def model() -> Any:
    """The first shape, its memory never touched."""
    shape = SHAPES[0]
    config = OPTConfig(
        hidden_size=shape.hidden,
        word_embed_proj_dim=shape.hidden,
        ffn_dim=4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
    )
    with torch.device("meta"):
        made: Any = OPTForCausalLM(config)
    made.to(torch.bfloat16).to_empty(device="cpu")
    made.tie_weights()
    return made.eval().requires_grad_(False)


def main() -> None:
    form = engine_for("opt")[0].form  # as found by numbers
    for name, rows in ROWS.items():
        for once in (False, True):
            setting = Setting(name.partition(",")[0], 64, once)
            batch = setting.batch(SHAPES[0].vocabulary)
            noise = "gaussian" if name in ("full", "lora") else "rank-one"
            tuned, weights = tune(model(), MeZOConfig.build(tuning=setting.tuning, noise=noise))
            with pytest.MonkeyPatch.context() as patch, fake_gpu(patch, form) as launches:
                theta = on_fake(tuned, weights)
                if name == "full" and not once:
                    ids = torch.ones(setting.rows, setting.length, dtype=torch.int64, device="cuda")
                    with torch.no_grad():
                        tuned(input_ids=ids, use_cache=False)
                    print(f"two bare passes: {2 * (launches.count.total() - launches.count['copy_'])}")
                engine = TransformersEngine(
                    tuned, theta, OBJECTIVES[OBJECTIVE], SGD(), kind="causal", pad_token_id=1
                )
                estimator = TwoPoint(1e-3) if rows == 1 else ExactSums(RowDirections(TwoPoint(1e-3)))
                for step in range(2):
                    launches.count.clear()
                    mezo_step(engine, estimator, [engine.prepare(batch)], draw_of(0, step, rows), 1e-6)
            counts = launches.count
            own = sum(count for kernel, count in counts.items() if kernel.startswith("noise."))
            whole = counts.total() - counts["copy_"]
            print(f"{name}, {'one position' if once else 'every position'}: {whole}, of the noise {own}")


if __name__ == "__main__":
    main()
