"""Parts of what is tuned and of what the model is asked: tuning mode, layers, precision, prompt."""

from mezo.ablation import beside, readers
from mezo.ablation.parts import NOTHING, Part
from mezo.ablation.values import choice, first_of, number, switch, with_number

_MODES = with_number(
    with_number(
        choice(
            (
                r"qlora|dora|adalora|ia3|houlsby|adapters? layers?|(bottleneck|serial|parallel) adapters?|compacter",
                "tuning takes full, lora, prefix or head",
            ),
            (
                r"(soft )?prompt tuning|p tuning|soft prompts?",
                "soft prompts at the input are not here; prefix tunes keys and values of every layer",
            ),
            (r"(without|no) (lora|prefix|adapters?)|full\w*|all (parameters|weights)", {"tuning": "full"}),
            (r"lora|low rank adapt\w*", {"tuning": "lora"}),
            (r"prefix\w*", {"tuning": "prefix"}),
            (r"(lm |classification |linear )?head|linear prob\w*|last layer|lp", {"tuning": "head"}),
        ),
        "lora_rank",
        "rank|r",
    ),
    "prefix_tokens",
    "prefix tokens|tokens|prefix length|m",
)
_TUNING = with_number(_MODES, "lora_alpha", "alpha|α")


_LORA, _PREFIX = {"tuning": "lora"}, {"tuning": "prefix"}
_ELSEWHERE = (
    "is what all variants share: it is an option of the command, not of a plan; write set: to force it"
)

