#!/usr/bin/env bash
# Puts programs with the libraries that another machine may lack into one folder:
#
#   tools/gpu_pack.sh FROM TO [PROGRAM ...]      (default: cuda_check cuda_bench)
#
# To try the Hopper kernels there:
#   cmake -B build/cuda -G Ninja -DMSA_CUDA=ON && ninja -C build/cuda cuda_check cuda_bench
#   tools/gpu_pack.sh build/cuda/bin FOLDER, and there: tools/gpu_trip.sh FOLDER OUT
# To measure a model on a machine with more cores:
#   tools/gpu_pack.sh build/release/bin FOLDER msa, and there:
#   LD_LIBRARY_PATH=FOLDER python3 bench/model/suite.py --msa FOLDER/msa --out OUT
set -eu
from=${1:?folder of the programs}
to=${2:?folder to fill}
shift 2
(($# > 0)) || set -- cuda_check cuda_bench
mkdir -p "$to"
for program in "$@"; do
  cp "$from/$program" "$to/"
  ldd "$from/$program" | awk '/=> \// { print $3 }' |
    grep -E '/lib(fmt|hwy|gomp|dnnl|OpenCL|png16|z)\.' |
    while read -r library; do cp -L "$library" "$to/"; done
done
ls -l "$to"
