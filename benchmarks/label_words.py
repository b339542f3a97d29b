"""How far prompts and label words carry a model before any tuning.

For each pair: zero-shot accuracy, ROC AUC of the difference of the two scores, and the accuracy with
the best threshold on it, which is about what the first steps of tuning reach.

    python -m benchmarks label-words --data FOLDER [--model M] [--template T] [--words bad,good ...]
"""

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

from mezo.build.setup import engine_at
from mezo.data import MeZODataset
from mezo.models.load import load
from mezo.objectives import OBJECTIVES
from mezo.scoring import candidate_scores, pose
from mezo.tasks import task_for


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--task", default="sst2", help="a task of two classes")
    parser.add_argument("--data", required=True)
    parser.add_argument("--template", help="\\n is a new line; default: the task's own prompt")
    parser.add_argument("--words", nargs="+", default=["terrible,great", "bad,good", "awful,wonderful"])
    parser.add_argument("--examples", type=int, default=400)
    given = parser.parse_args()
    loaded = load(given.model, given.dtype)
    engine = engine_at(loaded, OBJECTIVES["candidate-ce"])
    template = given.template and given.template.replace("\\n", "\n")
    for words in given.words:
        task = task_for(given.task, words.split(","), template)
        rows = MeZODataset(given.data, task=task, max_examples=given.examples)
        examples = rows.encode(loaded.tokenizer, loaded.kind, 512).examples
        posed = pose(examples)
        negative, positive = candidate_scores(posed, engine.logprobs(posed)[0]).reshape(-1, 2).T
        margin, answers = positive - negative, np.array([e.answer for e in examples])
        best = max(float(((margin > m) == answers).mean()) for m in margin)
        right = float(((margin > 0) == answers).mean())
        print(
            f"{words:28} accuracy {right:.3f}  AUC {roc_auc_score(answers, margin):.3f}  best threshold {best:.3f}"
        )