MODEL = (
    Part(
        "tuning mode (full, LoRA, prefix, head)",
        ("tuning",),
        (
            "(fine )?tuning (mode|method|type|strategy|scheme|paradigm)s?",
            "(full|all)( parameter| model)?( fine)? ?tuning",
            "full parameters?",
            "(parameter efficient|peft)( fine tuning| tuning| methods?| modules?)?",
            "lora(?! (rank|alpha|target|module|r\\b))( adapters?| tuning)?",
            "prefix tuning",
            "(tuned|trained|trainable|updated) parameters?( set| subset)?",
            "adapters?",
            "linear prob\\w*",
        ),
        beside.with_targets(_TUNING),
        hints=("lora", "prefix", "tuning"),
        off={"tuning": "full"},
        on={"tuning": "lora"},
        takes="full, lora, prefix or head",
    ),
    Part(
        "rank of LoRA",
        ("lora_rank",),
        (
            "lora (rank|r)",
            "rank of (the )?(lora|adapters?|low rank adapt\\w*)( factors?| matrices)?",
            "adapter rank",
        ),
        number("lora_rank", "rank|r|lora_rank", whole=True, low=1, high=4096, also=_LORA),
        hints=("lora", "rank"),
        off={"tuning": "full"},
        symbols="lora rank|lora r",
        takes="a whole number of 1 or more",
    ),
    Part(
        "alpha of LoRA",
        ("lora_alpha",),
        ("lora (alpha|scal\\w*)", "alpha"),
        number("lora_alpha", "alpha|α", whole=True, low=1, also=_LORA),
        takes="a whole number of 1 or more",
    ),
    Part(
        "modules that get LoRA",
        ("lora_targets",),
        (
            "lora (target\\w*|modules?|placement|layers|projections)( modules?)?",
            "target modules?",
            "(modules|projections|matrices) (that get|with|adapted by|tuned by) lora",
        ),
        readers.targets,
        hints=("lora", "projections?", "attention"),
        takes="names of modules, all linear layers, or query and value",
    ),
    Part(
        "length of the prefix",
        ("prefix_tokens",),
        ("prefix (length|tokens?|size)", "(number|length) of (the )?prefix( tokens)?"),
        number("prefix_tokens", "tokens|m|length", whole=True, low=1, high=4096, also=_PREFIX),
        hints=("prefix",),
        off={"tuning": "full"},
        takes="a whole number of 1 or more",
    ),
    Part(
        "start of the prefix",
        ("prefix_init",),
        (
            "prefix init\\w*( from| with| by)?( real)?( activations?)?",
            "initiali[sz]\\w* (of )?(the )?prefix(es)?",
            "(real )?activations? (based )?init\\w*",
            "init\\w* (from|with) (real )?activations?",
        ),
        first_of(
            switch(
                "prefix_init",
                on="activations",
                off="random",
                more=with_number(
                    choice(
                        (r"random\w*|noise|gaussian|normal", {**_PREFIX, "prefix_init": "random"}),
                        (r"activations?|real|tokens", {**_PREFIX, "prefix_init": "activations"}),
                    ),
                    "prefix_tokens",
                    "prefix tokens",
                ),
            )
        ),
        hints=("prefix",),
        off={**_PREFIX, "prefix_init": "random"},
        takes="activations or random",
    ),
    Part(
        "parameters or layers that are tuned",
        ("train",),
        (
            "(layers?|parameters?|modules?|tensors?|components?) (that are |which are |to be )?(tuned|trained|updated|frozen|fine tuned)",
            "(tuned|trained|trainable|frozen|updated|tuning|training|freezing|selection of|which|subset of) (the )?(layers?|modules?|parameters?|embeddings?|tensors?|weights)",
            "(all|every|embedding|attention|mlp|upper|lower|top|bottom) layers( tuned| updated| trained)?",
            "layer (subset|selection|freezing)s?",
            "(freez\\w*|frozen)( layers| embeddings?)?",
            "only (the )?(last|first|top|bottom|upper|lower|final|early)",
            "only (the )?\\w+( and \\w+)* (parameters|weights|layers|modules|terms|vectors)",
            "bias(es)?( terms| parameters| only)",
            "bit ?fit",
            "embeddings?",
        ),
        readers.layers,
        hints=("layers?", "parameters?", "subset"),
        without=lambda value, config: readers.layers(f"without {value}", config),
        off={"train": None},
        takes="last or first N layers, attention, MLP, biases, norms, embeddings",
    ),
    Part(
        "precision of the weights (dtype)",
        ("dtype",),
        (
            "(numerical |numeric |weight |floating point |model |parameter )?precision( of the weights)?",
            "(data ?type|dtype)s?( of the weights)?",
            "(float|fp|bf)(16|32|64)",
            "(half|full|mixed|single|low) precision",
            "bfloat16",
            "quantiz\\w*",
        ),
        beside.with_rounding(
            choice(
                (
                    r"int\d|\d bit quant\w*|quantiz\w*|nf4|fp8|float8|8 bit|4 bit|int 8|float64|fp64|double precision|tf32",
                    "dtype takes float32, bfloat16 or float16",
                ),
                (r"bf ?16|bfloat ?16|brain", {"dtype": "bfloat16"}),
                (r"fp ?16|float ?16|half( precision)?|16 bit", {"dtype": "float16"}),
                (r"fp ?32|float ?32|(full|single) precision|32 bit", {"dtype": "float32"}),
                (
                    r"mixed( precision)?",
                    "mixed precision keeps two copies of the weights; dtype is one type for all",
                ),
            )
        ),
        hints=("16", "32", "bit"),
        off={"dtype": "float32"},
        takes="float32, bfloat16 or float16",
    ),
    Part(
        "prompt (template)",
        ("template",),
        (
            "prompt( template| format| design| wording| text)?s?(?! tuning)",
            "templates?",
            "(task )?(instruction|description)s?",
            "natural language prompts?",
            "prompting",
        ),
        readers.template,
        hints=("prompt\\w*",),
        without=lambda value, config: (readers.bare(config),),
        off={"template": None},
        takes="text with {field}s of the data, or none",
    ),
    Part(
        "label words",
        ("label_words",),
        ("(label|verbali[sz]er) (words?|tokens?|mapping|names?|choice)s?", "verbali[sz]ers?"),
        readers.label_words,
        hints=("labels?",),
        takes="a word for each class, by comma",
    ),
    Part(
        "sharing of computed prefixes (KV cache)",
        ("enable_kv_cache_optimization",),
        (
            "kv( cache| caching)?( optimi[sz]\\w*| reuse| sharing)?",
            "key ?value cach(e|ing)( optimization)?",
            "(shared |common )?prefix (caching|cache|sharing|reuse)",
            "(shar|reus|cach)\\w* (of |the )*(shared |common |computed )?(prompt )?prefix(es)?",
            "prompt cach(e|ing)",
        ),
        switch(
            "enable_kv_cache_optimization",
            more=choice(
                (
                    r"stale|across (the )?(probes|passes|perturbations|steps)|between (the )?(probes|passes)",
                    "keys and values made at one probe are wrong at another; only rows of the same probe share",
                )
            ),
        ),
        hints=("cach(e|ing)",),
        off={"enable_kv_cache_optimization": False},
        on={"enable_kv_cache_optimization": True},
        takes="on or off",
    ),
    Part(
        "activations kept from below the lowest tuned layer",
        ("activation_cache_mb",),
        (
            "activation(s)? cach(e|ing)",
            "cach(e|ing) (of )?(the )?activations?",
            "frozen (layers? )?activations?",
        ),
        number("activation_cache_mb", "mb|size", whole=True, low=0, off=0),
        off={"activation_cache_mb": 0},
        on={"activation_cache_mb": 256},
        takes="megabytes",
    ),
    Part(
        "length of examples",
        ("max_length",),
        ("(max(imum)? )?(sequence|context|input|example) (length|size)", "max length", "truncat\\w*"),
        number("max_length", "length|tokens", whole=True, low=8),
        takes="a whole number of tokens",
    ),
    Part(
        "length of outputs",
        ("max_new_tokens",),
        ("(max(imum)? )?(new|generated|output) (tokens?|length)", "generation length"),
        number("max_new_tokens", "tokens", whole=True, low=1),
        takes="a whole number of tokens",
    ),
    Part(
        "model",
        ("model",),
        (
            "(base |backbone |language |pre ?trained )?model( size| scale| family| architecture| choice)?",
            "(base|backbone|pre ?trained) (lm|llm|network|checkpoint)",
        ),
        choice((r".", f"the model {_ELSEWHERE}")),
        hints=("model",),
        off=f"the model {_ELSEWHERE}",
        takes=NOTHING,
    ),
    Part(
        "task and data",
        ("task", "data"),
        ("(down ?stream |evaluation |target )?(task|data ?set|benchmark)s?( type| choice)?",),
        choice((r".", f"the task {_ELSEWHERE}")),
        off=f"the task {_ELSEWHERE}",
        takes=NOTHING,
    ),
)
