// msa.cpp: exact MiniMax Sparse Attention. This header is the whole C++ API.
#pragma once

#include "msa/attention.h"
#include "msa/context.h"
#include "msa/error.h"
#include "msa/index.h"
#include "msa/sequences.h"
#include "msa/tensor.h"
#include "msa/version.h"
