# sh pkg_config.sh LIBDIR EXAMPLES FOLDER: the examples by hand, as pkg-config says, against the
# library installed in LIBDIR. C with the shared library, C++ and C with the static one.
set -eu
libdir=$1 examples=$2 folder=$3
if ! command -v pkg-config >/dev/null; then
  echo "pkg-config is not installed: this test cannot run"
  exit 77
fi
export PKG_CONFIG_PATH="$libdir/pkgconfig"
export LD_LIBRARY_PATH="$libdir"

expect() {
  said=$("$1")
  echo "$said"
  [ "$said" = "$2" ] || { echo "expected: $2"; exit 1; }
}

# Unquoted on purpose: these are lists of words.
$CC $CFLAGS -Wall -Wextra -Werror "$examples/embed.c" -o "$folder/pc_shared" \
  $(pkg-config --cflags --libs msa)
expect "$folder/pc_shared" "the query reads blocks 0 1 4 15, out = 0.003906"
$CC $CFLAGS -Wall -Wextra -Werror "$examples/embed.c" -o "$folder/pc_static" \
  $(pkg-config --cflags --libs msa-static)
expect "$folder/pc_static" "the query reads blocks 0 1 4 15, out = 0.003906"
$CXX $CXXFLAGS -std=c++20 -Wall -Wextra -Werror "$examples/embed.cpp" -o "$folder/pc_embed" \
  $(pkg-config --cflags --libs msa-static)
expect "$folder/pc_embed" "the last token reads blocks 0 1 4 15, out = 0.003906"
