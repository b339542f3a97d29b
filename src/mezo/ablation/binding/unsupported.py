"""Parts that no setting stands for: what all variants share, and what is done around a run."""

from mezo.ablation.binding.part import Part


def _none(title: str, names: tuple[str, ...], reason: str) -> Part:
    return Part(title, (), names, "nothing in prose", off=reason, reason=reason)


SHARED = (
    _none(
        "order of the data",
        ("data|example|batch order|shuffling", "random data order", "shuffling", "curriculum learning?"),
        "all variants see the same examples in the same order, which follows from the seed alone: --seeds runs"
        " several, and set: {seed: ...} draws another",
    ),
    _none(
        "demonstrations in the prompt",
        ("in context example|demonstration|learning", "demonstration"),
        "a prompt holds one example; with demonstrations and without tuning it is a baseline: mezo eval --shots 32",
    ),
    _none(
        "selection of a checkpoint",
        ("early stopping", "checkpoint selection", "early stopping checkpoint selection"),
        "a run is judged after its last step, and its curve shows the others; no checkpoint is chosen",
    ),
    _none(
        "checkpoints",
        ("checkpointing", "storage of random seed and projected gradient checkpointing?"),
        "runs of a study keep their trajectory (seeds and projected gradients) and no weights; what is kept"
        " changes no number that is measured",
    ),
    _none(
        "calibration",
        ("contextual|label? calibration", "calibration of label word probability|probabilities"),
        "the log-probabilities of the label words are compared as they are; none is calibrated",
    ),
    _none(
        "normalisation of gradients",
        ("projected? gradient normalization",),
        "slopes are not normalised: clipping bounds them, and estimator=fzoo divides by the losses' deviation",
    ),
    _none(
        "dropout",
        ("dropout rate|probability?", "dropout during forward pass"),
        "models run without dropout, so that both losses of a step are of one function",
    ),
    _none(
        "averaging of weights",
        ("exponential? moving average of? weight?", "ema", "weight|model averaging"),
        "weights are not averaged over steps",
    ),
    _none(
        "gradients by backpropagation",
        ("backpropagation", "first order gradient"),
        "gradients by backpropagation are a baseline of their own: mezo baseline finetune, mezo baseline compare",
    ),
    Part(
        "checks and shortcuts of the computation",
        ("audit", "disable_shortcuts", "matmul"),
        (),
        off="they change no number but by rounding: write set: to choose them",
        reason="they change no number but by rounding: write set: to choose them",
    ),
)
