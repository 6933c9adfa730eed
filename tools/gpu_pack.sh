#!/usr/bin/env bash
# Puts cuda_check and cuda_bench with the libraries that a GPU machine may lack into one folder:
#
#   cmake -B build/cuda -G Ninja -DMSA_CUDA=ON && ninja -C build/cuda cuda_check cuda_bench
#   tools/gpu_pack.sh build/cuda/bin FOLDER
#
# There: tools/gpu_trip.sh FOLDER OUT. The programs look for libraries in their own folder first.
set -eu
from=${1:?folder of the programs}
to=${2:?folder to fill}
mkdir -p "$to"
for program in cuda_check cuda_bench; do
  cp "$from/$program" "$to/"
  ldd "$from/$program" | awk '/=> \// { print $3 }' |
    grep -E '/lib(fmt|hwy|gomp)\.' | while read -r library; do cp -L "$library" "$to/"; done
done
ls -l "$to"
