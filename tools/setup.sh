#!/usr/bin/env bash
# Installs what a word of the Makefile needs, and only that. When all is there it does nothing.
#
#   tools/setup.sh build                system packages to build, test and measure the project
#   tools/setup.sh clang                clang with its OpenMP, for the presets clang and tsan
#   tools/setup.sh python FILE...       the packages of these requirement files, in .venv
#
# System packages are those of Debian 12 and 13 and of Ubuntu 24.04, by apt-get (through sudo when
# not root). Elsewhere it says what is needed and goes on: CMake then names what it misses.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "[setup] $*"; }

# ocl-icd-opencl-dev: libdnnl-dev only recommends it, but its CMake files ask for it.
build_packages=(git make g++ cmake ninja-build pkg-config libfmt-dev libhwy-dev libdnnl-dev
                ocl-icd-opencl-dev libcli11-dev nlohmann-json3-dev libpng-dev libgtest-dev
                libgmock-dev libbenchmark-dev)
clang_packages=(clang libomp-dev libclang-rt-dev)
python_packages=(python3 python3-venv)

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "neither root nor sudo: run this as root, then try again: $*" >&2
    exit 1
  fi
}

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

system_packages() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "not a Debian or Ubuntu system: please install what these Debian packages hold: $*"
    say "(docs/building.md has the versions)"
    return
  fi
  local package missing=()
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing system packages: ${missing[*]}"
  local quiet=(-q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
  as_root apt-get "${quiet[@]}" update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y \
    --no-install-recommends "${missing[@]}" >/dev/null
}

# Each requirement file is installed once; its checksum remembers which text of it is installed.
python_environment() {
  local file stamp wanted=()
  for file in "$@"; do
    stamp=.venv/.installed-$(sha256sum <"$file" | cut -c1-16)
    [ -e "$stamp" ] || wanted+=("$file")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  system_packages "${python_packages[@]}"
  [ -x .venv/bin/python ] || { say "making the virtual environment .venv"; python3 -m venv .venv; }
  for file in "${wanted[@]}"; do
    say "installing Python packages of $file into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$file"
    touch ".venv/.installed-$(sha256sum <"$file" | cut -c1-16)"
  done
}

case "${1:-}" in
  build) system_packages "${build_packages[@]}" ;;
  clang) system_packages "${build_packages[@]}" "${clang_packages[@]}" ;;
  python) shift; python_environment "$@" ;;
  *) echo "usage: tools/setup.sh build | clang | python FILE..." >&2; exit 2 ;;
esac
