#!/usr/bin/env bash
# One visit to a machine with a Hopper GPU, everything that belongs together, in one command:
#
#   tools/gpu_trip.sh BIN OUT [SECONDS] [STEP ...]
#
# BIN is the folder that tools/gpu_pack.sh filled; OUT gets logs and JSON; the whole
# ends within SECONDS (default 520). Steps, in the order of their need:
#   primitives stages ops select decode verify sanitizer table dense peers suite decode-bench ncu
#   long
# verify needs the tool in BIN, too, decode-bench its own program:
#   tools/gpu_pack.sh FROM BIN cuda_check cuda_bench cuda_decode_bench msa
# A step that fails stops the correctness steps after it, not the measurements. A summary is last.
set -u
bin=${1:?BIN}
out=${2:?OUT}
shift 2
limit=520
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  limit=$1
  shift
fi
all="primitives stages ops select decode verify sanitizer table dense peers suite decode-bench ncu"
steps=${*:-$all long}
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
start=$SECONDS
summary=$out/summary.txt
: >"$summary"

# run NAME LIMIT COMMAND...: the command with a limit, its output in OUT/NAME.log.
run() {
  local name=$1 most=$2 left=$((limit - (SECONDS - start)))
  shift 2
  ((most > left)) && most=$left
  if ((most < 5)); then
    echo "$name: no time left" | tee -a "$summary"
    return 1
  fi
  local began=$SECONDS status=0
  timeout -k 5 "$most" "$@" >"$out/$name.log" 2>&1 || status=$?
  echo "$name: status $status, $((SECONDS - began)) s, $(tail -n 1 "$out/$name.log")" |
    tee -a "$summary"
  return "$status"
}

wants() { [[ " $steps " == *" $1 "* ]]; }

nvidia-smi >"$out/machine.log" 2>&1
ldd "$bin/cuda_check" >>"$out/machine.log" 2>&1
grep "not found" "$out/machine.log"

sound=yes
if wants primitives; then
  run primitives 60 "$bin/cuda_check" --part primitives --json "$out/primitives.json" || sound=no
  grep FAILED "$out/primitives.log" | head -n 20
fi
if wants stages && [[ $sound == yes ]]; then
  run stages 60 "$bin/cuda_check" --part stages --json "$out/stages.json" || sound=no
  grep FAILED "$out/stages.log" | head -n 20
fi
if wants ops && [[ $sound == yes ]]; then
  run ops 120 "$bin/cuda_check" --part ops --cases 40 --json "$out/ops.json" || sound=no
  grep FAILED "$out/ops.log" | cut -c 1-400 | head -n 20
fi
if wants select && [[ $sound == yes ]]; then
  run select 30 "$bin/cuda_check" --part select --json "$out/select.json" || sound=no
  grep FAILED "$out/select.log" | cut -c 1-400 | head -n 20
fi
if wants decode && [[ $sound == yes ]]; then
  run decode 60 "$bin/cuda_check" --part decode --cases 40 --json "$out/decode.json" || sound=no
  run long-decode 30 "$bin/cuda_check" --part long_decode --json "$out/long-decode.json" || sound=no
  grep -h FAILED "$out/decode.log" "$out/long-decode.log" | cut -c 1-400 | head -n 20
fi
if wants verify && [[ -x $bin/msa ]]; then
  run verify 60 env LD_LIBRARY_PATH="$bin" "$bin/msa" verify --backend cuda \
    --pack "$here/conformance/pack"
  grep FAIL "$out/verify.log" | cut -c 1-400 | head -n 20
fi
if wants sanitizer; then
  for tool in memcheck racecheck initcheck synccheck; do
    part="ops --small"
    [[ $tool == racecheck ]] && part=each # slow: one batch through every kernel
    # shellcheck disable=SC2086
    run "sanitizer-$tool" 90 compute-sanitizer --tool $tool --error-exitcode 9 \
      "$bin/cuda_check" --part $part
  done
fi
if wants table; then
  run table 90 "$bin/cuda_bench" --table 8192,32768,131072 --json "$out/table.json"
fi
if wants dense; then
  run dense 30 "$bin/cuda_bench" --part dense --table 8192,32768,131072 --repeats 3 \
    --json "$out/dense.json"
fi
if wants peers; then
  run peers 130 python3 "$here/bench/cuda/peers.py" --json "$out/peers.json"
fi
if wants suite; then
  run suite 70 "$bin/cuda_bench" --suite "$here/bench/suites/prefill.csv" --repeats 3 \
    --json "$out/suite.json"
fi
if wants decode-bench && [[ -x $bin/cuda_decode_bench ]]; then
  run decode-bench 60 "$bin/cuda_decode_bench" \
    --select 131072x1024x16,262144x2048x16,524288x4096x16,131072x2048x32 \
    --decode 1x1x8192,1x1x131072,1x1x1048576,32x1x8192,32x1x131072,32x8x131072 \
    --dense 1x1x131072,1x1x1048576 \
    --suite "$here/bench/suites/decode.csv" --repeats 5 --json "$out/decode-bench.json"
  run decode-peers 60 python3 "$here/bench/cuda/decode_peers.py" --seconds 40 \
    --json "$out/decode-peers.json"
fi
if wants ncu; then
  for kernel in sm90_index_forward sm90_attention_gather sm90_attention_merge \
    sm90_attention_query_tile; do
    run "ncu-$kernel" 60 ncu --clock-control none --set full --launch-skip 1 --launch-count 1 \
      --kernel-name "regex:$kernel" "$bin/cuda_bench" --table 32768 --repeats 1
  done
fi
if wants long && [[ $sound == yes ]]; then
  run long 120 "$bin/cuda_check" --part long --json "$out/long.json"
  grep -E "FAILED|differ" "$out/long.log" | head
fi

for log in table dense suite peers decode-bench decode-peers; do
  [[ -f $out/$log.log ]] && tail -n 60 "$out/$log.log"
done
echo "summary after $((SECONDS - start)) s:"
cat "$summary"
