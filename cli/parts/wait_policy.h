// How the threads of OpenMP wait for each other.
#pragma once

namespace msa::cli {

/// Starts the program once more with GOMP_SPINCOUNT (and KMP_BLOCKTIME) set, unless the caller set
/// a wait policy. By default a waiting thread spins for milliseconds; when another program has one
/// of the cores, it spins while the thread it waits for is not even running: with one of two cores
/// taken, decoding fell from 161 to 8 tokens a second. The runtime reads these variables before
/// main(), so setting them takes a new start; where that fails, this one goes on.
void shorten_waiting(char** argv);

}  // namespace msa::cli
