"""Parts of what is tuned and of what the model is asked: tuning mode, layers, precision, prompt."""

from mezo.ablation.binding import literal_values as readers
from mezo.ablation.binding.part import Part, Quantity

_LORA, _PREFIX = {"tuning": ("lora",)}, {"tuning": ("prefix",)}
_COUNT = "a whole number of 1 or more"
_ELSEWHERE = (
    "is what all variants share: it is an option of the command, not of a plan; write set: to force it"
)
_FLOATS = {"bfloat16": "bf16|bfloat16", "float16": "fp16|float16|f16", "float32": "fp32|float32|f32"}

MODEL = (
    Part(
        "tuning mode (full, LoRA, prefix, head)",
        ("tuning",),
        (
            "fine? tuning mode|method|type|strategy",
            "full parameter|model tuning",
            "full parameter|model? fine tuning parameterization?",
            "full tuning",
            "peft",
            "parameter efficient fine? tuning",
        ),
        "full, lora, prefix or head",
        values={
            "lora adapter|adaptation|tuning?": {"tuning": "lora"},
            "prefix tuning": {"tuning": "prefix"},
            "full parameter? fine? tuning": {"tuning": "full"},
        },
        own={
            "prefix": {"tuning": "prefix"},
            "head only? tuning?": {"tuning": "head"},
            "only? the lm head": {"tuning": "head"},
            "linear probing": {"tuning": "head"},
        },
        off={"tuning": "full"},
    ),
    Part(
        "rank of LoRA",
        ("lora_rank",),
        ("lora rank r?", "rank of the? lora adapter?"),
        _COUNT,
        quantities=(Quantity("lora_rank", ("r", "rank"), whole=True, low=1, high=4096, needs=_LORA),),
        off={"tuning": "full"},
    ),
    Part(
        "alpha of LoRA",
        ("lora_alpha",),
        ("lora alpha",),
        _COUNT,
        quantities=(Quantity("lora_alpha", ("alpha",), whole=True, low=1, high=1 << 20, needs=_LORA),),
    ),
    Part(
        "modules that get LoRA",
        ("lora_targets",),
        (
            "lora target module?",
            "target module of? lora?",
            "target module of lora query and value projection",
        ),
        "a list of modules, all linear layers, or query and value",
        own={
            "all linear layer|module?": {"tuning": "lora", "lora_targets": readers.LINEAR},
            "query and value projection?": {"tuning": "lora", "lora_targets": None},
        },
        reader=readers.module_names,
    ),
    Part(
        "length of the prefix",
        ("prefix_tokens",),
        ("prefix length", "number of the? prefix token", "prefix token"),
        _COUNT,
        quantities=(
            Quantity(
                "prefix_tokens",
                ("prefix token",),
                ("token", "m", "prefix token"),
                whole=True,
                low=1,
                high=4096,
                needs=_PREFIX,
            ),
        ),
        off={"tuning": "full"},
    ),
    Part(
        "start of the prefix",
        ("prefix_init",),
        (
            "prefix initialization",
            "prefix initialization with|from real activation",
            "initializing|initialization of? the? prefix from real token? activation",
        ),
        "activations or random",
        own={
            "random|gaussian init|initialization?": {"tuning": "prefix", "prefix_init": "random"},
            "random (gaussian) initialization": {"tuning": "prefix", "prefix_init": "random"},
            "real? activation": {"tuning": "prefix", "prefix_init": "activations"},
        },
        off={"tuning": "prefix", "prefix_init": "random"},
    ),
    Part(
        "parameters or layers that are tuned",
        ("train",),
        (
            "parameter|layer that are tuned|trained|updated all? layer?",
            "tuned|trained|trainable|updated layer|parameter|weight set?",
            "which layer|parameter are tuned|trained|updated|perturbed",
            "set of trainable parameter",
            "layer that are tuned",
        ),
        "the last or first N layers, attention, MLP, biases, norms or embeddings alone, or all but the embeddings",
        present=("perturbation of all parameter", "trainable parameter set full model"),
        own=readers.MODULES,
        off="write set: {train: [...]}",
        reader=readers.numbered_layers,
    ),
    Part(
        "precision of the weights (dtype)",
        ("dtype",),
        (
            "numerical|numeric|weight|floating? point? precision",
            "numerical precision of the? weight",
            "precision of the? weight",
            "precision of forward pass",
            "half precision weight",
            "data type",
        ),
        "float32, bfloat16 or float16",
        own={
            **{f"{names} weight|precision?": {"dtype": name} for name, names in _FLOATS.items()},
            "full precision fp32?": {"dtype": "float32"},
            "half precision": {"dtype": "float16"},
        },
        off={"dtype": "float32"},
    ),
    Part(
        "prompt (template)",
        ("template",),
        (
            "simple? task? prompt template?",
            "use|usage of the? prompt",
            "prompt usage|format",
            "template",
            "prompt natural language template used to turn input into a completion",
            "task prompt natural language template used to turn input into a completion",
            "prompt template simple natural language prompt",
            "prompt based fine tuning use of task prompt",
        ),
        "a template in quotes or behind 'Template:', with {field}s of the data, or none",
        reader=readers.template,
        off={"template": None},
    ),
    Part(
        "label words",
        ("label_words",),
        (
            "label word verbalizer?",
            "verbalizer label? word?",
            "label word verbalizer of the? classification task",
        ),
        "a list with a word for each class, or the words in quotes",
        reader=readers.label_words,
    ),
    Part(
        "sharing of computed prefixes (KV cache)",
        ("enable_kv_cache_optimization",),
        (
            "kv cache|caching sharing|reuse|optimization?",
            "kv cache sharing of the? common? prompt? prefix",
            "prefix caching|sharing|reuse",
            "kv cache prefix reuse",
        ),
        "on or off",
        off={"enable_kv_cache_optimization": False},
        switch={"enable_kv_cache_optimization": True},
    ),
    Part(
        "activations kept from below the lowest tuned layer",
        ("activation_cache_mb",),
        ("activation cache|caching",),
        "megabytes",
        quantities=(Quantity("activation_cache_mb", (), ("mb",), whole=True, high=1 << 24),),
        off={"activation_cache_mb": 0},
    ),
    Part(
        "length of examples",
        ("max_length",),
        ("max|maximum? sequence|context|input length",),
        "a whole number of tokens",
        quantities=(Quantity("max_length", (), ("token",), whole=True, low=8, high=1 << 24),),
    ),
    Part(
        "length of outputs",
        ("max_new_tokens",),
        ("max|maximum? new|generated token", "generation length"),
        "a whole number of tokens",
        quantities=(Quantity("max_new_tokens", (), ("token",), whole=True, low=1, high=1 << 20),),
    ),
    Part(
        "model",
        ("model",),
        ("base? model", "model size|scale|family"),
        reason=f"the model {_ELSEWHERE}",
        off=f"the model {_ELSEWHERE}",
    ),
    Part(
        "task and data",
        ("task", "data"),
        ("task", "dataset"),
        reason=f"the task {_ELSEWHERE}",
        off=f"the task {_ELSEWHERE}",
    ),
)
