from __future__ import annotations

import msgspec
import pytest

from proxy.errors import BadConfig
from proxy.model_memory import BASES, GIB, MIB, Base, Quantize, weights_bytes
from proxy.plan_gpu import RESERVE, SHARE, DoesNotFit, Order, plan, told

LLAMA = BASES["llama-3.1-8b"]
ORDER = Order(adapters=6, context=4096)


def sequences(base: Base, card: int, quantize: Quantize, adapters: int, context: int) -> int:
    """Concurrent sequences by the plain formula: rank 32, NF4 without double quantisation."""
    weights = weights_bytes(base, quantize) + adapters * base.adapter_bytes(32)
    return max(0, int(SHARE * card) - weights - RESERVE) // (context * base.kv_bytes)


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.2-1b", 1_235_814_400),
    ],
)
def test_parameters_are_those_that_the_models_have(base: str, parameters: int):
    assert BASES[base].quantised + BASES[base].others == parameters


@pytest.mark.parametrize(
    ("quantize", "double", "size"),
    [
        ("bf16", False, 16_060_522_496),
        ("int8", False, 9_081_200_640),
        ("nf4", False, 6_027_747_328),
        ("awq", False, 5_727_854_592),
        ("nf4", True, 5_702_295_552),
    ],
)
def test_weights_by_quantisation(quantize: str, double: bool, size: int):
    assert weights_bytes(LLAMA, quantize, double) == size


def test_kv_cache_of_a_token():
    assert LLAMA.kv_bytes == 131_072
    assert 2048 * LLAMA.kv_bytes == 256 * MIB


@pytest.mark.parametrize(
    ("targets", "mib"), [((), 160), (("q", "k", "v", "o"), 52), (("q", "v"), 26)]
)
def test_adapter_of_rank_32(targets: tuple[str, ...], mib: int):
    assert LLAMA.adapter_bytes(32, targets) == mib * MIB
    assert LLAMA.adapter_bytes(64, targets) == 2 * mib * MIB


@pytest.mark.parametrize(
    ("card", "adapters", "bf16", "int8", "nf4", "awq"),
    [
        (24.00, 0, 21, 47, 58, 60),
        (24.00, 4, 19, 45, 56, 57),
        (24.00, 8, 16, 42, 53, 55),
        (23.69, 0, 20, 46, 57, 58),
        (23.69, 4, 17, 43, 55, 56),
        (23.69, 8, 15, 41, 52, 53),
    ],
)
def test_sequences_of_2048_tokens(
    card: float, adapters: int, bf16: int, int8: int, nf4: int, awq: int
):
    size = int(card * GIB)

    assert sequences(LLAMA, size, "bf16", adapters, 2048) == bf16
    assert sequences(LLAMA, size, "int8", adapters, 2048) == int8
    assert sequences(LLAMA, size, "nf4", adapters, 2048) == nf4
    assert sequences(LLAMA, size, "awq", adapters, 2048) == awq


@pytest.mark.parametrize(
    ("quantize", "tokens"),
    [("bf16", 39_055), ("int8", 92_303), ("nf4", 115_599), ("awq", 117_887)],
)
def test_kv_tokens_at_four_adapters(quantize: str, tokens: int):
    order = Order(gpu="24", adapters=4, context=2048, quantize=quantize)

    vllm = plan(order).fits[-1]

    assert vllm.engine == "vllm"
    assert vllm.kv_tokens == tokens


def test_tgi_quantises_the_scales_too_and_so_fits_one_or_two_more():
    tgi, vllm = plan(Order(gpu="24", adapters=4, context=2048)).fits

    assert (tgi.weights, vllm.weights) == (5_702_295_552, 6_027_747_328)
    assert tgi.sequences - vllm.sequences in (1, 2)


def test_vllm_sets_aside_memory_for_the_next_rank_that_it_knows():
    odd, even = plan(Order(rank=48)).fits[1], plan(Order(rank=64)).fits[1]

    assert odd.adapters == even.adapters == 4 * 320 * MIB


