"""What a replacement may ask for that no part of a method of forward passes can be, whatever study it is in."""

import re

from mezo.ablation.values import Refused
from mezo.ablation.words import folded, without_contrast

_Z = r"(random )?(zs?|perturbations?|noise|directions?|seeds?|(perturbation|noise|random) (vectors?|directions?|seeds?)|random numbers?)(?! (scale|size|magnitude|distribution))"
_STEPS = r"(steps|iterations|training|run|updates|epochs?)"
_REASONS = (
    (
        r"(?<!\w)(?!.*\b(?:mezo|zo)\b)(?:.*\b)?(?:fine ?tuning|fine tune|ft) (?:ft )?(?:with|using|via|by) (?:adamw?|sgd)\b|back ?prop\w*|first order (fine|optimi\w*|sgd|adam|gradient|method|training)|autograd",
        "gradients by backpropagation are a baseline of their own: mezo baseline finetune, mezo baseline compare",
    ),
    (
        rf"(fixed|same|constant|identical|frozen|single|reus\w*|shar\w*) (the )?(same |single |fixed )?{_Z} .*\b(all|every|across|throughout|whole|entire|between) .*\b{_STEPS}"
        rf"|(fix\w*|reus\w*|keep\w*) (the |one |a )*(same |single |fixed )?{_Z} (constant |fixed |the same )?(for|across|at|in|over|throughout|between) .*\b{_STEPS}"
        rf"|(fixed|constant) {_Z}$|no re ?sampl\w* (of {_Z} )?(across|between|over) .*\b{_STEPS}",
        "directions are drawn anew at every step: along one and the same line all that could be found is that line's"
        " lowest point, and no setting holds it",
    ),
    (
        r"(different|separate|independent|another|fresh|new|distinct) (mini ?batch\w*|batch\w*|data|samples|examples) .*\b(pass|passes|evaluations?|sides?|signs?|perturbations?|probes?|each)\b"
        r"|(different|separate|independent|distinct) (mini ?)?batch\w*",
        "the losses of a step are of one batch: over two, their difference would be that of the batches",
    ),
    (
        rf"(independent|different|separate|distinct) {_Z} .*\b(positive|negative|plus|minus|both|two|either|each (sign|side|pass|evaluation|probe))\b",
        "the probes of a step lie on one line: along two their difference would be no slope",
    ),
    (
        rf"\b(shar\w*|same|identical|tied?) (the )?(same )?{_Z} .*\b(across|between|among|for|in) .*\b(layers?|matrices|tensors?|modules?)\b",
        "z is drawn for every weight of its own; no setting shares it between layers",
    ),
)


def check_possible(value: object) -> None:
    """Raises Refused with the reason if a replacement is one of these."""
    text = folded(without_contrast(value)) if isinstance(value, str) else ""
    for pattern, reason in _REASONS:
        if re.search(rf"\b(?:{pattern})", text):
            raise Refused(reason)
