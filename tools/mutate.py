"""Seeds faults in copies of the backends' code and shows which rule of the pack catches each.

    python3 tools/mutate.py [--build build/release] [--only NAME ...] [--json]

Needs a build of the tool (make demo, or cmake --build build/release --target msa-tool). A fault is
one replaced line. The file with it goes into a temporary folder that stands first in the include
path; the one or two sources that see it are compiled again, linked before the library, and
`msa verify` of that program has to report the rule that is named for the fault. Nothing in the tree
or the build is changed. Status 1 when a fault survives, or is caught by other rules alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ("reference/attention_forward.cpp", "reference/index_forward.cpp")


@dataclass(frozen=True)
class Fault:
    name: str
    backend: str
    file: str  # below src/
    old: str  # occurs exactly once
    new: str
    rule: str  # has to be broken by it
    sources: tuple[str, ...] = ()  # compiled again; the file itself when it is a source

    def compiled(self) -> tuple[str, ...]:
        return self.sources or (self.file,)


INDEX, ATTENTION = "reference/index_forward.cpp", "reference/attention_forward.cpp"
VISIBLE = "reference/visible.h"
SELECT = "host/select_blocks.cpp"
CPU_INDEX = "cpu/index_forward.cpp"
CPU_ATTENTION = ("cpu/attention_forward.cpp", "cpu/dense_attention_forward.cpp")

FAULTS = [
    Fault("select: ties go to the higher id", "reference", SELECT,
          "(score_a == score_b && a < b)", "(score_a == score_b && a > b)", "select.tie_lower_id"),
    Fault("select: NaN is the best score", "reference", SELECT,
          "? -std::numeric_limits<float>::infinity()", "? std::numeric_limits<float>::infinity()",
          "select.nan"),
    Fault("select: blocks past the local one compete", "reference", SELECT,
          "std::clamp<int64_t>(local, 0, p.max_blocks)", "p.max_blocks", "select.local_block"),
    Fault("select: one place less", "reference", SELECT,
          "p.block_ids.top_k - (has_local ? 1 : 0)", "p.block_ids.top_k - 1", "select.exact"),
    Fault("ties go to the higher id", "reference", INDEX,
          "for (int32_t b = 0; b < local; ++b) others.push_back(b);",
          "for (int32_t b = local; b-- > 0;) others.push_back(b);", "index.tie_lower_id"),
    Fault("local block dropped", "reference", INDEX,
          "  others.push_back(local);\n", "", "index.local_block"),
    Fault("K others beside the local block", "reference", INDEX,
          "static_cast<size_t>(top_k - 1)", "static_cast<size_t>(top_k)", "index.one_more_than_k"),
    Fault("scores stop before the query itself", "reference", INDEX,
          "std::min(block_size, dots.size() - begin)",
          "std::min(block_size, dots.size() - 1 - begin)", "index.causal"),
    Fault("NaN wins the maximum", "reference", INDEX,
          "if (dots[j] > best) best", "if (!(dots[j] <= best)) best", "index.nan"),
    Fault("-0 ranks below 0", "reference", INDEX,
          "return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];",
          "const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];\n"
          "    return x > y || (x == y && std::signbit(y) && !std::signbit(x));",
          "index.minus_zero"),
    Fault("one index head for all groups", "reference", INDEX,
          "t * p.q_token_stride + group * p.q_head_stride",
          "t * p.q_token_stride + 0 * group", "index.groups"),
    Fault("warm-up LSE over the selected blocks", "reference", INDEX,
          "p.lse_scope == IndexLseScope::kVisible ||", "", "index.lse_visible_float32"),
    Fault("base-two LSE", "reference", ATTENTION,
          "static_cast<float>(largest + std::log(sum))",
          "static_cast<float>(largest + std::log2(sum))", "attend.lse_natural"),
    Fault("wrong normaliser", "reference", ATTENTION,
          "out[static_cast<size_t>(d)] / sum", "out[static_cast<size_t>(d)] / (sum + 1)",
          "attend.exact_bfloat16"),
    Fault("no maximum subtracted", "reference", ATTENTION,
          "largest = std::max(largest, logits.back());", "largest = 0;",
          "attend.logits_1e4_bfloat16"),
    Fault("heads dealt to groups in turn", "reference", ATTENTION,
          "h / p.group_size()", "h % p.num_kv_heads", "attend.groups"),
    Fault("read on past the first -1", "reference", VISIBLE,
          "n < p.block_ids.top_k && ids[n] != -1;", "n < p.block_ids.top_k;",
          "attend.ids_end_at_minus_one", (ATTENTION,)),
    Fault("local block added to the ids", "reference", VISIBLE,
          "static_cast<size_t>(num_visible_blocks), false);",
          "static_cast<size_t>(num_visible_blocks), false);\n  chosen.back() = true;",
          "attend.local_not_added", (ATTENTION,)),
    Fault("dense attention sees one token too many", "reference", VISIBLE,
          "for (int64_t j = 0; j <= row.position; ++j) tokens.push_back(j);",
          "for (int64_t j = 0; j <= row.position; ++j) tokens.push_back(j);\n"
          "    if (row.position == 60) tokens.push_back(61);", "dense.causal", (ATTENTION,)),
    Fault("chunk counted from position 0", "reference", "reference/rows.h",
          "sequences.key_length(r) - (end - begin) + (row - begin)", "row - begin",
          "index.chunks", REFERENCE),
    Fault("keys of packed requests found by query offsets", "reference", "core/params.h",
          "(sequences.cu_seqlens_k[request] + token)", "(sequences.cu_seqlens_q[request] + token)",
          "attend.packed_batch", REFERENCE),
    Fault("logical blocks taken for physical pages", "reference", "core/params.h",
          "sequences.page_table[request * sequences.page_table_stride + token / sequences.page_size];",
          "token / sequences.page_size;", "index.paged", REFERENCE),
    Fault("pages taken for consecutive", "reference", "core/params.h",
          "sequences.page_table[request * sequences.page_table_stride + token / sequences.page_size];",
          "sequences.page_table[request * sequences.page_table_stride] +\n"
          "      (token / sequences.page_size) % 2;", "attend.paged_nhd", REFERENCE),
    Fault("merged lse is the larger one", "reference", "reference/merge_states.cpp",
          "largest + std::log(sum)", "largest", "merge.two_parts"),
    Fault("tokens appended to the page before", "reference", "host/cache.cpp",
          "request * s.page_table_stride + position / s.page_size",
          "request * s.page_table_stride + std::max<int64_t>(0, position - 1) / s.page_size",
          "cache.append_across_pages"),
    Fault("dlse added to D_row", "reference", "reference/attention_backward.cpp",
          "d_row -= static_cast<double>(p.dlse", "d_row += static_cast<double>(p.dlse",
          "attend_backward.dlse"),
    Fault("divergence of student against teacher", "reference",
          "reference/kl_forward_backward.cpp",
          "divergence += target * (std::log(target) - log_r)",
          "divergence += std::exp(log_r) * (log_r - std::log(target))", "kl.forward_direction"),
    Fault("teacher summed, not averaged, over the group", "reference",
          "reference/kl_forward_backward.cpp", "return sum / static_cast<double>(group);",
          "return sum;", "kl.groups"),
    Fault("cpu: a later equal score displaces an earlier", "cpu", "cpu/candidates.h",
          "row_scores[at - 1] < score", "row_scores[at - 1] <= score",
          "index.tie_lower_id", (CPU_INDEX,)),
    Fault("cpu: ranks dots before they are rounded", "cpu", CPU_INDEX,
          "const float score = p.scale * scratch.maxima[row];",
          "const float score = scratch.maxima[row];", "index.ranked_value_is_float32"),
    Fault("cpu: index sees one token too few", "cpu", CPU_INDEX,
          "row / p.num_kv_heads - first + 1;", "row / p.num_kv_heads - first;", "index.causal"),
    Fault("cpu: a split of the keys is lost", "cpu", CPU_INDEX,
          "for (int64_t split = 1; split < splits; ++split) {",
          "for (int64_t split = 2; split < splits; ++split) {", "index.decode"),
    Fault("cpu: attention sees one token too many", "cpu", "cpu/attend-inl.h",
          "queries[n] - keys.first + 1;", "queries[n] - keys.first + 2;", "attend.causal",
          CPU_ATTENTION),
    Fault("cpu: lse without its maximum", "cpu", "cpu/attend-inl.h",
          "p.scale * state.maximum + std::log(state.sum)", "std::log(state.sum)",
          "attend.exact_float32", CPU_ATTENTION),
]  # fmt: skip


def compile_command(build: Path, source: str) -> list[str]:
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if Path(entry["file"]) == ROOT / "src" / source:
            return shlex.split(entry["command"])
    raise SystemExit(f"mutate: no compile command for src/{source} in {build}")


def link_command(build: Path) -> list[str]:
    text = subprocess.run(["ninja", "-C", str(build), "-t", "commands", "msa-tool"],
                          check=True, capture_output=True, text=True).stdout  # fmt: skip
    last = text.strip().split("\n")[-1].split("&&")
    return shlex.split(next(part for part in last if "-o bin/msa" in part))


def seed(fault: Fault, folder: Path) -> None:
    text = (ROOT / "src" / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(f"mutate: '{fault.name}': its line is {text.count(fault.old)} times in "
                         f"src/{fault.file}, wanted once")  # fmt: skip
    target = folder / fault.file
    target.parent.mkdir(parents=True)
    target.write_text(text.replace(fault.old, fault.new))


def build_mutant(fault: Fault, folder: Path, build: Path) -> Path:
    """The program msa with the fault. Sources are compiled for one SIMD target: that is quicker."""
    objects = []
    for number, source in enumerate(fault.compiled()):
        command = [part for part in compile_command(build, source) if not part.startswith("-W")]
        at = command.index("-o")
        target = folder / f"{number}.o"
        path = folder / source if source == fault.file else ROOT / "src" / source
        flags = [f"-I{folder}", "-O1", "-w", "-DHWY_COMPILE_ONLY_STATIC"]
        # The compiler and its launcher stay in front; the fault's folder precedes all others.
        start = next(n for n, part in enumerate(command) if part.startswith("-"))
        command = [*command[:start], f"-I{folder}", *command[start:at], *flags,
                   "-o", str(target), "-c", str(path)]  # fmt: skip
        subprocess.run(command, cwd=build, check=True)
        objects.append(str(target))
    command = link_command(build)
    program = folder / "msa"
    at = command.index("-o")
    command = [*command[:at], *objects, "-o", str(program), *command[at + 2 :]]
    subprocess.run(command, cwd=build, check=True)
    return program


def broken_rules(program: Path, backend: str) -> dict[str, str]:
    """rule -> its first wrong element. A program that crashes breaks no rule."""
    command = [str(program), "verify", "--backend", backend, "--json", "--pack",
               str(ROOT / "conformance/pack")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        print(f"mutate: verify ended with {done.returncode}: {done.stderr}", file=sys.stderr)
        return {}
    rules = json.loads(done.stdout)["backends"][0]["rules"]
    return {rule["rule"]: rule["detail"] for rule in rules if rule["status"] == "FAIL"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--only", nargs="+", default=[], help="names, or parts of names")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    faults = [f for f in FAULTS
              if not arguments.only or any(part in f.name for part in arguments.only)]  # fmt: skip
    results, survivors = [], 0
    for fault in faults:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            seed(fault, folder)
            broken = broken_rules(build_mutant(fault, folder, build), fault.backend)
        caught = fault.rule in broken
        survivors += not caught
        results.append({"fault": fault.name, "file": f"src/{fault.file}", "rule": fault.rule,
                        "caught": caught, "rules_broken": sorted(broken),
                        "detail": broken.get(fault.rule, "")})  # fmt: skip
        if not arguments.json:
            verdict = f"{fault.rule}, {len(broken)} rules in all" if caught else "SURVIVED"
            print(f"| {fault.name} | `{fault.file}` | {verdict} |", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
    print(f"mutate: {len(faults) - survivors} of {len(faults)} faults caught by the rule named "
          "for them", file=sys.stderr)  # fmt: skip
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