def test_tgi_is_launched_without_what_would_mix_adapters_up():
    tgi, _ = plan(msgspec.structs.replace(ORDER, gpus=2)).fits

    assert len(tgi.launch) == 2
    assert tgi.launch[1] == (
        "CUDA_VISIBLE_DEVICES=1 PREFIX_CACHING=0 text-generation-launcher"
        " --model-id meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 --quantize bitsandbytes-nf4"
        " --lora-adapters domain1-v1=/adapters/domain1-v1,domain2-v1=/adapters/domain2-v1,"
        "domain3-v1=/adapters/domain3-v1,domain4-v1=/adapters/domain4-v1,"
        "domain5-v1=/adapters/domain5-v1,domain6-v1=/adapters/domain6-v1 --cuda-graphs 0"
        " --max-input-tokens 3072 --max-total-tokens 4096 --max-concurrent-requests 64"
        " --usage-stats off --port 8082"
    )


def test_vllm_is_launched_for_the_rank_and_number_of_adapters():
    _, vllm = plan(ORDER).fits

    assert vllm.launch == [
        "CUDA_VISIBLE_DEVICES=0 VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        " vllm serve meta-llama/Llama-3.1-8B-Instruct --quantization bitsandbytes"
        " --enable-lora --max-loras 6 --max-lora-rank 32 --max-cpu-loras 12"
        " --lora-modules domain1-v1=/adapters/domain1-v1 domain2-v1=/adapters/domain2-v1"
        " domain3-v1=/adapters/domain3-v1 domain4-v1=/adapters/domain4-v1"
        " domain5-v1=/adapters/domain5-v1 domain6-v1=/adapters/domain6-v1"
        f" --max-model-len 4096 --max-num-seqs {vllm.sequences} --gpu-memory-utilization 0.9"
        " --port 8081"
    ]


def test_awq_is_for_vllm_only_and_says_so():
    answer = plan(msgspec.structs.replace(ORDER, quantize="awq"))

    assert [fit.engine for fit in answer.fits] == ["vllm"]
    assert [refusal.engine for refusal in answer.refused] == ["tgi"]
    assert "tgi cannot: cannot load LoRA adapters onto awq weights" in "\n".join(told(answer))


def test_rank_above_what_tgi_serves_is_left_to_vllm():
    assert [fit.engine for fit in plan(Order(rank=128)).fits] == ["vllm"]


def test_plan_that_does_not_fit_is_refused_with_what_would():
    with pytest.raises(DoesNotFit) as caught:
        plan(Order(context=65_536, quantize="bf16"))

    assert "less than one sequence of 65,536" in str(caught.value)
    assert "What would fit: --quantize int8; --quantize nf4; --quantize awq; --context 3" in str(
        caught.value
    )


def test_what_would_fit_does_and_one_more_does_not():
    with pytest.raises(DoesNotFit) as caught:
        plan(Order(quantize="bf16", adapters=60))
    most = int(str(caught.value).rpartition("--adapters ")[2])

    assert plan(Order(quantize="bf16", adapters=most)).fits
    with pytest.raises(DoesNotFit):
        plan(Order(quantize="bf16", adapters=most + 1))


def test_card_that_holds_nothing_is_told():
    with pytest.raises(DoesNotFit, match=r"leave no room .* nothing on this card"):
        plan(Order(gpu="4"))


@pytest.mark.parametrize("gpu", ["rtx309", "nan", "-1", "inf"])
def test_unknown_card_is_told(gpu: str):
    with pytest.raises(BadConfig, match="--gpu"):
        plan(Order(gpu=gpu))


def test_unknown_base_is_told():
    with pytest.raises(BadConfig, match=r"'llama-4'.*llama-3\.1-8b"):
        plan(Order(base="llama-4"))


def test_table_has_a_column_for_each_engine():
    lines = list(told(plan(ORDER)))

    assert lines[2].split() == ["each", "card", "tgi", "vllm"]
    assert any(line.split()[:2] == ["sequences", "at"] for line in lines)
