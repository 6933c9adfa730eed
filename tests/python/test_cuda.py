"""The same code on a GPU: device pointers, the caller's stream, graphs. Skips without Hopper."""

import cases
import msa_cpp
import pytest
import torch

SIZES = {
    "num_q_heads": 16, "num_kv_heads": 2, "head_dim": 64, "block_size": 64, "top_k": 4,
}  # fmt: skip


def missing() -> str:
    """Why nothing here can run, or ""."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    try:
        return msa_cpp.unsupported("attention_forward", **SIZES, device="cuda")
    except msa_cpp.MsaUnsupported as error:
        return str(error)


REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"no cuda backend here: {REASON}")


def make_batch(length=1000):
    batch = cases.make_batch(
        ((length, length),), 16, 2, 64, 64, 64, 4, torch.bfloat16, requires_grad=False
    )
    batch.q, batch.k, batch.v, batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k = (
        tensor.cuda() for tensor in (*batch.leaves, batch.cu_q, batch.cu_k)
    )
    return batch


def layer(batch, **outputs):
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=4, block_size=64,
        block_ids=outputs.get("block_ids"), workspace=outputs.get("workspace"),
    )  # fmt: skip
    out, lse = msa_cpp.msa_attention(
        batch.q, batch.k, batch.v, picked.block_ids, batch.cu_q, batch.cu_k, block_size=64,
        out=outputs.get("out"), lse=outputs.get("lse"), workspace=outputs.get("workspace"),
    )  # fmt: skip
    return picked.block_ids, out, lse


def test_equals_the_cpu_on_a_stream_of_the_caller():
    batch = make_batch()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ids, out, lse = layer(batch)
    stream.synchronize()
    host = [tensor.cpu() for tensor in (batch.q, batch.k, batch.v, ids, batch.cu_q, batch.cu_k)]
    wanted, wanted_lse = msa_cpp.msa_attention(*host, block_size=64, backend="reference")
    cases.assert_out(out.cpu(), wanted.double(), torch.bfloat16)
    cases.assert_lse(lse.cpu(), wanted_lse.double(), torch.bfloat16)


def test_graph_replays_with_other_contents():
    batch = make_batch()
    plan = msa_cpp.plan(
        num_q_heads=16, num_kv_heads=2, head_dim=64, index_dim=64, block_size=64, top_k=4,
        max_tokens=1000, max_keys=1000, device="cuda",
    )  # fmt: skip
    outputs = {
        "block_ids": torch.empty(2, 1000, 4, dtype=torch.int32, device="cuda"),
        "out": torch.empty_like(batch.q), "lse": torch.empty(1000, 16, device="cuda"),
        "workspace": plan.new_workspace(),
    }  # fmt: skip
    layer(batch, **outputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(batch, **outputs)
    for length in (1000, 700):
        batch.q.normal_()
        batch.cu_q[1] = batch.cu_k[1] = length
        graph.replay()
        torch.cuda.synchronize()
        ids, out, lse = layer(batch)
        assert torch.equal(outputs["block_ids"], ids) and torch.equal(outputs["out"], out)
        assert torch.equal(outputs["lse"], lse)


def test_tensors_of_two_devices_are_refused():
    batch = make_batch()
    ids, _, _ = layer(batch)
    with pytest.raises(ValueError, match="k is on another device: got cpu, allowed cuda:0"):
        msa_cpp.msa_attention(
            batch.q, batch.k.cpu(), batch.v, ids, batch.cu_q, batch.cu_k, block_size=64,
            out=torch.empty_like(batch.q),
        )  # fmt: skip
    with pytest.raises(ValueError, match="got cuda, allowed cpu"):
        msa_cpp.msa_attention(
            batch.q, batch.k, batch.v, ids, batch.cu_q, batch.cu_k, block_size=64, backend="cpu"
        )
