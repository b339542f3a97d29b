"""Parts that no setting stands for: what all variants share, and what is done around a run."""

from mezo.ablation.parts import NOTHING, Part
from mezo.ablation.values import choice


def _none(title: str, names: tuple[str, ...], reason: str) -> Part:
    return Part(title, (), names, choice((r".", reason)), off=reason, on=reason, takes=NOTHING)


SHARED = (
    _none(
        "order of the data",
        (
            "(data|example|batch|training data|sample)s? (order\\w*|shuffl\\w*|sequence)",
            "shuffl\\w*|curriculum( learning)?",
            "order of (the )?(training )?(data|examples|samples|batches)",
        ),
        "all variants see the same examples in the same order, which follows from the seed alone: --seeds runs"
        " several, and set: {seed: ...} draws another",
    ),
    _none(
        "demonstrations in the prompt",
        (
            "in context (examples?|demonstrations?|learning|samples?)",
            "icl|few shot (prompt\\w*|demonstrations?|in context)",
            "demonstrations?( in the prompt| examples?)?",
        ),
        "a prompt holds one example; with demonstrations and without tuning it is a baseline: mezo eval --shots 32",
    ),
    _none(
        "selection of a checkpoint",
        (
            "early stopping",
            "(checkpoint|model|best checkpoint) selection",
            "selection of (the )?(best )?checkpoints?",
        ),
        "a run is judged after its last step, and its curve shows the others; no checkpoint is chosen",
    ),
    _none(
        "checkpoints",
        (
            "(storage|storing|saving|reconstruct\\w*|size) (of )?(the )?(checkpoints?|trajector\\w*|models?)",
            "(random )?seeds? and projected (gradients?|grads?)",
            "checkpoint\\w*(?! selection)( storage| size| format)?",
        ),
        "runs of a study keep their trajectory (seeds and projected gradients) and no weights; what is kept"
        " changes no number that is measured",
    ),
    _none(
        "calibration",
        ("(contextual |output |label |surface form )*calibrat\\w*",),
        "the log-probabilities of the label words are compared as they are; none is calibrated",
    ),
    _none(
        "normalisation of gradients",
        (
            "(projected )?(gradients?|slopes?|updates?) normaliz\\w*( projected gradients?)?",
            "normaliz\\w* (of )?(the )?(projected )?(gradients?|slopes?|updates?)",
        ),
        "slopes are not normalised: clipping bounds them, and estimator=fzoo divides by the losses' deviation",
    ),
    _none(
        "dropout",
        ("dropout( rate| probability| regulari\\w*)?( in| during)?",),
        "models run without dropout, so that both losses of a step are of one function",
    ),
    _none(
        "averaging of weights",
        (
            "(exponential )?moving averages?( of (the )?(weights|parameters))?|ema|swa",
            "(weight|model|parameter|checkpoint) averaging",
        ),
        "weights are not averaged over steps",
    ),
)
