// msa.cpp: exact MiniMax Sparse Attention. This header is the whole C++ API.
#pragma once

#include "msa/attention.h"
#include "msa/cache.h"
#include "msa/context.h"
#include "msa/error.h"
#include "msa/index.h"
#include "msa/index_parts.h"
#include "msa/merge_states.h"
#include "msa/recall.h"
#include "msa/select_blocks.h"
#include "msa/sequences.h"
#include "msa/tensor.h"
#include "msa/training.h"
#include "msa/version.h"
