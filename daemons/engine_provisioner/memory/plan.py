"""What a llama-server is to be loaded with, as far as it decides on memory, read from its command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CACHE_TYPES = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "iq4_nl": (32, 18),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
}
"""Elements and bytes of a block, by the argument of --cache-type-k and --cache-type-v."""
DEFAULT_TYPE = "f16"
DEFAULT_UBATCH = 512
ALL_LAYERS = 999
NUMBER_LIMIT = 1 << 32

CTX = ("-c", "--ctx-size")
SLOTS = ("-np", "--parallel")
LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
TYPE_K, TYPE_V = ("-ctk", "--cache-type-k"), ("-ctv", "--cache-type-v")
UBATCH = ("-ub", "--ubatch-size")
FLASH = ("-fa", "--flash-attn")
UNIFIED, SPLIT = ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified")
SWA_FULL = ("--swa-full",)
KV_ON_HOST, KV_ON_DEVICE = ("-nkvo", "--no-kv-offload"), ("-kvo", "--kv-offload")
NO_FLASH = ("off", "0", "false", "disabled")


@dataclass(frozen=True)
class LoadPlan:
    """What decides on the memory of an engine. `ctx` is in tokens per slot, 0 for the model's own; `ubatch` in tokens.

    `gpu_layers` of the model, counted from the last, are on `devices` GPUs; llama.cpp counts the output as one more.
    """

    ctx: int
    slots: int = 1
    gpu_layers: int = 0
    devices: int = 0
    cache_type_k: str = DEFAULT_TYPE
    cache_type_v: str = DEFAULT_TYPE
    ubatch: int = DEFAULT_UBATCH
    flash_attention: bool = True
    unified: bool = False
    swa_full: bool = False
    kv_on_host: bool = False


def plan_of(argv: Sequence[str], devices: int) -> LoadPlan:
    """Return what the command line `argv` loads on `devices` GPUs. Of several equal options the last counts."""
    options = dict(_options(argv))
    slots = max(1, _number(options, SLOTS, 1))
    return LoadPlan(
        ctx=-(-_number(options, CTX, 0) // slots),
        slots=slots,
        gpu_layers=_number(options, LAYERS, ALL_LAYERS) if devices else 0,
        devices=devices,
        cache_type_k=_cache_type(options, TYPE_K),
        cache_type_v=_cache_type(options, TYPE_V),
        ubatch=max(1, _number(options, UBATCH, DEFAULT_UBATCH)),
        flash_attention=options.get(FLASH[0], "auto") not in NO_FLASH,
        unified=UNIFIED[0] in options,
        swa_full=SWA_FULL[0] in options,
        kv_on_host=KV_ON_HOST[0] in options,
    )


VALUED = {name: names[0] for names in (CTX, SLOTS, LAYERS, TYPE_K, TYPE_V, UBATCH, FLASH) for name in names}
SWITCHES = {name: names[0] for names in (UNIFIED, SPLIT, SWA_FULL, KV_ON_HOST, KV_ON_DEVICE) for name in names}
OPPOSITES = {UNIFIED[0]: SPLIT[0], SPLIT[0]: UNIFIED[0], KV_ON_HOST[0]: KV_ON_DEVICE[0], KV_ON_DEVICE[0]: KV_ON_HOST[0]}


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    found: dict[str, str] = {}
    for place, word in enumerate(argv):
        name, joined, value = word.partition("=")
        if name in VALUED:
            found[VALUED[name]] = value if joined else next(iter(argv[place + 1 : place + 2]), "")
        elif name in SWITCHES:
            found.pop(OPPOSITES.get(SWITCHES[name], ""), None)
            found[SWITCHES[name]] = ""
    yield from found.items()


def _number(options: dict[str, str], names: Sequence[str], default: int) -> int:
    """Return the number that an option gives; `default` for none, for `auto` and for -1, which llama.cpp decides."""
    text = options.get(names[0], "")
    return min(int(text), NUMBER_LIMIT) if text.isascii() and text.isdigit() else default


def _cache_type(options: dict[str, str], names: Sequence[str]) -> str:
    chosen = options.get(names[0], DEFAULT_TYPE).lower()
    return chosen if chosen in CACHE_TYPES else DEFAULT_TYPE
